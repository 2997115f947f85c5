"""CPN's crops and heat maps (Chen et al. 2018), the same for its PyTorch and TensorFlow forms.

Source: rule sheet of GengDavid/pytorch-cpn 48696a9 (mscocoMulti.py, test.py); no code was taken.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from ..crops import Box
from .crops import Crop, Floats, Size, center_and_size, check_image, cut, rectangle_affine
from .heatmaps import argmax_2d

MARGIN = (1.2, 1.3)
"""The crop's width and height over the box's."""

STRIDE = 4
_MEAN_COLOUR = (103, 116, 123)  # BGR, as rounded to whole levels
_BORDER, _KERNEL = 10, 21  # cells


def rectangle(box: Box, image_size: Size, size: Size) -> tuple[int, int, int, int]:
    """The whole pixels x0, y0, x1, y1 (last two outside) that become the crop of `size`.

    Of width and height the relatively larger one, with its margin, fixes the scale. The crop stays
    within the image padded by its longer side. In float32, as whole edges depend on it.

    Raises: InputError when the box has no area, or its middle is not in the padded image.
    """
    corners = np.asarray(box, np.float32)
    pad, (height, width) = max(image_size), image_size
    (x, y), extent = center_and_size((corners[0], corners[1], corners[2], corners[3]))
    middle = np.array([x, y], np.float32) + np.float32(pad)
    extents = np.array(extent, np.float32) * np.array(MARGIN, np.float32)
    sides = np.array(size[::-1], np.float32)
    axis = int(extents[1] / sides[1] > extents[0] / sides[0])
    inside = np.minimum(middle, np.array([width, height], np.float32) + 2 * pad - middle)
    limit = (inside / sides * sides[axis] * 2 - 1).min()
    half = min(extents[axis], limit) / 2 / sides[axis] * sides
    x0, y0 = (int(edge) - pad for edge in middle - half)
    x1, y1 = (int(edge) - pad for edge in middle + half)
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"box {tuple(box)} lies too far outside an image of {image_size} (H, W)")
    return x0, y0, x1, y1


def crop_cpn(image: NDArray[np.uint8], box: Box, size: Size = (384, 288)) -> Crop:
    """The crop of a person's box in a (H, W, 3) uint8 BGR image; the mean colour beyond its edge.

    Resized without smoothing; the scales along x and y may differ a little.
    """
    check_image(image)
    part = rectangle(box, image.shape[:2], size)
    pixels = cut(image, part, _MEAN_COLOUR)
    resized = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return Crop(np.ascontiguousarray(resized[..., ::-1]), rectangle_affine(part, size))


def peaks(heatmaps: Floats) -> NDArray[np.float64]:
    """Cells (J, 2) of maps (J, H, W): the smoothed peak, 0.25 cell towards the second highest.

    Each map is divided by its own maximum, also by a negative one, which turns it upside down.
    """
    height, width = heatmaps.shape[-2:]
    cells = np.stack([_peak(m.astype(np.float64)) for m in heatmaps])
    return np.clip(cells, 0, (width - 1, height - 1))


def _peak(heatmap: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(heatmap / (heatmap.max() or 1.0), _BORDER)
    kernel = (_KERNEL, _KERNEL)
    smooth: NDArray[np.float64] = np.asarray(
        cv2.GaussianBlur(padded, kernel, 0, borderType=cv2.BORDER_REFLECT_101), np.float64
    )
    first, _ = argmax_2d(smooth)
    smooth[int(first[1]), int(first[0])] = 0
    step = argmax_2d(smooth)[0] - first
    length = np.hypot(*step)
    return first - _BORDER + (0.25 * step / length if length else 0.0)


def decode_cpn(heatmaps: Floats, crop: Crop) -> NDArray[np.float64]:
    """keypoints_2d (J, 3: x px, y px, score), full frame, of a crop's maps (J, H/4, W/4).

    Score: the map itself at the rounded cell, over 255, plus a half. A pose's score is their mean.
    """
    cells = peaks(heatmaps)
    x, y = np.rint(cells).astype(int).T
    scores = heatmaps[np.arange(len(cells)), y, x] / 255 + 0.5
    points = crop.to_image(cells * STRIDE + STRIDE / 2)
    return np.concatenate([points, scores[:, None]], -1)
