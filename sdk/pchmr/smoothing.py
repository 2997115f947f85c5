"""One-euro filters (Casiez et al. 2012) for points, rotations and the bones of a pose.

A low-pass of the first order whose cutoff rises with speed: cutoff = least + slope |speed|. What
stands still is smoothed most, what moves fast lags least. On a ramp it lags by (1 - a) / a of the
time between frames, a = 1 / (1 + 1 / (2 pi cutoff dt)): each filter says so of its last answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.smooth import OneEuroFilter


class Filter(Protocol):
    """Smooths one person's array from frame to frame. lag_ms: of the last answer, the mean over its
    elements by how fast they move."""

    lag_ms: float

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class OneEuro:
    """least_hz: cutoff at rest. slope: Hz more for each unit a second. speed_hz: cutoff of the
    speed itself."""

    least_hz: float
    slope: float
    speed_hz: float = 1.0


class PointFilter:
    """Of points (N, D), each with a cutoff of its own. Begins anew where a number is not finite."""

    kind = "points"

    def __init__(self, settings: OneEuro) -> None:
        self._settings = settings
        self._t_ns = 0
        self._filter: OneEuroFilter | None = None

    @property
    def lag_ms(self) -> float:
        return self._filter.lag_ms if self._filter else 0.0

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray:
        given = value.astype(np.float64)
        seconds = max((t_ns - self._t_ns) / 1e9, 1e-3)
        self._t_ns = t_ns
        if self._filter is None or not self._filter.step(seconds, given):
            how = self._settings
            self._filter = OneEuroFilter(self.kind, given, how.least_hz, how.slope, how.speed_hz)
            return value
        return self._filter.value.astype(value.dtype)


class RotationFilter(PointFilter):
    """Of rotation matrices (N, 3, 3), along the shortest turn; speeds are radians a second."""

    kind = "rotations"


class _DirectionFilter(PointFilter):
    """Of unit vectors (N, 3)."""

    kind = "directions"


class PlaceFilter:
    """Of a place (3,), metres, camera frame: its direction as seen by the camera, which the picture
    shows well, and, more, its depth, which it does not. Speeds: of (x/z, y/z), and metres a second.
    """

    def __init__(self, directions: OneEuro, depths: OneEuro) -> None:
        self._directions, self._depths = PointFilter(directions), PointFilter(depths)

    @property
    def lag_ms(self) -> float:
        return self._directions.lag_ms

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray:
        if not value[2] > 0:
            return value  # a placement that failed
        depth = self._depths(t_ns, value[2:])
        direction = self._directions(t_ns, (value[:2] / value[2])[None])[0]
        return np.concatenate([direction * depth, depth])


class BoneFilter:
    """Of joints (J, 3), metres: the directions of the bones and, more, their lengths. Their root
    stays where it is: it has no meaning in a target. Where a joint is missing all stay."""

    def __init__(self, skeleton: Skeleton, directions: OneEuro, lengths: OneEuro) -> None:
        self._children = [joint for joint in _from_the_root(skeleton) if joint != skeleton.root]
        self._parents = [skeleton.parents[joint] for joint in self._children]
        self._directions, self._lengths = _DirectionFilter(directions), PointFilter(lengths)
        self._root = skeleton.root
        self._chains = np.zeros((len(skeleton), len(self._children)))  # bones from the root
        for bone, (parent, child) in enumerate(zip(self._parents, self._children, strict=True)):
            self._chains[child] = self._chains[parent]
            self._chains[child, bone] = 1

    @property
    def lag_ms(self) -> float:
        return self._directions.lag_ms

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray:
        if not np.isfinite(value).all():
            return value
        bones = value[self._children] - value[self._parents]
        lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
        directions = self._directions(t_ns, bones / np.maximum(lengths, 1e-9))
        bones = directions * self._lengths(t_ns, lengths)
        return (value[self._root] + self._chains @ bones).astype(value.dtype)


def _from_the_root(skeleton: Skeleton) -> list[int]:
    """All joints, none before its parent."""
    joints = [skeleton.root]
    for joint in joints:
        joints += [child for child, parent in enumerate(skeleton.parents) if parent == joint]
    return joints
