"""Square crops of an image: a turned region of interest, its affine, and points through it.

Three frames of a point, all with x right and y down:
- image: pixels, (0, 0) the centre of the first pixel, as in OpenCV;
- crop: the same of the n x n crop, so (n/2, n/2) is the middle of the region;
- ROI: -1..1 over the region, turned with it, so a person stands upright in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Floats = NDArray[np.floating[Any]]

_SAME_ROI_IOU = 0.7


@dataclass(frozen=True)
class Roi:
    """A turned square in an image.

    center: (x, y) pixels. size: length of a side, pixels. angle: radians, clockwise as seen in
    the image; what points up in the crop points along (sin angle, -cos angle) in the image.
    """

    center: tuple[float, float]
    size: float
    angle: float = 0.0


def letterbox_roi(width: int, height: int) -> Roi:
    """The smallest upright square around a whole image; its crop keeps the aspect."""
    return Roi((width / 2, height / 2), float(max(width, height)))


def crop_to_image(roi: Roi, crop_size: float) -> NDArray[np.float64]:
    """The (2, 3) affine from the pixels of a crop_size x crop_size crop to image pixels."""
    scale, half = roi.size / crop_size, crop_size / 2
    cos, sin = math.cos(roi.angle) * scale, math.sin(roi.angle) * scale
    x, y = roi.center
    return np.array([[cos, -sin, x - (cos - sin) * half], [sin, cos, y - (sin + cos) * half]])


def image_to_crop(roi: Roi, crop_size: float) -> NDArray[np.float64]:
    """The (2, 3) affine from image pixels to crop pixels, inverse of `crop_to_image`."""
    scale, half = crop_size / roi.size, crop_size / 2
    cos, sin = math.cos(roi.angle) * scale, math.sin(roi.angle) * scale
    x, y = roi.center
    return np.array([[cos, sin, half - cos * x - sin * y], [-sin, cos, half + sin * x - cos * y]])


def transform_points(affine: NDArray[np.float64], points: Floats) -> NDArray[np.float64]:
    """Points (..., 2) through a (2, 3) affine."""
    return points @ affine[:, :2].T + affine[:, 2]


def image_to_roi_frame(roi: Roi, points: Floats) -> NDArray[np.float64]:
    """Image points (..., 2), pixels, in the ROI's upright frame, -1..1 inside it."""
    return transform_points(image_to_crop(roi, 2.0), points) - 1.0


def roi_frame_to_image(roi: Roi, points: Floats) -> NDArray[np.float64]:
    """Points (..., 2) of the ROI's upright frame in image pixels."""
    return transform_points(crop_to_image(roi, 2.0), points + 1.0)


def region_rows(rois: Sequence[Roi]) -> NDArray[np.float64]:
    """(B, 4) as native code has regions: middle and side, pixels, and turn, radians."""
    return np.array([(*roi.center, roi.size, roi.angle) for roi in rois]).reshape(-1, 4)


def roi_box(roi: Roi) -> Box:
    """The tight upright box (x0, y0, x1, y1) around a turned ROI, pixels."""
    half = roi.size / 2 * (abs(math.cos(roi.angle)) + abs(math.sin(roi.angle)))
    x, y = roi.center
    return x - half, y - half, x + half, y + half


def clip_box(box: Box, width: int, height: int) -> Box:
    """The part of an upright box that lies inside the image; no area if none does."""
    x0, x1 = (min(max(x, 0.0), width) for x in box[::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    return x0, y0, x1, y1


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two upright boxes, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def same_roi(a: Roi, b: Roi) -> bool:
    """Whether two ROIs, however turned, show the same place."""
    return box_iou(roi_box(Roi(a.center, a.size)), roi_box(Roi(b.center, b.size))) >= _SAME_ROI_IOU
