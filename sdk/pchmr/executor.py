"""Runs stages in the order their needs and gives imply; the one place that knows about threads.

Temporal stages give a frame's result later. A board then waits, without its image, and goes on with
the stages that need the result once all its rows have it: `run` gives the boards that are complete,
oldest first. Delays of stages that follow one another add up, those of branches do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns

import numpy as np

from pchmr_engines.errors import PchmrError

from .profiling.recorder import Recorder
from .stages.base import Board, Stage, TemporalStage


def levels_of(stages: Sequence[Stage], given: frozenset[str]) -> list[list[Stage]]:
    """Stages grouped into levels: those of one level need nothing of each other.

    given: names that are on the board before the first stage.

    Raises:
        PchmrError: a need that no stage gives, or a name that is given twice.
    """
    seen = set(given)
    for stage in stages:
        if twice := stage.gives & seen:
            raise PchmrError(f"stage {stage.name!r} gives {sorted(twice)}, which is there already")
        seen |= stage.gives
    levels: list[list[Stage]] = []
    known, waiting = set(given), list(stages)
    while waiting:
        ready = [stage for stage in waiting if stage.needs <= known]
        if not ready:
            missing = {stage.name: sorted(stage.needs - known) for stage in waiting}
            raise PchmrError(f"stages wait for what no stage gives: {missing}")
        levels.append(ready)
        known |= frozenset().union(*(stage.gives for stage in ready))
        waiting = [stage for stage in waiting if stage not in ready]
    return levels


@dataclass
class _Owed:
    """A board on its way. missing: rows that each temporal stage has not finished; left: phases."""

    board: Board
    missing: dict[str, int]
    left: int

    @property
    def complete(self) -> bool:
        return not self.left and not any(self.missing.values())


@dataclass
class _Phase:
    """Levels of stages that wait for the same temporal stages, and the boards they have to run."""

    waits: frozenset[str]
    levels: list[list[Stage]] = field(default_factory=list)
    temporal: list[TemporalStage] = field(default_factory=list)
    boards: deque[_Owed] = field(default_factory=deque)


def phases_of(levels: Sequence[Sequence[Stage]]) -> list[_Phase]:
    """The levels split by what they wait for, in an order in which one pass suffices."""
    waits: dict[str, frozenset[str]] = {}  # of a name on the board
    phases: dict[frozenset[str], _Phase] = {}
    for level in levels:
        grouped: dict[frozenset[str], list[Stage]] = {}
        for stage in level:
            own = frozenset().union(*(waits.get(name, frozenset()) for name in stage.needs))
            later = own | {stage.name} if isinstance(stage, TemporalStage) else own
            waits.update(dict.fromkeys(stage.gives, later))
            grouped.setdefault(own, []).append(stage)
        for own, stages in grouped.items():
            phase = phases.setdefault(own, _Phase(own))
            phase.levels.append(stages)
            phase.temporal += [stage for stage in stages if isinstance(stage, TemporalStage)]
    return sorted(phases.values(), key=lambda phase: len(phase.waits))


class Executor:
    """Runs the levels one after another; stages of one level side by side where `parallel`.

    Latency of each stage is kept in `latency_ms` until the next run; a recorder gets its parts.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        given: frozenset[str],
        parallel: bool,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self.levels = levels_of(stages, given)
        self._phases = phases_of(self.levels)
        self._temporal = [stage for phase in self._phases for stage in phase.temporal]
        width = max((len(level) for level in self.levels), default=1)
        self._pool = ThreadPoolExecutor(width - 1) if parallel and width > 1 else None
        self._owed: deque[_Owed] = deque()
        self._by_frame: dict[int, _Owed] = {}
        self.latency_ms: dict[str, float] = {}

    @property
    def delays(self) -> bool:
        """Whether a board may come later than it was given."""
        return bool(self._temporal)

    @property
    def owed(self) -> int:
        """Boards that wait for later frames."""
        return len(self._owed)

    @property
    def look_ahead(self) -> int:
        """Frames by which the last result is late: the longest way through the temporal stages."""
        own = {stage.name: stage.look_ahead for stage in self._temporal}
        late: dict[str, int] = {}  # of a name on the board
        for stage in (stage for level in self.levels for stage in level if own):
            begin = max((late.get(name, 0) for name in stage.needs), default=0)
            late.update(dict.fromkeys(stage.gives, begin + own.get(stage.name, 0)))
        return max(late.values(), default=0)

    def run(self, board: Board) -> list[Board]:
        """Fill the board as far as it goes; the boards that are complete now, oldest first.

        Raises: what a stage raises, once every stage beside it is done; what was owed is lost then.
        """
        self.latency_ms = {}
        if self._temporal:
            with self._forgetting():
                return self._run_delayed(board)
        if board.rows:
            self._run_levels(self.levels, board)
        return [board]

    def _run_delayed(self, board: Board) -> list[Board]:
        missing = dict.fromkeys((stage.name for stage in self._temporal), len(board.rows))
        owed = _Owed(board, missing, len(self._phases))
        self._owed.append(owed)
        if board.rows:
            self._by_frame[board.rows[0].frame] = owed
        for phase in self._phases:
            phase.boards.append(owed)
        for phase in self._phases:
            self._run_ready(phase)
        if not owed.complete:
            board.park()
        return self._complete()

    def flush(self) -> list[Board]:
        """The boards that still wait, as if everybody in them had gone. Raises: as `run`."""
        self.latency_ms = {}
        with self._forgetting():
            for phase in self._phases:
                self._run_ready(phase)
                for stage in phase.temporal:
                    stage.finish()
                    self._deliver(stage)
            return self._complete()

    def _run_ready(self, phase: _Phase) -> None:
        """Run a phase on its boards in order, up to the first that has to wait."""
        while phase.boards and not any(phase.boards[0].missing[name] for name in phase.waits):
            owed = phase.boards.popleft()
            owed.left -= 1
            levels: list[list[Stage]] = phase.levels
            if not owed.board.rows:  # only to say who is not there any more
                levels = [[stage] for stage in phase.temporal]
            self._run_levels(levels, owed.board)
            for stage in phase.temporal:
                self._deliver(stage)

    def _deliver(self, stage: TemporalStage) -> None:
        """What a temporal stage finished, onto the boards of its frames."""
        for row, values in stage.finished():
            owed = self._by_frame[row.frame]
            owed.missing[stage.name] -= 1
            board = owed.board
            for name, value in values.items():
                if name not in board:
                    board[name] = np.empty((len(board.rows), *value.shape), value.dtype)
                board[name][board.rows.index(row)] = value

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Starts anew after an error: nobody knows how far a board or a stage has come."""
        try:
            yield
        except BaseException:
            self._owed.clear()
            self._by_frame.clear()
            for phase in self._phases:
                phase.boards.clear()
            for stage in self._temporal:
                stage.forget()
            raise

    def _complete(self) -> list[Board]:
        boards = []
        while self._owed and self._owed[0].complete:
            board = self._owed.popleft().board
            boards.append(board)
            if board.rows:
                del self._by_frame[board.rows[0].frame]
        return boards

    def _run_levels(self, levels: Sequence[Sequence[Stage]], board: Board) -> None:
        if self._pool is None:
            for level in levels:
                for stage in level:
                    self._run_stage(stage, board)
            return
        for first, *others in levels:
            futures = [self._pool.submit(self._run_stage, stage, board) for stage in others]
            try:
                self._run_stage(first, board)
            finally:
                wait(futures)  # the board is the caller's again, after an error too
            for future in futures:
                future.result()

    def _run_stage(self, stage: Stage, board: Board) -> None:
        begin = perf_counter_ns()
        if self._recorder is None:
            stage.prepare(board)
            stage.enqueue()
            stage.collect(board)
        else:
            self._recorder.run_stage(stage, board)
        spent = (perf_counter_ns() - begin) / 1e6
        self.latency_ms[stage.name] = self.latency_ms.get(stage.name, 0.0) + spent

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()
