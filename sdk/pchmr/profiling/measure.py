"""One pipeline over the frames of a source, every part of the way recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter_ns

import numpy as np

from pchmr_engines.errors import InputError

from ..overlay import Renderer
from ..people import Person
from ..pipeline import Pipeline
from ..readers import Frame
from .frames import Timed
from .memory import gpu_mb, peak_mb, resident_mb
from .recorder import Recorder, Span

WARM_UP = 10
"""Frames before the first that counts: caches, threads and buffers come to rest."""
SMOOTHING = "smoothing_lag"


@dataclass(frozen=True)
class Measured:
    """What a run was, after its warm-up.

    camera_to_mesh_ms: of each frame, from `Frame.captured_ns` to its calibrated vertices in memory,
    with the look-ahead of a temporal network. smoothing_lag_ms: how far smoothing, where it is on,
    puts the mesh behind the movement; not in the former. seconds: from the first frame's begin to
    the last one's end.
    """

    spans: Sequence[Span]
    camera_to_mesh_ms: Sequence[float]
    smoothing_lag_ms: Sequence[float]
    frames: int
    frames_with_people: int
    people: int
    dropped: int
    seconds: float
    live: bool
    memory_mb: dict[str, float | None]


def measure(
    pipeline: Pipeline, recorder: Recorder, source: Timed, frames: int, draw: bool = True
) -> Measured:
    """Run `frames` frames and a warm-up. draw: the overlay too, after the mesh, in this thread.

    Raises:
        InputError: the source ended in the warm-up, or nobody was seen: there is no mesh to time.
    """
    renderer = Renderer(pipeline.body.faces) if draw else None
    latencies: list[float] = []
    lags: list[float] = []
    found: list[int] = []
    begin_ns, dropped, before = perf_counter_ns(), 0, resident_mb()
    recorder.clear()
    for number, frame in enumerate(islice(source, WARM_UP + frames)):
        if number == WARM_UP:
            recorder.clear()
            for kept in (latencies, lags, found):
                kept.clear()
            begin_ns, dropped, before = perf_counter_ns(), source.dropped, resident_mb()
        recorder.frame = number - WARM_UP
        people, latency_ms = _one(pipeline, recorder, frame)
        latencies.append(latency_ms)
        found.append(len(people))
        lags += [
            person.latency_ms[SMOOTHING] for person in people[:1] if SMOOTHING in person.latency_ms
        ]
        if renderer is not None and people:
            with recorder.span("draw", "overlay"):
                _draw(renderer, frame, people)
    if recorder.frame < 0 or not found:
        raise InputError(
            f"the source ended after {len(found)} frames; expected more than the {WARM_UP} of the "
            "warm-up: give a longer one"
        )
    check_seen(any(found), len(found))
    seconds = (perf_counter_ns() - begin_ns) / 1e9
    memory = {"before": before, "after": resident_mb(), "peak": peak_mb(), "gpu": gpu_mb()}
    return Measured(
        spans=tuple(recorder.spans),
        camera_to_mesh_ms=latencies,
        smoothing_lag_ms=lags,
        frames=len(found),
        frames_with_people=sum(map(bool, found)),
        people=sum(found),
        dropped=source.dropped - dropped,
        seconds=seconds,
        live=source.live,
        memory_mb=memory,
    )


def check_seen(anybody: bool, frames: int) -> None:
    """Raises: InputError where there was no mesh to time."""
    if not anybody:
        raise InputError(
            f"nobody was seen in {frames} frames, so there is no camera to mesh: name a --source "
            "with somebody in it"
        )


def _one(pipeline: Pipeline, recorder: Recorder, frame: Frame) -> tuple[list[Person], float]:
    """The people of a frame, and its camera to mesh in ms."""
    if frame.cut:
        pipeline.reset()
    begin = perf_counter_ns()
    recorder.add("capture", "decode", frame.captured_ns, frame.received_ns)
    recorder.add("queue", "queue", frame.received_ns, begin)
    people = pipeline(frame.image, frame.t_ns)
    done = perf_counter_ns()
    recorder.add("frame", "pipeline", begin, done)
    look_ahead_ms = people[0].latency_ms.get("look_ahead", 0.0) if people else 0.0
    return people, (done - frame.captured_ns) / 1e6 + look_ahead_ms


def _draw(renderer: Renderer, frame: Frame, people: Sequence[Person]) -> None:
    meshes = np.stack([person.vertices for person in people])
    renderer.render(frame.image, meshes, people[0].camera, in_place=True)
