"""Stages whose answers are smoothed over time, for each person by filters of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.smooth import Filter

from ..compiled import Compiled, NotCompiled, compile_stage
from ..smoothing import BoneFilter, OneEuro, PlaceFilter, PointFilter, RotationFilter
from .base import Board, Row, Stage, TemporalStage

POSE = OneEuro(least_hz=2.0, slope=3.0, speed_hz=4.0)
"""Of joint rotations and bone directions: Hz, and Hz for each radian a second. The speed is
believed soon: legs that swing lag by a third less than at 1 Hz."""
LENGTHS = OneEuro(least_hz=0.5, slope=0.0)
"""Of bones: they do not change."""
SHAPE = OneEuro(least_hz=0.5, slope=0.0)
"""Of betas: nor do they."""
DIRECTION = OneEuro(least_hz=2.0, slope=120.0)
"""Of where the translation is seen: Hz, and Hz for each radian a second."""
DEPTH = OneEuro(least_hz=1.0, slope=4.0)
"""Of the translation's depth: Hz, and Hz for each metre a second."""
TRUST = OneEuro(least_hz=3.0, slope=0.0)
"""Of the confidence of joints."""

Make = Callable[[tuple[int, ...]], Filter]
"""A person's filter, for arrays of a shape."""


class Smoothed:
    """A stage whose named answers pass through filters; a new track or epoch starts anew.

    filters: board name -> what makes a person's filter. lag_ms: by how much the answers of the last
    board lag behind, the mean over people and filters of poses.
    """

    def __init__(self, stage: Stage, filters: Mapping[str, Make]) -> None:
        self.name, self.needs, self.gives = stage.name, stage.needs, stage.gives
        self._stage, self._filters = stage, filters
        self._people: dict[tuple[int, int], dict[str, Filter]] = {}
        self._before: dict[int, dict[str, Filter]] = {}
        self._poses: list[Filter] = []

    def prepare(self, board: Board) -> None:
        self._stage.prepare(board)

    def enqueue(self) -> None:
        self._stage.enqueue()

    def collect(self, board: Board) -> None:
        self._stage.collect(board)
        for i, own in enumerate(self._filters_of(board.rows, board)):
            for name, smooth in own.items():
                smooth(board.rows[i].t_ns, board[name][i])

    def _filters_of(
        self, rows: Sequence[Row], arrays: Mapping[str, np.ndarray]
    ) -> list[dict[str, Filter]]:
        """Those of each row, by name; whoever is not among them is forgotten."""
        known, self._people = self._people, {}
        for row in rows:
            key = row.track, row.epoch
            self._people[key] = known.get(key) or self._begin(row.track, arrays)
        filters = list(self._people.values())
        self._poses = [
            smooth
            for own in filters
            for smooth in own.values()
            if isinstance(smooth, (BoneFilter, RotationFilter))
        ]
        return filters

    def _begin(self, track: int, arrays: Mapping[str, np.ndarray]) -> dict[str, Filter]:
        """A person's filters: new ones, but for those that were taken over."""
        before, own = self._before.pop(track, {}), {}
        for name, make in self._filters.items():
            known, shape = before.get(name), arrays[name].shape[1:]
            own[name] = known if known and known.shape == shape else make(shape)
        return own

    def compile(self, into: Compiled) -> None:
        compile_stage(self._stage, into)
        calls = []  # row, name, dtype, and what changes an argument
        for name, make in self._filters.items():
            array = into[name]
            steps = make(array.shape[1:]).steps
            if array.dtype not in steps:
                raise NotCompiled(f"{name}, which is {array.dtype}")
            function, addresses = steps[array.dtype]
            for row in range(into.people):
                put = into.call(function, *addresses, into.t_ns, array[row])
                calls.append((row, name, array.dtype, put))

        def follow(board: Board) -> None:
            filters = self._filters_of(board.rows, into)
            for row, name, dtype, put in calls:
                for place, address in enumerate(filters[row][name].steps[dtype][1]):
                    put(place, address)

        into.when_others_come(follow)

    def take_over(self, others: Sequence[Smoothed]) -> None:
        """Go on with the filters of other stages, by name, for whoever comes with the same id."""
        self._before = {}
        for other in others:
            for (track, _), filters in other._people.items():
                self._before.setdefault(track, {}).update(filters)

    @property
    def lag_ms(self) -> float | None:
        """By how much poses of the last board lag, the mean over people; None: it gives none."""
        poses = self._poses
        return sum(smooth.lag_ms for smooth in poses) / len(poses) if poses else None


def smoothed(stages: Sequence[Stage], skeleton: Skeleton) -> list[Stage]:
    """The stages, those smoothed that give pose, shape, place or target of a mesh.

    skeleton: of the target. A temporal network's own answers are smooth already.
    """
    filters: dict[str, Make] = {
        "rotmats": lambda shape: RotationFilter(shape, POSE),
        "betas": lambda shape: PointFilter(shape, SHAPE),
        "translation": lambda _: PlaceFilter(DIRECTION, DEPTH),
        "target": lambda _: BoneFilter(skeleton, POSE, LENGTHS),
        "confidence": lambda shape: PointFilter(shape, TRUST),
    }
    result: list[Stage] = []
    for stage in stages:
        own = {name: make for name, make in filters.items() if name in stage.gives}
        plain = not own or isinstance(stage, TemporalStage)
        result.append(stage if plain else Smoothed(stage, own))
    return result
