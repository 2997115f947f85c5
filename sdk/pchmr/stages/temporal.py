"""Temporal networks over people's arrays: frame by frame with a state, or in windows.

When a row's result comes is said by `base.TemporalStage`. The settings come from the manifest:
look_ahead (steps), rate_hz (steps a second; None: every frame is a step) and state, {graph input:
graph output that it is fed from next}; or window (frames) and keep, the part of it that is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from pchmr_engines.engine import Engine

from ..resampling import StepStream, Values
from .base import BatchedEngine, Board, Row


@dataclass
class _Person:
    """One person's steps, and what the network remembers of them."""

    stream: StepStream
    memory: Any


class _Steps(ABC):
    """A `TemporalStage` that runs steps of several people at once, each at their own."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        max_people: int,
        threads: int,
    ) -> None:
        """
        settings: see the file's head. inputs: {graph input: board name} without state, outputs
        likewise; a board's row may be shaped otherwise, as long as it holds as many numbers.
        """
        self.name, self._inputs, self._outputs = name, inputs, outputs
        self.needs, self.gives = frozenset(inputs.values()), frozenset(outputs.values())
        self._late, self._rate_hz = self._read(settings, engine), settings.get("rate_hz")
        self._engine, self._most = BatchedEngine(engine, max_people, threads), max_people
        self._people: dict[tuple[int, int], _Person] = {}
        self._interval_s = 0.0
        self._last_ns: int | None = None

    @property
    def look_ahead(self) -> int:
        """Frames; at a rate of its own, as many as come in that time, by the last two frames."""
        if self._rate_hz is None or self._interval_s <= 0:
            return self._late
        return ceil(self._late / self._rate_hz / self._interval_s - 0.01)

    def prepare(self, board: Board) -> None:
        """Note the board's rows; whoever is not among them has gone."""
        here = set()
        for i, row in enumerate(board.rows):
            key = row.track, row.epoch
            here.add(key)
            if key not in self._people:
                stream = StepStream(self._late, self._rate_hz)
                self._people[key] = _Person(stream, self._nothing_seen())
            values = {
                name: np.array(board[own][i], np.float32) for name, own in self._inputs.items()
            }
            self._people[key].stream.add(row, values)
        if self._last_ns is not None:
            self._interval_s = (board.t_ns - self._last_ns) / 1e9
        self._last_ns = board.t_ns
        for key, person in self._people.items():
            if key not in here:  # where time begins anew nothing comes after their last frame
                person.stream.end(board.t_ns if self._interval_s >= 0 else None)

    def enqueue(self) -> None:
        """Every step that is due, of several people at once."""
        people = tuple(self._people.values())
        while due := [(x, v) for x in people if (v := x.stream.next_input()) is not None]:
            for begin in range(0, len(due), self._most):
                self._step(due[begin : begin + self._most])

    def collect(self, board: Board) -> None:  # noqa: B027
        """Nothing: see `finished`."""

    def finished(self) -> Iterator[tuple[Row, Values]]:
        for key, person in tuple(self._people.items()):
            for row, values in person.stream.finished():
                yield row, {own: values[name] for name, own in self._outputs.items()}
            if person.stream.over:
                del self._people[key]

    def finish(self) -> None:
        for person in self._people.values():
            person.stream.end()
        self.enqueue()

    def forget(self) -> None:
        self._people.clear()

    @abstractmethod
    def _read(self, settings: Mapping[str, Any], engine: Engine) -> int:
        """Take what the stage needs of its settings; the steps a result waits for."""

    @abstractmethod
    def _nothing_seen(self) -> Any:
        """The memory of somebody new."""

    @abstractmethod
    def _step(self, due: Sequence[tuple[_Person, Values]]) -> None:
        """Take a step with each person's input, and put its result into their stream."""


class StreamingStage(_Steps):
    """A network whose state goes from each step of a person to their next, zeros to the first."""

    def _read(self, settings: Mapping[str, Any], engine: Engine) -> int:
        self._fed_from: Mapping[str, str] = settings["state"]
        self._states = [engine.inputs[name] for name in self._fed_from]
        return int(settings.get("look_ahead", 0))

    def _nothing_seen(self) -> dict[str, np.ndarray]:
        return {spec.name: np.zeros(spec.sized(1)[1:], spec.dtype) for spec in self._states}

    def _step(self, due: Sequence[tuple[_Person, Values]]) -> None:
        context = self._engine.context(len(due))
        buffers = context.buffers
        for i, (person, values) in enumerate(due):
            _fill(buffers, i, {**values, **person.memory})
        context.enqueue()
        for i, (person, _) in enumerate(due):
            for name, output in self._fed_from.items():
                person.memory[name][...] = buffers[output][i]
            person.stream.put({name: buffers[name][i].copy() for name in self._outputs})


@dataclass
class _Window:
    """seen: the last frames. steps: how many came. results: of frames that were run already."""

    seen: deque[Values]
    steps: int = 0
    results: deque[Values] = field(default_factory=deque)


class WindowStage(_Steps):
    """A network over windows of frames, of which those are kept that see enough to either side.

    settings: window; keep = [first, end], the frames of a window whose results are taken: the
    network gives these alone, or all. Windows follow each other by what they keep, so that every
    frame is in the kept part of exactly one and the network runs once in end - first frames. All
    results are as late as that of the first frame kept. Before the first frame lies the first.
    """

    def _read(self, settings: Mapping[str, Any], engine: Engine) -> int:
        self._window, (self._first, self._end) = int(settings["window"]), settings["keep"]
        return self._window - 1 - self._first

    def _nothing_seen(self) -> _Window:
        return _Window(deque(maxlen=self._window))

    def _step(self, due: Sequence[tuple[_Person, Values]]) -> None:
        full: list[_Window] = []
        for person, values in due:
            memory: _Window = person.memory
            memory.seen.extend([values] * (1 if memory.steps else self._first + 1))
            memory.steps += 1
            if len(memory.seen) == self._window and not memory.results:
                full.append(memory)
        if full:
            self._run(full)
        for person, _ in due:
            results = person.memory.results
            person.stream.put(results.popleft() if results else {})

    def _run(self, full: Sequence[_Window]) -> None:
        context = self._engine.context(len(full))
        for i, memory in enumerate(full):
            names = memory.seen[0]
            _fill(context.buffers, i, {n: np.stack([x[n] for x in memory.seen]) for n in names})
        context.enqueue()
        for i, memory in enumerate(full):
            rows = {name: context.buffers[name][i] for name in self._outputs}
            kept = {name: self._kept(value).copy() for name, value in rows.items()}
            for frame in range(self._end - self._first):
                memory.results.append({name: value[frame] for name, value in kept.items()})

    def _kept(self, result: np.ndarray) -> np.ndarray:
        return result[self._first : self._end] if len(result) == self._window else result


def _fill(buffers: Mapping[str, np.ndarray], row: int, values: Values) -> None:
    for name, value in values.items():
        buffers[name][row] = value.reshape(buffers[name].shape[1:])


def temporal_stage(
    name: str,
    engine: Engine,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    max_people: int,
    threads: int,
) -> StreamingStage | WindowStage:
    """The stage of a network whose settings hold "state" or "window"."""
    kind = WindowStage if "window" in settings else StreamingStage
    return kind(name, engine, settings, inputs, outputs, max_people, threads)
