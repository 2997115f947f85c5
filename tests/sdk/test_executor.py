"""The executor: order from needs and gives, branches side by side, errors."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from pchmr.camera import Camera
from pchmr.executor import Executor, levels_of
from pchmr.stages.base import Board, Row
from pchmr_engines.errors import PchmrError

START = frozenset({"start"})


class Step:
    """A stage that adds up what it needs; `during` runs in its enqueue."""

    def __init__(
        self, name: str, needs: str, gives: str, during: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.needs, self.gives = frozenset(needs.split()), frozenset(gives.split())
        self._during = during
        self._sum = np.zeros(1)

    def prepare(self, board: Board) -> None:
        self._sum = np.ones(1) + sum(board[name] for name in self.needs)

    def enqueue(self) -> None:
        self._during()

    def collect(self, board: Board) -> None:
        for name in self.gives:
            board[name] = self._sum


def board() -> Board:
    image = np.zeros((4, 4, 3), np.uint8)
    board = Board(image, Camera.from_size(4, 4), [Row(0, 0, 0, 0)], [])
    board["start"] = np.zeros(1)
    return board


def diamond(**during: Callable[[], None]) -> list[Step]:
    """Last first: the order comes from the names alone."""
    steps = (
        ("join", "left right", "end"),
        ("b", "a", "right"),
        ("c", "a", "left"),
        ("first", "start", "a"),
    )
    return [Step(*step, during.get(step[0], lambda: None)) for step in steps]


def test_levels_follow_needs_and_gives() -> None:
    levels = levels_of(diamond(), START)
    assert [" ".join(stage.name for stage in level) for level in levels] == ["first", "b c", "join"]
    assert levels_of([], START) == []


def test_a_need_that_nothing_gives() -> None:
    with pytest.raises(PchmrError, match=r"no stage gives: \{'late': \['nowhere'\]\}"):
        levels_of([Step("first", "start", "a"), Step("late", "a nowhere", "b")], START)


def test_stages_that_wait_for_each_other() -> None:
    with pytest.raises(PchmrError, match=r"'x': .*'b'.*'y': .*'a'"):
        levels_of([Step("x", "b", "a"), Step("y", "a", "b")], START)


@pytest.mark.parametrize("name", ["a", "start"])
def test_a_name_given_twice(name: str) -> None:
    with pytest.raises(PchmrError, match=rf"'second' gives \['{name}'\]"):
        levels_of([Step("first", "start", "a"), Step("second", "start", name)], START)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_the_board_is_filled(side_by_side: bool) -> None:
    executor = Executor(diamond(), START, side_by_side)
    for _ in range(3):
        filled = board()
        executor.run(filled)
        assert {name: float(array[0]) for name, array in filled.items()} == {
            "start": 0,
            "a": 1,
            "left": 2,
            "right": 2,
            "end": 5,
        }
        assert executor.latency_ms.keys() == {"first", "b", "c", "join"}
        assert all(value >= 0 for value in executor.latency_ms.values())
    executor.close()


def test_branches_run_at_the_same_time() -> None:
    """Each waits until the other is there too: one after the other would break the barrier."""
    meet = threading.Barrier(2, timeout=20.0)
    executor = Executor(diamond(b=meet.wait, c=meet.wait), START, True)
    executor.run(board())
    executor.close()
    assert not meet.broken


def test_without_side_by_side_all_stages_run_on_the_callers_thread() -> None:
    seen: set[int] = set()

    def note() -> None:
        seen.add(threading.get_ident())

    Executor(diamond(first=note, b=note, c=note, join=note), START, False).run(board())
    assert seen == {threading.get_ident()}


def fail() -> None:
    raise ValueError("broken on purpose")


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("stage", ["first", "b", "c", "join"])
def test_an_error_surfaces_and_the_next_frame_runs(stage: str, side_by_side: bool) -> None:
    failing = [True]
    steps = diamond(**{stage: lambda: fail() if failing else None})
    executor = Executor(steps, START, side_by_side)
    with pytest.raises(ValueError, match="broken on purpose"):
        executor.run(board())
    failing.clear()
    filled = board()
    executor.run(filled)
    assert filled["end"] == 5
    executor.close()


def test_after_an_error_no_stage_is_still_writing() -> None:
    release = threading.Event()
    done = []

    def slow() -> None:
        release.wait(20.0)
        done.append(True)

    def fail_then_release() -> None:
        threading.Timer(0.05, release.set).start()
        fail()

    executor = Executor(diamond(b=fail_then_release, c=slow), START, True)
    with pytest.raises(ValueError, match="broken on purpose"):
        executor.run(board())
    assert done == [True]
    executor.close()
