"""HRNet's crops and heat maps (Sun et al. 2019).

Source: leoxiaobin/deep-high-resolution-net.pytorch 6f69e46, lib/dataset, lib/utils, lib/core.
"""

import numpy as np
from numpy.typing import NDArray

from ..crops import Box
from .boxes import box_to_aspect
from .crops import Crop, Floats, Size, center_and_size, check_image, upright_affine, warp
from .heatmaps import decode_quarter_offset

MARGIN = 1.25
STRIDE = 4


def center_and_scale(box: Box, size: Size) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centre (x, y), pixels, and scale (width, height) / 200 of a box, not clipped, grown to the
    network's aspect and by a quarter."""
    center, (width, height) = center_and_size(box_to_aspect(box, size[1] / size[0], MARGIN))
    return center, (width / 200, height / 200)


def affine(box: Box, size: Size) -> NDArray[np.float64]:
    """(2, 3) from image pixels to the crop of `size`, or to cells for the size of the heat map."""
    center, scale = center_and_scale(box, size)
    return upright_affine(center, 200 * scale[0], size)


def crop_hrnet(image: NDArray[np.uint8], box: Box, size: Size = (256, 192)) -> Crop:
    """The crop of a person's box in a (H, W, 3) uint8 BGR image; black beyond its edge."""
    check_image(image)
    return warp(image, affine(box, size), size)


def decode_hrnet(heatmaps: Floats, crop: Crop) -> NDArray[np.float64]:
    """keypoints_2d (J, 3: x px, y px, score), full frame, of a crop's maps (J, H/4, W/4).

    A joint whose map is nowhere positive lies at the crop's corner with that score.
    """
    cells, scores = decode_quarter_offset(heatmaps)
    return np.concatenate([crop.to_image(cells * STRIDE), scores[..., None]], -1)
