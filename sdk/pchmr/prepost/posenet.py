"""Crops of 3DMPPE's PoseNet (Moon et al. 2019), and its cells in pixels and metres.

Source: mks0601/3DMPPE_POSENET_RELEASE dd025c5, common/utils/pose_utils.py, data, demo, main.
"""

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from ..crops import Box
from .boxes import box_from_center
from .cameras import back_project
from .crops import Crop, Floats, Size, center_and_size, check_image, upright_affine, warp

MARGIN = 1.25
CELLS = 64
DEPTH_M = 2.0
"""Metres that the cells along z span, the root in the middle."""


def square_box(box: Box, image_size: Size) -> Box:
    """The crop's square (x0, y0, x1, y1) for a person's box in an image of (height, width).

    A box that hangs out on the left or top is moved in, not cut; right and below it ends at the
    last pixel, and any box loses a pixel: the rule counts pixels, first and last included.

    Raises: InputError when nothing of the box is left.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    x0, y0 = max(0.0, box[0]), max(0.0, box[1])
    x1 = min(image_size[1] - 1.0, x0 + max(0.0, width - 1))
    y1 = min(image_size[0] - 1.0, y0 + max(0.0, height - 1))
    if width <= 0 or height <= 0 or x1 <= x0 or y1 <= y0:
        raise InputError(f"box {tuple(box)} has no area in an image of {image_size} (H, W)")
    center, size = center_and_size((x0, y0, x1, y1))
    side = MARGIN * max(size)
    return box_from_center(center, side, side)


def crop_posenet(image: NDArray[np.uint8], box: Box, size: Size = (256, 256)) -> Crop:
    """The crop of a person's box in a (H, W, 3) uint8 BGR image; black beyond its edge."""
    check_image(image)
    center, (side, _) = center_and_size(square_box(box, image.shape[:2]))
    return warp(image, upright_affine(center, side, size), size)


def cells_to_pixels(cells: Floats, crop: Crop, size: Size = (256, 256)) -> NDArray[np.float64]:
    """Full-frame pixels (..., 2) of cells (..., 2 or 3) in the crop's `size`."""
    return crop.to_image(cells[..., :2] * (np.array(size[::-1]) / CELLS))


def cells_to_depth(cells: Floats) -> NDArray[np.float64]:
    """Depth (...), metres from the root, of cells (..., 3)."""
    return (cells[..., 2].astype(np.float64) / CELLS * 2 - 1) * (DEPTH_M / 2)


def cells_to_camera(
    cells: Floats,
    crop: Crop,
    root_depth: float,
    focal_px: Floats | float,
    center: Floats,
    size: Size = (256, 256),
) -> NDArray[np.float64]:
    """joints_3d (..., 3), metres, camera frame, of cells (..., 3) and the root's depth in metres.

    PoseNet does not know that depth; it comes from RootNet, or from a mesh's root.
    """
    depth = cells_to_depth(cells) + root_depth
    return back_project(cells_to_pixels(cells, crop, size), depth, focal_px, center)
