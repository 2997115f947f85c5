"""Stages compiled: the same people as stage by stage, whoever comes and goes."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr import Person, Pipeline
from pchmr.blazepose import Landmarks
from pchmr.compiled import (
    MOST_COMPILED,
    MOST_MARKS,
    Compiled,
    CompiledExecutor,
    NotCompiled,
    executor_of,
)
from pchmr.executor import Executor
from pchmr.lens import Lens
from pchmr.smoothing import OneEuro, PointFilter
from pchmr.stages.base import BatchedEngine, Board, HostStage, Row
from pchmr.stages.smoothed import Smoothed
from pchmr_engines.errors import PchmrError

Image = NDArray[np.uint8]
Load = Callable[..., Pipeline]
FRAME_NS = 33_000_000


def assert_same(people: list[Person], others: list[Person]) -> None:
    assert len(people) == len(others)
    for a, b in zip(people, others, strict=True):
        for name in {field.name for field in fields(Person)} - {"latency_ms"}:
            np.testing.assert_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert a.latency_ms.keys() == b.latency_ms.keys()
        lag = "smoothing_lag"
        assert a.latency_ms.get(lag) == b.latency_ms.get(lag)


@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smooth"])
@pytest.mark.parametrize("topology", ["serial", "parallel", "mesh-only"])
def test_people_are_those_of_the_stages_one_by_one(
    topology: str, smooth: bool, load_open: Load, walk: list[Image], two_people: Image
) -> None:
    """Bit by bit; one person, two, and one again, with and without lens distortion."""
    lens = Lens(distortion=(-0.1, 0.02, 0.0, 0.0)) if smooth else None
    options = {"smooth": smooth, "max_people": 2, "camera": lens}
    compiled = load_open(topology, **options)
    staged = load_open(topology, side_by_side=True, **options)
    assert isinstance(compiled._executor, CompiledExecutor)
    assert isinstance(staged._executor, Executor)
    found, kept = set(), []
    for number, image in enumerate([*walk[:3], two_people, two_people, *walk[3:]]):
        if image is two_people or image is walk[3]:
            compiled.reset()
            staged.reset()
        people = compiled(image, number * FRAME_NS)
        assert_same(people, staged(image, number * FRAME_NS))
        found.add(len(people))
        kept += [(person.vertices, person.vertices.copy()) for person in people]
    assert found == {1, 2}
    for array, copy in kept:
        np.testing.assert_array_equal(array, copy)  # no later frame wrote to it


def test_a_smoothed_person_goes_on_in_the_pipeline_that_takes_over(
    load_open: Load, walk: list[Image]
) -> None:
    first, second, third = (load_open(smooth=True) for _ in range(3))
    for number, image in enumerate(walk[:4]):
        (alone,) = first(image, number * FRAME_NS)
        (taken,) = (second if number < 2 else third)(image, number * FRAME_NS)
        if number == 1:
            third.take_over(second)
    np.testing.assert_array_equal(alone.vertices, taken.vertices)


def test_few_numbers_of_people_are_kept(load_open: Load) -> None:
    executor = load_open(max_people=MOST_COMPILED + 1)._executor
    assert isinstance(executor, CompiledExecutor)
    made = [executor._of(people) for people in range(1, MOST_COMPILED + 2)]
    assert list(executor._compiled) == list(range(2, MOST_COMPILED + 2))
    assert executor._of(2) is made[1]
    assert executor._of(1) is not made[0]


class Plain(HostStage):
    """A stage of Python's own."""

    name, needs, gives = "plain", frozenset({"keypoints"}), frozenset({"more"})

    def collect(self, board: Board) -> None:
        board["more"] = board["keypoints"]


def test_what_cannot_be_compiled_runs_stage_by_stage(load_open: Load) -> None:
    pipeline = load_open()
    given = frozenset({"keypoints"})

    def made(stage: HostStage) -> object:
        return executor_of([stage], given, pipeline._meshes, False, False, None)

    assert isinstance(made(Plain()), Executor)
    assert isinstance(load_open("template")._executor, Executor)

    class Refusing(Plain):
        def compile(self, into: Compiled) -> None:
            raise NotCompiled(self.name)

    assert isinstance(made(Refusing()), Executor)
    with pytest.raises(PchmrError, match="wait for what no stage gives"):
        executor_of([Plain()], frozenset(), pipeline._meshes, False, False, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("smooth", [False, True])
def test_networks_of_another_precision_run_stage_by_stage(
    dtype: type[np.floating], smooth: bool, load_open: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code would read their numbers as float32."""
    arrays_of = BatchedEngine.arrays

    def other(self: BatchedEngine, people: int) -> dict[str, np.ndarray]:
        arrays = arrays_of(self, people)
        return {n: a.astype(dtype) if n == "betas" else a for n, a in arrays.items()}

    monkeypatch.setattr(BatchedEngine, "arrays", other)
    assert isinstance(load_open(smooth=smooth)._executor, Executor)


def test_filters_of_other_shapes_are_not_taken_over() -> None:
    filters = {"betas": lambda shape: PointFilter(shape, OneEuro(1.0, 0.0))}
    few, many = (Smoothed(Plain(), filters) for _ in range(2))
    row = Row(0, 0, 7, 0)
    ((few_of,),) = [own.values() for own in few._filters_of([row], {"betas": np.zeros((1, 5))})]
    many.take_over([few])
    ((many_of,),) = [own.values() for own in many._filters_of([row], {"betas": np.zeros((1, 9))})]
    assert (few_of.shape, many_of.shape) == ((5,), (9,))


def test_landmarks_are_copied_whole(load_open: Load, walk: list[Image]) -> None:
    (tracked,) = load_open()._find(walk[0])
    copied = deepcopy(tracked.landmarks)
    copied.keypoints_2d[:] = 7
    assert (Landmarks(copied.raw, copied.roi).keypoints_2d == 7).all()
    assert not (tracked.landmarks.keypoints_2d == 7).any()
    assert copied.roi == tracked.landmarks.roi


def test_after_an_error_of_a_network_the_next_frame_is_as_ever(
    load_open: Load, walk: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, other = load_open(), load_open()
    assert isinstance(pipeline._executor, CompiledExecutor)
    pipeline(walk[0], 0)
    compiled, _ = pipeline._executor._compiled[1]

    def fail() -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as broken:
        first, _, *others = compiled._steps
        broken.setattr(compiled, "_steps", [first, fail, *others])
        with pytest.raises(RuntimeError, match="broken"):
            pipeline(walk[1], FRAME_NS)
    other(walk[0], 0)
    other(walk[1], FRAME_NS)
    (one,), (expected,) = pipeline(walk[2], 2 * FRAME_NS), other(walk[2], 2 * FRAME_NS)
    np.testing.assert_array_equal(one.vertices, expected.vertices)


def test_a_frame_is_not_held_when_it_is_done(load_open: Load, walk: list[Image]) -> None:
    pipeline, image = load_open(), walk[0].copy()
    assert pipeline(image)
    held = weakref.ref(image)
    del image
    gc.collect()
    assert held() is None


def test_more_parts_than_there_are_times_for_are_not_compiled() -> None:
    compiled = Compiled(1, False)
    for number in range(MOST_MARKS - 1):
        compiled.begin(str(number))
    with pytest.raises(NotCompiled, match="more than 64 parts"):
        compiled.begin("last")
