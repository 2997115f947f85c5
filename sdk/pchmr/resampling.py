"""One person's frames as the even steps of a temporal network, and its results back on the frames.

A frame's place is counted in steps. Without a rate every frame is a step. With one, steps follow
each other at that rate from the first frame on; inputs are interpolated to them, results from them.
After the last frame it goes on for ever: the edge padding of a clip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor, inf

import numpy as np

from .stages.base import Row

Values = Mapping[str, np.ndarray]

ON_STEP = 0.02
"""Steps by which a frame may miss one and still be on it: times of files are rounded."""


@dataclass(frozen=True)
class _Frame:
    row: Row
    place: float
    values: Values


class StepStream:
    """The steps of one person. look_ahead: the result of step n comes with the input of step
    n + look_ahead. rate_hz: steps a second; None: every frame is one."""

    def __init__(self, look_ahead: int, rate_hz: float | None) -> None:
        self._look_ahead, self._rate_hz = look_ahead, rate_hz
        self._frames: deque[_Frame] = deque()  # the one at or before the next step, and later ones
        self._owed: deque[_Frame] = deque()
        self._results: deque[Values] = deque()
        self._asked = 0  # steps whose inputs were taken
        self._given = -look_ahead  # the step whose result comes next
        self._now = -1.0  # the place up to which frames are known, or stand in for later ones
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether the person has gone and all was given."""
        return self._ended and not self._owed

    def add(self, row: Row, values: Values) -> None:
        """The next frame; copies of its arrays."""
        frame = _Frame(row, max(self._place(row.t_ns), self._now), values)
        self._frames.append(frame)
        self._owed.append(frame)
        self._now = frame.place

    def end(self, t_ns: int | None = None) -> None:
        """The person is not in the frame at `t_ns`, nor in any later one; None: nor is a frame."""
        self._ended = True
        self._now = inf if t_ns is None else max(self._place(t_ns), self._now)

    def _place(self, t_ns: int) -> float:
        if self._rate_hz is None or not self._frames:
            return floor(self._now) + 1.0
        last = self._frames[-1]
        place = last.place + (t_ns - last.row.t_ns) * self._rate_hz / 1e9
        return round(place) if abs(place - round(place)) < ON_STEP else place

    def next_input(self) -> Values | None:
        """The input of the next step; None until later frames are there."""
        last_known = not self._owed or ceil(self._owed[-1].place) < self._given
        if self._asked > self._now or (self._ended and last_known):
            return None
        step = self._asked
        while len(self._frames) > 1 and self._frames[1].place <= step:
            self._frames.popleft()
        self._asked += 1
        before, after = self._frames[0], self._frames[min(1, len(self._frames) - 1)]
        width = after.place - before.place
        return _between(before.values, after.values, (step - before.place) / width if width else 0)

    def put(self, result: Values) -> None:
        """The network's answer to the last input taken: the result `look_ahead` steps ago."""
        if self._given >= 0:
            self._results.append(result)
        self._given += 1

    def finished(self) -> Iterator[tuple[Row, Values]]:
        """Frames whose result is known now, each once."""
        first = max(self._given, 0) - len(self._results)  # the step of the oldest result
        while self._owed and ceil(self._owed[0].place) < self._given:
            frame = self._owed.popleft()
            step = floor(frame.place)
            while first < step:
                self._results.popleft()
                first += 1
            share = frame.place - step
            yield (
                frame.row,
                _between(self._results[0], self._results[1 if share else 0], share),
            )


def _between(before: Values, after: Values, share: float) -> Values:
    if not share:
        return before
    return {
        name: value + np.float32(share) * (after[name] - value) for name, value in before.items()
    }
