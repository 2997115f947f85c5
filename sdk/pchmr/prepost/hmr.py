"""Crops of HMR (Kanazawa et al. 2018), in its original TensorFlow form; HMMR's are the same.

Source: akanazawa/hmr f149abe, demo.py, src/util/{image,openpose,renderer}.py.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..crops import Box
from .boxes import best_person, box_from_keypoints
from .crops import Crop, Floats, Size, center_and_size, check_image

CROP_FOCAL_PX = 500.0
"""Of the camera that HMR draws its mesh with, for a crop of 224 pixels."""

_PERSON_PX = 150.0  # the diagonal of a person's box in the crop


@dataclass(frozen=True)
class Placement:
    """How an image is resized by `scale` and where the crop's middle (x, y), whole pixels, lies in
    the resized image; half a crop further it lies in the padded one."""

    scale: float
    middle: tuple[int, int]
    resized: Size

    def affine(self, size: Size) -> NDArray[np.float64]:
        """(2, 3) from image pixels to the crop, by the scale that was asked for.

        The image is resized to whole pixels, so this is off by up to one of its own pixels towards
        the right and lower edge; HMR does the same.
        """
        (x, y), s = self.middle, self.scale
        return np.array([[s, 0.0, size[1] / 2 - x], [0.0, s, size[0] / 2 - y]])


def place_box(box: Box, image_size: Size) -> Placement:
    """A person's tight box, or that of their keypoints: its diagonal becomes 150 pixels."""
    center, size = center_and_size(box)
    return _placement(_PERSON_PX / math.hypot(*size), center, image_size)


def place_keypoints(people: Floats, image_size: Size, threshold: float = 0.2) -> Placement:
    """The surest of several people (P, J, 3: x, y px, score)."""
    return place_box(box_from_keypoints(best_person(people), threshold), image_size)


def place_image(image_size: Size, crop_size: int = 224) -> Placement:
    """The whole image: its longer side becomes the crop's."""
    scale, (height, width) = crop_size / max(image_size), image_size
    return _placement(scale, (round(width / 2), round(height / 2)), image_size)


def _placement(scale: float, center: tuple[float, float], image_size: Size) -> Placement:
    height, width = image_size
    resized = int(np.floor(height * scale)), int(np.floor(width * scale))
    x, y = center[0] * resized[1] / width, center[1] * resized[0] / height
    return Placement(scale, (int(np.rint(x)), int(np.rint(y))), resized)


def crop_hmr(image: NDArray[np.uint8], placement: Box | Placement, size: Size = (224, 224)) -> Crop:
    """The crop of a person in a (H, W, 3) uint8 BGR image, whose edge goes on beyond it.

    The whole image is resized, without smoothing, and cut at whole pixels. Where a crop lies
    further outside than its own half, which HMR makes smaller, the edge goes on.
    """
    check_image(image)
    if not isinstance(placement, Placement):
        placement = place_box(placement, image.shape[:2])
    height, width = placement.resized
    pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    x = np.clip(np.arange(size[1]) - size[1] // 2 + placement.middle[0], 0, width - 1)
    y = np.clip(np.arange(size[0]) - size[0] // 2 + placement.middle[1], 0, height - 1)
    return Crop(pixels[y[:, None], x][..., ::-1], placement.affine(size))


def drawing_camera(placement: Placement) -> NDArray[np.float64]:
    """(3,) focal length and principal point, pixels of the full frame, that HMR draws with."""
    start = np.asarray(placement.middle, np.float64)
    return np.array([CROP_FOCAL_PX, *start]) / placement.scale


def drawing_translation(cam: Floats, crop_size: int = 224) -> NDArray[np.float64]:
    """Translation (..., 3), metres, of the mesh before that camera: (tx, ty, f / (112 s))."""
    s, tx, ty = np.moveaxis(np.asarray(cam, np.float64), -1, 0)
    return np.stack([tx, ty, 2 * CROP_FOCAL_PX / (crop_size * s)], -1)
