"""What a run cost: every millisecond figure with what it includes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from .people import Person

INCLUDES = (
    "from the decoded frame to calibrated vertices in memory: detection or tracking, crop, "
    "landmark network, mesh generator, body, placement, lifter, calibration, and the time "
    "until the last frame that a temporal network looks ahead to"
)
EXCLUDES = "decoding (in a thread of its own; it is in frames/s), drawing and encoding"


@dataclass
class LatencyLog:
    """Collects the latency of every frame of one run, and the run's own wall time."""

    frames: int = 0
    people: int = 0
    frames_with_people: int = 0
    _stages: dict[str, list[float]] = field(default_factory=dict)
    _begin: float = field(default_factory=perf_counter)

    def add(self, people: Sequence[Person]) -> None:
        """Count one frame and the people found in it."""
        self.frames += 1
        self.people += len(people)
        self.frames_with_people += bool(people)
        for name, value in (people[0].latency_ms if people else {}).items():
            self._stages.setdefault(name, []).append(value)

    def add_apart(self, name: str, value_ms: float) -> None:
        """Note work on a frame that is not part of camera to mesh, such as drawing."""
        self._stages.setdefault(name, []).append(value_ms)

    def summary(self) -> dict[str, Any]:
        """fps of the whole run, and p50, p95, p99 in ms of camera to mesh and of each stage."""
        total = self._stages.get("total", [])
        return {
            "frames": self.frames,
            "frames_with_people": self.frames_with_people,
            "people": self.people,
            "fps": round(self.frames / (perf_counter() - self._begin), 2),
            "fps_includes": "everything from opening the input to the last result",
            "camera_to_mesh_ms": percentiles(total),
            "includes": INCLUDES,
            "excludes": EXCLUDES,
            "stages_ms": {
                name: percentiles(values)
                for name, values in self._stages.items()
                if name != "total"
            },
        }


def percentiles(values_ms: list[float]) -> dict[str, float | None]:
    """p50, p95 and p99, None where nothing was measured."""
    if not values_ms:
        return {"p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(values_ms, (50, 95, 99)).tolist()
    return {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)}


def distribution(values_ms: Sequence[float]) -> dict[str, float | None]:
    """p50, p95, p99 and the largest, None where nothing was measured."""
    largest = round(max(values_ms), 3) if values_ms else None
    return {**percentiles(list(values_ms)), "max": largest}


def machine() -> dict[str, Any]:
    """Where figures were measured: CPU, CPUs usable, versions."""
    import platform

    from pchmr_engines.host import cpu_model, installed_versions, usable_cpus

    return {
        "cpu": cpu_model(),
        "cpus": usable_cpus(),
        "python": platform.python_version(),
        **installed_versions(("pchmr", "onnxruntime", "openvino", "numpy")),
    }
