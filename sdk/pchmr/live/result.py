"""What goes from the session to those who show or record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..people import Person
from ..readers import Frame
from .timing import FrameTiming

PARTS = ("decode", "queue", "inference")
"""Of camera to mesh, in order."""


@dataclass(frozen=True)
class Result:
    """The people of one frame. Nothing in it may be changed: others have it too."""

    frame: Frame
    people: Sequence[Person]
    timing: FrameTiming
    topology: str


@dataclass(frozen=True)
class Status:
    """How the session stands.

    topology: of the newest result. loading: the one that is being loaded, if any. trouble: what
        the input waits for, as a lost camera, or why a topology could not be loaded.
    recording: the mp4 that is being written. dropped: frames of the camera that the pipeline had
        no time for. missed: results not recorded for want of time.
    timing: `TimingLog.summary` of the newest frames.
    """

    topology: str
    loading: str
    paused: bool
    trouble: str
    recording: Path | None
    dropped: int
    missed: int
    timing: Mapping[str, Any]


def readout(status: Status, calibrated: bool) -> list[str]:
    """Three lines: the latency, what it is made of, how the session stands."""
    timing = status.timing
    mesh, drawn = timing["camera_to_mesh_ms"], timing["draw_ms"]["p50"]
    states = [
        f"{status.topology}, {'after' if calibrated else 'before'} calibration",
        f"loading {status.loading}" if status.loading else "",
        f"{timing['fps'] or 0:.1f} frames/s",
        f"{status.dropped} dropped",
        "paused" if status.paused else "",
        f"recording {status.recording.name}" if status.recording else "",
        f"{status.missed} not recorded" if status.missed else "",
        status.trouble,
    ]
    state = "  |  ".join(filter(None, states))
    if mesh["p50"] is None:
        return ["nobody seen" if timing["frames"] else "no mesh yet", "", state]
    parts = (f"{name} {timing[f'{name}_ms']['p50']:.1f}" for name in PARTS)
    apart = "" if drawn is None else f"; drawing {drawn:.1f} more"
    return [
        f"camera to mesh {mesh['p50']:.1f} ms  (p95 {mesh['p95']:.1f})",
        " + ".join(parts) + apart,
        state,
    ]
