"""Runs a bundle on real frames, to record what its stages are given, or with other engines in it.

frames = clips_to_calibrate_on()
inputs = recorded_inputs(bundle, frames)           # stage -> {input: rows}
vertices = run_meshes(bundle, frames)              # one (V, 3) a frame and person
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr import Person, Pipeline
from pchmr.assets import fetch
from pchmr.tracking import Detect, Pose, RoiTracker, Tracked
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context, Engine

from .examples import Arrays, video_frames

Frames = Sequence[NDArray[np.uint8]]
Course = list[list[Tracked]]
"""The people followed in each frame, with the regions they were looked for in."""
CLIP = 24
"""Frames of each clip: near half a second, in which people are followed."""


def clips_to_calibrate_on() -> list[list[NDArray[np.uint8]]]:
    """Near half a second of each video: what rounding and clipping are fitted to."""
    return _clips((0, 0), CLIP)


def clips_to_judge_by(count: int = CLIP // 2) -> list[list[NDArray[np.uint8]]]:
    """Other frames of the same videos, `count` of each."""
    return _clips((100, 40), count)


def _clips(first: tuple[int, int], count: int) -> list[list[NDArray[np.uint8]]]:
    """Clips of (H, W, 3) uint8 BGR frames: the demo video, and one camera of Pose2Sim's person.

    first: of each video, from 0.
    """
    cameras = sorted((fetch("pose2sim_single") / "videos").glob("*.mp4"))
    videos = fetch("demo_video"), cameras[0]
    return [video_frames(video, start, count) for video, start in zip(videos, first, strict=True)]


@dataclass(frozen=True)
class RehearsedBundle(Bundle):
    """A bundle whose stages run on given engines, and which notes what each of them is fed.

    engines: by stage; the others run in float32 on ONNX Runtime, or on `backend`. seen: by stage,
    the inputs of each run.
    """

    engines: Mapping[str, Engine] = field(default_factory=dict)
    backend: str = "onnxruntime"
    seen: dict[str, list[Arrays]] | None = None

    def engine(
        self,
        name: str,
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> Engine:
        made = self.engines.get(name) or super().engine(name, self.backend, 1, "fp32")
        if self.seen is None:
            return made
        return _WatchedEngine(made, self.seen.setdefault(name, []))


class _WatchedEngine:
    """An engine that keeps a copy of what each run is given."""

    def __init__(self, engine: Engine, seen: list[Arrays]) -> None:
        self._engine, self._seen = engine, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def context(self, *arguments: Any, **options: Any) -> Any:
        context = self._engine.context(*arguments, **options)
        return _WatchedContext(context, tuple(self._engine.inputs), self._seen)


class _WatchedContext:
    def __init__(self, context: Context, inputs: tuple[str, ...], seen: list[Arrays]) -> None:
        self._context, self._inputs, self._seen = context, inputs, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def enqueue(self) -> None:
        self._seen.append({name: self._context.buffers[name].copy() for name in self._inputs})
        self._context.enqueue()


def rehearsed(bundle: Bundle, **options: Any) -> RehearsedBundle:
    """The bundle with these engines, backend or notes."""
    return RehearsedBundle(bundle.root, bundle.manifest, **options)


def recorded_inputs(bundle: Bundle, clips: Sequence[Frames]) -> dict[str, Arrays]:
    """Stage -> its inputs by name, (rows, ...), one row a run, in its fp32 form.

    Topologies are run until every stage was.
    """
    seen: dict[str, list[Arrays]] = {}
    for topology in covering(bundle):
        run_people(rehearsed(bundle, seen=seen), clips, topology)
    return {
        stage: {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        for stage, rows in seen.items()
    }


def covering(bundle: Bundle) -> tuple[str, ...]:
    """Topologies that between them run every stage, the most accurate first."""
    has = bundle.manifest.topologies
    within = {"template": {"parallel"}, "mesh-only": {"parallel", "serial"}}
    wanted = ("parallel", "serial", *(name for name, more in within.items() if not more & set(has)))
    return tuple(name for name in wanted if name in has)


def run_people(
    bundle: Bundle, clips: Sequence[Frames], topology: str, course: Course | None = None
) -> list[list[Person]]:
    """The people of each frame, followed within a clip; a stream's owed frames are flushed.

    course: empty, it takes down where each frame's people were looked for; filled by another run,
    they are looked for there again. Without it a difference of 1e-3 px moves the next crop, and
    float32 on two backends differs by 5 mm a vertex after a few frames.
    """
    found: list[list[Person]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained weights, approximate conversions
        pipeline = Pipeline.load(bundle, topology, threads=1)
    if course is not None:
        finder = pipeline._finder
        finder.tracker = _Follower(finder.tracker, course)  # type: ignore[assignment]
    try:
        for clip in clips:
            pipeline.reset()
            found += [pipeline(frame) for frame in clip]
            found += pipeline.flush()
    finally:
        pipeline.close()
    return found


class _Follower:
    """In place of a tracker: takes down its course, or keeps to one taken down before."""

    def __init__(self, tracker: RoiTracker, course: Course) -> None:
        self._tracker, self._course = tracker, course
        self._left = iter(list(course)) if course else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def step(self, detect: Detect, pose: Pose, look_closer: Detect | None = None) -> list[Tracked]:
        if self._left is None:
            tracks = self._tracker.step(detect, pose, look_closer)
            self._course.append(tracks)
            return tracks
        before = next(self._left)
        seen = pose([track.landmarks.roi for track in before]) if before else []
        return [Tracked(t.track_id, found) for t, found in zip(before, seen, strict=True)]
