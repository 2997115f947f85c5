"""HMR2's crops (Goel et al. 2023, 4D-Humans): the whole image smoothed where it shrinks by much.

Source: shubham-goel/4D-Humans 6ec7965, hmr2/datasets/{vitdet_dataset,utils}.py.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..crops import Box
from .crops import Crop, Size, center_and_size, check_image, upright_affine, warp
from .resize import gaussian_blur

ASPECT = 192 / 256
"""Width / height of what the transformer sees: columns 32..223 of its 256 x 256 crop."""


def square_side(box: Box) -> float:
    """Side in pixels of a box's crop: its height, or 4/3 of its width. No margin."""
    _, (width, height) = center_and_size(box)
    return max(height, width / ASPECT)


def blur_sigma(side: float, crop_size: int = 256) -> float:
    """Sigma in pixels of the smoothing before a crop of that side; 0 up to 563.2 pixels."""
    factor = side / crop_size / 2
    return (factor - 1) / 2 if factor > 1.1 else 0.0


def crop_hmr2(image: NDArray[np.uint8], box: Box, size: Size = (256, 256)) -> Crop:
    """The crop of a person's box, not clipped, in a (H, W, 3) uint8 BGR image; black beyond."""
    check_image(image)
    center, _ = center_and_size(box)
    side = square_side(box)
    affine = upright_affine(center, side, size)
    sigma = blur_sigma(side, size[1])
    if not sigma:
        return warp(image, affine, size)
    part, x0, y0 = _around(image, center, side / 2 + 4 * sigma + 2)
    smooth = gaussian_blur(part, (sigma, sigma), cv2.BORDER_REPLICATE)
    moved = affine.copy()
    moved[:, 2] += affine[:, :2] @ (x0, y0)
    return Crop(warp(smooth, moved, size).pixels, affine)


def _around(
    image: NDArray[Any], center: tuple[float, float], reach: float
) -> tuple[NDArray[Any], int, int]:
    """What of the image lies within `reach` of the centre along x and y, and where it begins.

    Smoothing only that gives what smoothing the whole image gives.
    """
    height, width = image.shape[:2]
    x0, x1 = (int(np.clip(center[0] + r, 0, width)) for r in (-reach, reach))
    y0, y1 = (int(np.clip(center[1] + r, 0, height)) for r in (-reach, reach))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], x0, y0


def transformer_part(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns of (..., 256, 256) that the transformer sees, (..., 256, 192)."""
    height, width = inputs.shape[-2:]
    seen = round(height * ASPECT)
    first = (width - seen) // 2
    return inputs[..., first : first + seen]
