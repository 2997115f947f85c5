"""SPIN's crops (Kolotouros et al. 2019): whole pixels, stretched contrast, smoothed when shrunk.

Source: nkolot/SPIN 2476c43, demo.py and utils/imutils.py.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..crops import Box
from .boxes import box_from_keypoints
from .crops import Crop, Floats, Size, center_and_size, check_image, cut, rectangle_affine
from .crops import upright_affine as _affine
from .resize import resize_like_pillow, resize_like_skimage


@dataclass(frozen=True)
class Window:
    """A square of 200 * scale pixels around `center` (x, y)."""

    center: tuple[float, float]
    scale: float

    @property
    def side(self) -> float:
        return 200 * self.scale

    @property
    def rectangle(self) -> tuple[int, int, int, int]:
        """The whole pixels x0, y0, x1, y1 (last two outside): edges cut off towards zero.

        SPIN leaves an edge on a whole pixel to the round-off of its arithmetic, and then is often
        one pixel off. Here such an edge is that pixel.
        """
        x, y = self.center
        half = self.side / 2
        x0, y0, x1, y1 = (int(round(edge, 6)) for edge in (x - half, y - half, x + half, y + half))
        return x0, y0, x1, y1

    def affine(self, size: Size) -> NDArray[np.float64]:
        """(2, 3) from image pixels to a crop of `size`, as if edges were not cut to whole pixels:
        what SPIN's own `transform` says of the crop."""
        return _affine(self.center, self.side, size)


def window_from_box(box: Box) -> Window:
    """The square of a box's longer side, without a margin."""
    center, size = center_and_size(box)
    return Window(center, max(size) / 200)


def window_from_keypoints(keypoints: Floats, threshold: float = 0.2) -> Window:
    """1.2 times the longer side of the keypoints (J, 3) above the threshold, about their mean."""
    _, size = center_and_size(box_from_keypoints(keypoints, threshold))
    x, y = keypoints[keypoints[:, 2] > threshold, :2].mean(0)
    return Window((float(x), float(y)), 1.2 * max(size) / 200)


def window_from_image(image_size: Size) -> Window:
    """The whole image of (height, width)."""
    height, width = image_size
    return Window((width // 2, height // 2), max(image_size) / 200)


def crop_spin(
    image: NDArray[np.uint8], window: Box | Window, size: Size = (224, 224), *, plain: bool = False
) -> Crop:
    """The crop of a person in a (H, W, 3) uint8 BGR image; black beyond its edge.

    As released, SPIN stretches the darkest and the brightest value of the crop, of all colours
    together, to 0..255 (scipy's imresize did, given floats) and resizes as Pillow does. plain: as
    in its branch cuda11_fix, resized as scikit-image does, neither stretched nor rounded.
    """
    check_image(image)
    window = window if isinstance(window, Window) else window_from_box(window)
    rectangle = window.rectangle
    pixels = np.ascontiguousarray(cut(image, rectangle)[..., ::-1])
    resized: NDArray[Any]
    if plain:
        resized = resize_like_skimage(pixels, size)
    else:
        resized = resize_like_pillow(stretch(pixels), size)
    return Crop(resized, rectangle_affine(rectangle, size))


def stretch(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The least value to 0, the greatest to 255, rounded to the nearest level."""
    low, high = int(pixels.min()), int(pixels.max())
    levels = (np.arange(256) - low) * (255.0 / ((high - low) or 1)) + 0.5
    return np.asarray(cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)
