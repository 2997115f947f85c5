"""One-euro filters (Casiez et al. 2012) for points, rotations and the bones of a pose.

A low-pass of the first order whose cutoff rises with speed: cutoff = least + slope |speed|. What
stands still is smoothed most, what moves fast lags least. On a ramp it lags by (1 - a) / a of the
time between frames, a = 1 / (1 + 1 / (2 pi cutoff dt)): each filter says so of its last answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Protocol

import numpy as np

from pchmr_kernels.skeletons import Skeleton

from .geometry import rotmat_to_rotvec, rotvec_to_rotmat


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

    def __init__(self, settings: OneEuro) -> None:
        self._settings = settings
        self._t_ns: int | None = None
        self._value = self._velocity = np.empty(0)
        self.lag_ms = 0.0

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray:
        given = np.array(value, np.float64)
        if self._t_ns is None or not np.isfinite(step := self._step(given)).all():
            self._t_ns, self._value = t_ns, given
            self._velocity = np.zeros_like(self._step(given))
            return value
        dt = max((t_ns - self._t_ns) / 1e9, 1e-3)
        self._velocity += _share(self._settings.speed_hz, dt) * (step / dt - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        share = _share(self._settings.least_hz + self._settings.slope * speed, dt)
        self._t_ns, self._value = t_ns, self._moved(share * step)
        lag = 1e3 * dt * (1 - share) / share
        self.lag_ms = float((lag * speed).sum() / max(speed.sum(), 1e-9))
        return self._value.astype(value.dtype)

    def _step(self, value: np.ndarray) -> np.ndarray:
        """(N, D) from the last answer to a value."""
        return value - self._value

    def _moved(self, step: np.ndarray) -> np.ndarray:
        return self._value + step


class RotationFilter(PointFilter):
    """Of rotation matrices (N, 3, 3), along the shortest turn; speeds are radians a second."""

    def _step(self, value: np.ndarray) -> np.ndarray:
        return rotmat_to_rotvec(self._value.swapaxes(-1, -2) @ value)

    def _moved(self, step: np.ndarray) -> np.ndarray:
        return self._value @ rotvec_to_rotmat(step)


class _DirectionFilter(PointFilter):
    """Of unit vectors (N, 3)."""

    def _moved(self, step: np.ndarray) -> np.ndarray:
        moved = self._value + step
        return moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-9)


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
    stays where it is: it has no meaning in a target."""

    def __init__(self, skeleton: Skeleton, directions: OneEuro, lengths: OneEuro) -> None:
        self._children = [joint for joint in _from_the_root(skeleton) if joint != skeleton.root]
        self._parents = [skeleton.parents[joint] for joint in self._children]
        self._directions, self._lengths = _DirectionFilter(directions), PointFilter(lengths)

    @property
    def lag_ms(self) -> float:
        return self._directions.lag_ms

    def __call__(self, t_ns: int, value: np.ndarray) -> np.ndarray:
        bones = value[self._children] - value[self._parents]
        lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
        directions = self._directions(t_ns, bones / np.maximum(lengths, 1e-9))
        bones = directions * self._lengths(t_ns, lengths)
        joints = value.copy()
        for parent, child, bone in zip(self._parents, self._children, bones, strict=True):
            joints[child] = joints[parent] + bone
        return joints


def _from_the_root(skeleton: Skeleton) -> list[int]:
    """All joints, none before its parent."""
    joints = [skeleton.root]
    for joint in joints:
        joints += [child for child, parent in enumerate(skeleton.parents) if parent == joint]
    return joints


def _share(cutoff_hz: np.ndarray | float, dt: float) -> np.ndarray | float:
    """How much of the way to a new value is gone in `dt` seconds."""
    return 1 / (1 + 1 / (2 * pi * cutoff_hz * dt))
