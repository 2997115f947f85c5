"""What goes from the session to those who show or record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..people import Person
from ..readers import Frame
from .timing import FrameTiming


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


LINES = 3
"""Of a full read-out."""


def readout(status: Status, calibrated: bool) -> list[str]:
    """The status as lines of text; each figure of latency says what it includes."""
    timing = status.timing
    mesh, fps = timing["camera_to_mesh_ms"], timing["fps"]
    parts = " + ".join(
        f"{name} {timing[f'{name}_ms']['p50']:.1f}"
        for name in ("decode", "queue", "inference")
        if timing[f"{name}_ms"]["p50"] is not None
    )
    states = [
        f"{status.topology}, {'after' if calibrated else 'before'} calibration",
        f"loading {status.loading}" if status.loading else "",
        "paused" if status.paused else "",
        f"recording {status.recording.name}" if status.recording else "",
        f"{status.missed} not recorded" if status.missed else "",
        status.trouble,
    ]
    lines = ["  |  ".join(filter(None, states))]
    if mesh["p50"] is not None:
        drawn = timing["draw_ms"]["p50"]
        lines += [
            f"camera to mesh p50 {mesh['p50']:.1f}  p95 {mesh['p95']:.1f} ms  ({parts})",
            f"{fps or 0:.1f} frames/s  |  {status.dropped} dropped"
            + (f"  |  drawing {drawn:.1f} ms more" if drawn is not None else ""),
        ]
    return lines
