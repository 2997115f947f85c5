"""Spans of a run added up to a frame's parts: how long each took, and what it includes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pchmr_engines.manifest import Manifest

from ..latency import distribution
from .measure import Measured
from .recorder import Span

Part = tuple[str, str]
"""Kind and name, as ("engine", "landmarks")."""

LEAST_MS = 0.02
"""Parts whose p50 is less are left out; they are in the sums all the same."""

HEADLINE = {
    True: (
        "from the camera's frame (a camera: handed over by its driver; a stream: its packet "
        "arrived; a file: due by its own clock) to calibrated vertices in memory: capture, queue, "
        "the whole pipeline and, for a temporal network, its look-ahead"
    ),
    False: (
        "from the moment a frame is asked for to calibrated vertices in memory: decoding, then "
        "the whole pipeline and, for a temporal network, its look-ahead; nothing overlaps"
    ),
}
EXCLUDES = "exposure and transfer inside a camera, drawing, the screen"

INCLUDES = {
    "capture": "wait for the decoder, decoding to BGR",
    "queue": "decoded, while the pipeline was busy with another frame",
    "upload": "copies to a device (a CPU has none)",
    "preprocess": "crops and keypoints into a network's buffers; find: tracking too",
    "engine": "a network, all its calls of a frame",
    "kernel": "the native library: skinning (body), blending (calibrate)",
    "sync": "wait for a device (a CPU has none)",
    "postprocess": "outputs decoded, joints regressed, placement, targets",
    "other": "of the pipeline: rows, arrays copied for the caller",
    "draw": "overlay in the frame's size, same thread; not in camera to mesh",
}
ORDER = tuple(INCLUDES)


@dataclass(frozen=True)
class Row:
    """One part. ms: its distribution over the frames in which it ran; share: of all the pipeline's
    time; calls: a frame, in the mean; macs: multiply-adds of one call for one person."""

    kind: str
    name: str
    ms: Mapping[str, float | None]
    frames: int
    share: float | None
    calls: float
    macs: int | None


def parts_of_frame(spans: Sequence[Span]) -> dict[Part, float]:
    """Milliseconds of each part of one frame; engines are taken out of what holds them."""
    parts: dict[Part, float] = defaultdict(float)
    inner = [span for span in spans if span.kind in ("engine", "sync")]
    for span in spans:
        if span.kind in ("engine", "sync", "draw"):
            parts[span.kind, span.name] += span.ms
        elif span.kind in ("capture", "queue"):
            parts[span.kind, ""] += span.ms
        elif span.kind in ("find", "prepare", "enqueue", "collect"):
            within = sum(part.ms for part in inner if _holds(span, part))
            parts[_part(span, bool(within))] += span.ms - within
    for span in spans:
        if span.kind == "frame":
            parts["other", ""] = span.ms - union_ms(
                part for part in spans if part.kind in ("find", "prepare", "enqueue", "collect")
            )
    return dict(parts)


def own_ms(spans: Sequence[Span]) -> float:
    """The runtime's own part of a frame: the pipeline's time without engines and kernels."""
    inner = [span for span in spans if span.kind in ("engine", "sync")]
    kernels = [
        span
        for span in spans
        if span.kind == "enqueue" and not any(_holds(span, part) for part in inner)
    ]
    whole = sum(span.ms for span in spans if span.kind == "frame")
    return whole - union_ms([*inner, *kernels])


def union_ms(spans: Iterable[Span]) -> float:
    """Time in which at least one of the spans ran: those of threads side by side count once."""
    total, end = 0, 0
    for span in sorted(spans, key=lambda span: span.begin_ns):
        total += max(0, span.end_ns - max(span.begin_ns, end))
        end = max(end, span.end_ns)
    return total / 1e6


def by_frame(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans of each frame, in order."""
    frames: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        frames[span.frame].append(span)
    return [frames[number] for number in sorted(frames)]


def rows_of(measured: Measured, manifest: Manifest) -> list[Row]:
    """The parts in the order of a frame's way, a row each."""
    frames = by_frame(measured.spans)
    times: dict[Part, list[float]] = defaultdict(list)
    for spans in frames:
        for part, ms in parts_of_frame(spans).items():
            times[part].append(ms)
    calls: dict[str, int] = defaultdict(int)
    for span in measured.spans:
        calls[span.name] += span.kind == "engine"
    macs = {stage.name: stage.macs for stage in manifest.stages}
    whole = sum(span.ms for span in measured.spans if span.kind == "frame")
    rows = [
        Row(
            kind,
            name,
            distribution(values),
            len(values),
            None if kind in ("capture", "queue", "draw") else sum(values) / whole,
            calls[name] / len(frames) if kind == "engine" else len(values) / len(frames),
            macs.get(name) if kind == "engine" else None,
        )
        for (kind, name), values in times.items()
        if median(values) > LEAST_MS
    ]
    return sorted(rows, key=lambda row: ORDER.index(row.kind))  # stable: as they came


def summary_of(measured: Measured, manifest: Manifest) -> dict[str, Any]:
    """All figures of a run as JSON takes them, each with what it includes."""
    rows = rows_of(measured, manifest)
    frames = by_frame(measured.spans)
    macs = [row.macs * row.calls for row in rows if row.macs]
    return {
        "camera_to_mesh_ms": distribution(measured.camera_to_mesh_ms),
        "includes": HEADLINE[measured.live],
        "excludes": EXCLUDES,
        "smoothing_lag_ms": distribution(measured.smoothing_lag_ms),
        "smoothing_lag_includes": "how far smoothing puts the mesh behind the movement, besides",
        "pipeline_ms": distribution([s.ms for s in measured.spans if s.kind == "frame"]),
        "own_overhead_ms": distribution([own_ms(spans) for spans in frames]),
        "own_overhead_includes": "the pipeline without engines and kernels",
        "frames": measured.frames,
        "frames_with_people": measured.frames_with_people,
        "people": measured.people,
        "dropped": measured.dropped,
        "fps": round(measured.frames / measured.seconds, 2),
        "fps_includes": "everything: capture, pipeline and, where it is on, drawing",
        "megamacs_a_frame": round(sum(macs) / 1e6, 1),
        "megamacs_include": "networks, as often as they were called, for one person",
        "memory_mb": measured.memory_mb,
        "parts": [
            {
                "kind": row.kind,
                "name": row.name,
                "ms": row.ms,
                "frames": row.frames,
                "share": None if row.share is None else round(row.share, 4),
                "calls_a_frame": round(row.calls, 3),
                "megamacs": None if row.macs is None else round(row.macs / 1e6, 2),
            }
            for row in rows
        ],
        "parts_include": INCLUDES,
        "parts_left_out": f"those that take {LEAST_MS} ms or less (p50)",
    }


def _part(span: Span, holds_an_engine: bool) -> Part:
    if span.kind == "find":
        return "preprocess", "find"
    if span.kind == "enqueue":
        return ("preprocess" if holds_an_engine else "kernel"), span.name
    return ("preprocess" if span.kind == "prepare" else "postprocess"), span.name


def _holds(outer: Span, inner: Span) -> bool:
    return (
        outer.thread == inner.thread
        and outer.begin_ns <= inner.begin_ns
        and inner.end_ns <= outer.end_ns
    )
