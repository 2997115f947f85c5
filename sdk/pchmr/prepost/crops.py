"""A person's crop as a network takes it, and the upright affines it is cut with."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from ..crops import Box, transform_points

Floats = NDArray[np.floating[Any]]
Size = tuple[int, int]
"""(height, width) in pixels, as networks state it."""


@dataclass(frozen=True)
class Crop:
    """pixels: (H, W, 3) RGB, 0..255; uint8, or float64 where the rule does not round.

    affine: (2, 3), image pixels to the crop pixels that the network's coordinates mean.
    """

    pixels: NDArray[Any]
    affine: NDArray[np.float64]

    def to_image(self, points: Floats) -> NDArray[np.float64]:
        """Points (..., 2) of the crop, pixels, in the full frame."""
        return transform_points(cv2.invertAffineTransform(self.affine).astype(np.float64), points)


def check_image(image: NDArray[Any]) -> None:
    """Raises: InputError when the image is not (H, W, 3) uint8, or empty."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8 BGR: "
            "convert grey, alpha or 16-bit first"
        )


def center_and_size(box: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """The middle (x, y) and the size (width, height) of an upright box (x0, y0, x1, y1).

    Raises: InputError when the box has no area.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    if not (width > 0 and height > 0):
        raise InputError(f"box {tuple(box)} has no area; expected x0 < x1 and y0 < y1, pixels")
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (width, height)


def upright_affine(
    center: tuple[float, float], width: float, size: tuple[float, float]
) -> NDArray[np.float64]:
    """(2, 3) from image pixels to a crop of `size` (height, width) whose width shows `width`
    pixels around `center`; the scale is the same along both axes, nothing is turned."""
    scale = size[1] / width
    return np.array(
        [
            [scale, 0.0, size[1] / 2 - scale * center[0]],
            [0.0, scale, size[0] / 2 - scale * center[1]],
        ]
    )


def warp(image: NDArray[Any], affine: NDArray[np.float64], size: Size) -> Crop:
    """A BGR image through an affine, bilinearly; black beyond its edge.

    OpenCV before 5 samples on a grid of 1/32 pixel, later ones exactly: 3 grey levels at most.
    """
    pixels = cv2.warpAffine(image, affine, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return Crop(np.ascontiguousarray(pixels[..., ::-1]), affine)


def rectangle_affine(rectangle: tuple[int, int, int, int], size: Size) -> NDArray[np.float64]:
    """(2, 3) from image pixels to a crop of `size` that was resized from whole pixels.

    rectangle: x0, y0, x1, y1, the last two outside; corners go to corners.
    """
    x0, y0, x1, y1 = rectangle
    x, y = size[1] / (x1 - x0), size[0] / (y1 - y0)
    return np.array([[x, 0.0, -x0 * x], [0.0, y, -y0 * y]])


def cut(
    image: NDArray[np.uint8],
    rectangle: tuple[int, int, int, int],
    fill: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """The whole pixels of a rectangle (x0, y0, x1, y1; last two outside); `fill` beyond the edge,
    where there is none the pixels of the image itself."""
    x0, y0, x1, y1 = rectangle
    height, width = image.shape[:2]
    left, right = np.clip((x0, x1), 0, width)
    top, bottom = np.clip((y0, y1), 0, height)
    if left == right or top == bottom:
        return np.full((y1 - y0, x1 - x0, 3), fill, np.uint8)
    inside = image[top:bottom, left:right]
    edges = int(top) - y0, y1 - int(bottom), int(left) - x0, x1 - int(right)
    if not any(edges):
        return inside
    return np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT, value=fill), np.uint8)
