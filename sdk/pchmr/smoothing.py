"""One-euro filters (Casiez et al. 2012) for points, rotations and the bones of a pose.

A low-pass of the first order whose cutoff rises with speed: cutoff = least + slope |speed|. What
stands still is smoothed most, what moves fast lags least. On a ramp it lags by (1 - a) / a of the
time between frames, a = 1 / (1 + 1 / (2 pi cutoff dt)): each filter says so of its last answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pchmr_kernels.reference import bone_order
from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.smooth import Filter, OneEuroFilter, smooth, smooth_bones, smooth_place


class OneEuro(NamedTuple):
    """least_hz: cutoff at rest. slope: Hz more for each unit a second. speed_hz: cutoff of the
    speed itself."""

    least_hz: float
    slope: float
    speed_hz: float = 1.0


class PointFilter(Filter):
    """Of points (N, D), each with a cutoff of its own. Begins anew where a number is not finite."""

    kind = "points"

    def __init__(self, shape: tuple[int, ...], settings: OneEuro) -> None:
        points = OneEuroFilter(self.kind, shape, *settings)
        super().__init__(shape, smooth(points), points)


class RotationFilter(PointFilter):
    """Of rotation matrices (N, 3, 3), along the shortest turn; speeds are radians a second."""

    kind = "rotations"


class PlaceFilter(Filter):
    """Of a place (3,), metres, camera frame: its direction as seen by the camera, which the picture
    shows well, and, more, its depth, which it does not. Speeds: of (x/z, y/z), and metres a second.
    A placement that failed, not before the camera, stays as it is.
    """

    def __init__(self, directions: OneEuro, depths: OneEuro) -> None:
        seen = OneEuroFilter("points", (2,), *directions)
        depth = OneEuroFilter("points", (1,), *depths)
        super().__init__((3,), smooth_place(seen, depth), seen, depth)


class BoneFilter(Filter):
    """Of joints (J, 3), metres: the directions of the bones and, more, their lengths. Their root
    stays where it is: it has no meaning in a target. Where a joint is missing all stay."""

    def __init__(self, skeleton: Skeleton, directions: OneEuro, lengths: OneEuro) -> None:
        bones = np.array(skeleton.bones[bone_order(skeleton.bones, skeleton.root)], np.int32)
        room = np.empty((len(bones), 4))
        turns = OneEuroFilter("directions", (len(bones), 3), *directions)
        sizes = OneEuroFilter("points", (len(bones), 1), *lengths)
        steps = smooth_bones(turns, sizes, bones, room)
        super().__init__((len(skeleton), 3), steps, turns, sizes, bones, room)
