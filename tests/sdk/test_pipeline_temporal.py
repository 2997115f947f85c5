"""The pipeline with a stage that looks ahead, with smoothing, across gaps and cuts."""

from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from averaging_engine import AveragingEngine
from numpy.typing import NDArray

from pchmr import Person, Pipeline
from pchmr.assembly import Assembly
from pchmr.media import open_source
from pchmr.stages.temporal import StreamingStage
from pchmr.swaps import SwapRejection
from pchmr.tracking import Tracked
from pchmr_kernels.skeletons import get_skeleton

LATE = 3
FRAME_NS = 40_000_000
Image = NDArray[np.uint8]
Load = Callable[..., Pipeline]


@pytest.fixture
def load_late(load_open: Load, monkeypatch: pytest.MonkeyPatch) -> Load:
    """As `load_open`, with one more stage, whose result comes three frames late."""
    plain = Assembly.stages

    def stages(self: Assembly) -> list:
        engine = AveragingEngine(LATE)
        inputs, outputs = {"x": "translation"}, {"mean": "late"}
        late = StreamingStage("late", engine, engine.settings, inputs, outputs, 2, 1)
        return [*plain(self), late]

    monkeypatch.setattr(Assembly, "stages", stages)
    return load_open


def assert_same(a: Person, b: Person) -> None:
    for name in {field.name for field in fields(Person)} - {"latency_ms"}:
        np.testing.assert_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("topology", ["parallel", "serial"])
def test_people_come_late_with_their_own_frame(
    topology: str,
    load_open: Load,
    load_late: Load,
    walk: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = load_late(topology)
    monkeypatch.undo()
    plain = load_open(topology)
    assert (late.look_ahead, plain.look_ahead) == (LATE, 0)
    empty = np.zeros_like(walk[0])
    frames = [*walk, empty, walk[0]]
    expected, calls = [], []
    for number, frame in enumerate(frames):
        if number == len(frames) - 1:
            for pipe in (plain, late):
                pipe.reset()
        expected.append(plain(frame, number * FRAME_NS))
        calls.append(late(frame, number * FRAME_NS))
        assert (plain.owed, late.owed) == (0, min(number + 1, LATE))
    rest = late.flush()
    assert len(rest) == LATE
    assert late.owed == 0
    assert calls[:LATE] == [[]] * LATE
    for people, others in zip([*calls[LATE:], *rest], expected, strict=True):
        for person, other in zip(people, others, strict=True):
            assert_same(person, other)
    assert [len(people) for people in expected] == [1] * 6 + [0, 1]
    (person,) = calls[LATE]
    assert person.latency_ms["look_ahead"] == LATE * FRAME_NS / 1e6
    assert person.latency_ms["total"] > person.latency_ms["look_ahead"]
    (last,) = rest[-1]
    assert last.latency_ms["look_ahead"] == 0
    assert "look_ahead" not in expected[0][0].latency_ms
    assert plain.flush() == []


def test_a_flush_in_the_middle_begins_anew(load_late: Load, walk: list[Image]) -> None:
    pipe = load_late("mesh-only")
    for frame in walk:
        pipe(frame)
    assert [person.frame for people in pipe.flush() for person in people] == [3, 4, 5]
    for frame in walk[:LATE]:
        assert pipe(frame) == []
    assert [person.frame for person in pipe(walk[LATE])] == [6]


# Smoothing


def test_smoothing_begins_with_what_is_seen_and_begins_anew_after_a_gap(
    load_open: Load, walk: list[Image]
) -> None:
    plain, smooth = load_open(), load_open(smooth=True)
    times = [0, 1, 2, 40, 41]  # after 1.5 s nobody's movement goes on
    frames = [walk[0], walk[2], walk[4], walk[4], walk[2]]
    apart = []
    for time, frame in zip(times, frames, strict=True):
        (a,), (b,) = (pipe(frame, time * FRAME_NS) for pipe in (plain, smooth))
        apart.append(np.abs(a.vertices - b.vertices).max())
        assert ("smoothing_lag" in b.latency_ms, "smoothing_lag" in a.latency_ms) == (True, False)
    assert apart[0] < 1e-5
    assert apart[3] < 1e-5
    assert min(apart[1], apart[2], apart[4]) > 1e-3
    assert b.latency_ms["smoothing_lag"] > 0


def test_after_a_cut_everybody_is_somebody_else(
    load_open: Load, walk: list[Image], astronaut: Image
) -> None:
    pipe = load_open(smooth=True)
    other = np.zeros_like(walk[0])
    other[:512, :512] = astronaut
    tracks = [{person.track_id for person in pipe(image)} for image in (walk[0], walk[1], other)]
    assert tracks[0] == tracks[1]
    assert not tracks[2] & tracks[1]


def test_left_and_right_of_real_footage_are_put_back(
    load_open: Load, assets: Callable[[str], Path]
) -> None:
    """BlazePose takes the jumping man's left for his right in frames 68 to 73 of the demo video."""
    skeleton = get_skeleton("blazepose33")
    left, right = (skeleton.index(f"{side}_shoulder") for side in ("left", "right"))

    def faces_us(track: Tracked) -> bool:
        points = track.landmarks.keypoints_2d
        return bool(points[left, 0] > points[right, 0])

    find, reject, as_seen, as_given = load_open("mesh-only")._find, SwapRejection(), [], []
    with open_source(assets("demo_video")) as source:
        for frame in islice(source, 76):
            tracks = find(frame.image)
            as_seen.append(faces_us(tracks[0]))
            as_given.append(faces_us(reject(tracks, frame.t_ns)[0]))
    assert [number for number, faces in enumerate(as_seen) if not faces] == [*range(68, 74)]
    assert all(as_given)
