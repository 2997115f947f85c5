"""Runs stages in the order their needs and gives imply; the one place that knows about threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from time import perf_counter_ns

from pchmr_engines.errors import PchmrError

from .stages.base import Board, Stage


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


class Executor:
    """Runs the levels one after another; stages of one level side by side where `parallel`.

    Latency of each stage is kept in `latency_ms` until the next run.
    """

    def __init__(self, stages: Sequence[Stage], given: frozenset[str], parallel: bool) -> None:
        self.levels = levels_of(stages, given)
        width = max((len(level) for level in self.levels), default=1)
        self._pool = ThreadPoolExecutor(width - 1) if parallel and width > 1 else None
        self.latency_ms: dict[str, float] = {}

    def run(self, board: Board) -> None:
        """Fill the board. Raises: what a stage raises, once every stage beside it is done."""
        self.latency_ms = {}
        for first, *others in self.levels:
            if self._pool is None:
                for stage in (first, *others):
                    self._run_stage(stage, board)
                continue
            futures = [self._pool.submit(self._run_stage, stage, board) for stage in others]
            try:
                self._run_stage(first, board)
            finally:
                wait(futures)  # the board is the caller's again, after an error too
            for future in futures:
                future.result()

    def _run_stage(self, stage: Stage, board: Board) -> None:
        begin = perf_counter_ns()
        stage.prepare(board)
        stage.enqueue()
        stage.collect(board)
        self.latency_ms[stage.name] = (perf_counter_ns() - begin) / 1e6

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()
