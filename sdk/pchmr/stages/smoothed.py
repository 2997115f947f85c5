"""Stages whose answers are smoothed over time, for each person by filters of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.smooth import Filter

from ..smoothing import BoneFilter, OneEuro, PlaceFilter, PointFilter, RotationFilter
from .base import Board, Stage, TemporalStage

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

    def prepare(self, board: Board) -> None:
        self._stage.prepare(board)

    def enqueue(self) -> None:
        self._stage.enqueue()

    def collect(self, board: Board) -> None:
        self._stage.collect(board)
        known, self._people = self._people, {}
        for i, row in enumerate(board.rows):
            key = row.track, row.epoch
            self._people[key] = own = known.get(key) or self._begin(row.track, board)
            for name, smooth in own.items():
                smooth(row.t_ns, board[name][i])

    def _begin(self, track: int, board: Board) -> dict[str, Filter]:
        """A person's filters: new ones, but for those that were taken over."""
        before = self._before.pop(track, {})
        return {
            name: before.get(name) or make(board[name].shape[1:])
            for name, make in self._filters.items()
        }

    def take_over(self, others: Sequence[Smoothed]) -> None:
        """Go on with the filters of other stages, by name, for whoever comes with the same id."""
        self._before = {}
        for other in others:
            for (track, _), filters in other._people.items():
                self._before.setdefault(track, {}).update(filters)

    @property
    def lag_ms(self) -> float | None:
        """By how much poses of the last board lag, the mean over people; None: it gives none."""
        poses = [
            smooth.lag_ms
            for own in self._people.values()
            for smooth in own.values()
            if isinstance(smooth, (BoneFilter, RotationFilter))
        ]
        return sum(poses) / len(poses) if poses else None


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
