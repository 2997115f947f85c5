"""Flip tests: a network sees the mirrored input as well, and the two answers are averaged.

Left and right are swapped along a joint order; `mirror_order` makes it from a skeleton's pairs.
"""

import numpy as np
from numpy.typing import NDArray

from pchmr_kernels.skeletons import Skeleton

from .crops import Floats

Order = NDArray[np.intp]


def mirror_order(skeleton: Skeleton) -> Order:
    """(J,) such that `joints[order]` has left and right swapped."""
    order = np.arange(len(skeleton))
    for left, right in skeleton.flip:
        order[left], order[right] = right, left
    return order


def unmirror_heatmaps(mirrored: Floats, order: Order, shift: bool = False) -> Floats:
    """Heat maps (..., J, H, W) of a mirrored image in the frame of the image itself.

    shift: HRNet's SHIFT_HEATMAP, on in its released COCO configurations: columns 1.. take columns
    0..W-2, since a stride of 4 puts cells off the middle by less than the mirror assumes; column 0
    stays.
    """
    maps = mirrored[..., order, :, ::-1].copy()
    if shift:
        maps[..., 1:] = maps[..., :-1].copy()
    return maps


def average_heatmaps(
    heatmaps: Floats, mirrored: Floats, order: Order, shift: bool = False
) -> Floats:
    """Mean of heat maps (..., J, H, W) and those of the mirrored image; HRNet's with `shift`."""
    return (heatmaps + unmirror_heatmaps(mirrored, order, shift)) / 2


def mirror_points(points: Floats, order: Order | None = None, width: float = 0.0) -> Floats:
    """Points (..., J, 2 or more) with x about the middle of `width`, left and right swapped.

    width: 0 where x = 0 is the middle (screen coordinates, metres); W - 1 for cells or pixels
    0..W - 1. order: None for a single point, such as a trajectory.
    """
    mirrored = points.copy() if order is None else points[..., order, :]
    mirrored[..., 0] = width - mirrored[..., 0]
    return mirrored


def average_points(
    points: Floats, mirrored: Floats, order: Order | None = None, width: float = 0.0
) -> Floats:
    """Mean of points (..., J, D) and those found for the mirrored input; see `mirror_points`."""
    return (points + mirror_points(mirrored, order, width)) / 2
