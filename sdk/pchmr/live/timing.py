"""When each live frame was where, and what that adds up to; every figure says what it includes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

from ..latency import percentiles

T = TypeVar("T")

KEPT = 18_000
"""Frames whose times are kept: ten minutes at 30 a second, in 5 MB."""
RECENT = 120
"""Frames of the read-out on the screen."""

CAMERA_TO_MESH = (
    "from the camera's frame (a camera: handed over by its driver; a stream: its packet arrived; "
    "a file: due by its own clock) to calibrated vertices in memory: wait for the decoder, "
    "decoding, queue, inference and, for a temporal network, its look-ahead"
)
NOT_IN_IT = "exposure and transfer inside the camera, the network's way, drawing, the screen"


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """One frame's way, nanoseconds of `time.perf_counter_ns`.

    captured_ns: the camera had it: the driver handed it over, its packet had arrived, or, for a
        file, it was due. received_ns: it was decoded to BGR and could be taken.
    started_ns: the pipeline took it. done_ns: its calibrated vertices were in memory, so that a
        temporal network's wait for later frames is inside.
    shown_ns: its picture was given to the window or browser; None where it never was.
    """

    captured_ns: int
    received_ns: int
    started_ns: int
    done_ns: int
    shown_ns: int | None = None

    @property
    def decode_ms(self) -> float:
        """Capture wait and decoding."""
        return (self.received_ns - self.captured_ns) / 1e6

    @property
    def queue_ms(self) -> float:
        """Decoded, but the pipeline was busy."""
        return (self.started_ns - self.received_ns) / 1e6

    @property
    def inference_ms(self) -> float:
        """The pipeline, everything in it."""
        return (self.done_ns - self.started_ns) / 1e6

    @property
    def camera_to_mesh_ms(self) -> float:
        return (self.done_ns - self.captured_ns) / 1e6

    @property
    def draw_ms(self) -> float | None:
        """Wait for the display, and drawing."""
        return None if self.shown_ns is None else (self.shown_ns - self.done_ns) / 1e6


class TimingLog:
    """The newest `KEPT` timings. One thread adds, any thread reads."""

    def __init__(self) -> None:
        self.frames = self.frames_with_people = self.shown = 0
        self._done: deque[tuple[FrameTiming, bool]] = deque(maxlen=KEPT)
        self._shown: deque[FrameTiming] = deque(maxlen=KEPT)

    def add(self, timing: FrameTiming, people: bool = True) -> None:
        """A frame is done. people: it has a mesh."""
        self._done.append((timing, people))
        self.frames += 1
        self.frames_with_people += people

    def add_shown(self, timing: FrameTiming) -> None:
        """Its picture is shown."""
        self._shown.append(timing)
        self.shown += 1

    def summary(self, recent: int | None = None) -> dict[str, Any]:
        """p50, p95 and p99 in ms, of those of the newest `recent` frames, or of all, that have a
        mesh; and frames a second."""
        done, shown = _newest(self._done, recent), _newest(self._shown, recent)
        times, seen = [timing for timing, _ in done], [timing for timing, people in done if people]
        span_s = (times[-1].done_ns - times[0].done_ns) / 1e9 if len(times) > 1 else 0.0
        return {
            "frames": len(done),
            "frames_with_people": len(seen),
            "fps": round((len(done) - 1) / span_s, 1) if span_s > 0 else None,
            "camera_to_mesh_ms": percentiles([t.camera_to_mesh_ms for t in seen]),
            "includes": CAMERA_TO_MESH,
            "excludes": NOT_IN_IT,
            "decode_ms": percentiles([t.decode_ms for t in seen]),
            "queue_ms": percentiles([t.queue_ms for t in seen]),
            "inference_ms": percentiles([t.inference_ms for t in seen]),
            "draw_ms": percentiles([t.draw_ms for t in shown if t.draw_ms is not None]),
        }


def _newest(timings: deque[T], count: int | None) -> list[T]:
    """The last `count`, in order; a deque's `copy` is one step to other threads."""
    copied = list(timings.copy())
    return copied if count is None else copied[-count:]
