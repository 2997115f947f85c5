"""The cameras mesh networks speak of, and the way from a crop's to the full frame's.

cam: (..., 3) = s, tx, ty of a weak perspective: (X + t) s is -1..1 over the crop. A network that
sees through a lens of focal length f px stands for the same by a translation in metres.
"""

import numpy as np
from numpy.typing import NDArray

from .crops import Floats

CROP_FOCAL_PX = 5000.0
"""Focal length that SPIN, VIBE and HMR2 assume for their crops of 224 or 256 pixels."""

_EPSILON = 1e-9  # theirs


def project_weak(points: Floats, cam: Floats) -> Floats:
    """HMR's projection (..., N, 2), -1..1 over the crop, of points (..., N, 3) m: s (X + t)."""
    return cam[..., None, :1] * (points[..., :2] + cam[..., None, 1:])


def crop_translation(
    cam: Floats, crop_size: float, focal_px: float = CROP_FOCAL_PX
) -> NDArray[np.float64]:
    """Translation (..., 3), metres, in the crop's own camera: (tx, ty, 2 f / (crop_size s))."""
    s, tx, ty = np.moveaxis(np.asarray(cam, np.float64), -1, 0)
    return np.stack([tx, ty, 2 * focal_px / (crop_size * s + _EPSILON)], -1)


def project(points: Floats, translation: Floats, focal_px: float) -> NDArray[np.float64]:
    """Pixels (..., N, 2) from the principal point of points (..., N, 3) moved by (..., 3), m."""
    moved = np.asarray(points, np.float64) + translation[..., None, :]
    return focal_px * moved[..., :2] / moved[..., 2:]


def full_frame_focal(image_size: tuple[int, int], crop_size: int) -> float:
    """4D-Humans' focal length of an image of (height, width): the crop's on the longer side, px."""
    return CROP_FOCAL_PX / crop_size * max(image_size)


def full_frame_translation(
    cam: Floats,
    center: Floats,
    box_side: Floats,
    image_size: tuple[int, int],
    focal_px: float,
) -> NDArray[np.float64]:
    """Translation (..., 3), metres, in the full frame's camera, its principal point the middle.

    center: (..., 2) of the crop, pixels; box_side: (...) its side in image pixels. 4D-Humans'
    `cam_crop_to_full`; SPIN has no such step and takes the same with its side 200 * scale. The
    crop camera looks straight ahead, so projections differ from the crop's by a pixel or so.
    """
    s, tx, ty = np.moveaxis(np.asarray(cam, np.float64), -1, 0)
    height, width = image_size
    side = np.asarray(box_side, np.float64) * s + _EPSILON
    off_x = 2 * (center[..., 0] - width / 2) / side
    off_y = 2 * (center[..., 1] - height / 2) / side
    return np.stack([tx + off_x, ty + off_y, 2 * focal_px / side], -1)


def fit_translation(
    points: Floats, pixels: Floats, confidence: Floats, focal_px: float, crop_size: float
) -> NDArray[np.float64]:
    """Translation (B, 3), metres, that brings points (B, N, 3) over crop pixels (B, N, 2).

    SPIN's weighted linear least squares: f (X + tx) = (u - crop_size / 2) (Z + tz), rows weighted
    by the root of confidence (B, N). With fewer than two points it gives the least translation.
    """
    u = np.asarray(pixels, np.float64) - crop_size / 2
    depth = points[..., 2:].astype(np.float64)
    rows = np.zeros((*u.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = focal_px
    rows[..., 2] = -u
    right = u * depth - focal_px * points[..., :2]
    root = np.sqrt(confidence)[..., None]
    people = len(rows)
    lhs = (rows * root[..., None]).reshape(people, -1, 3)
    rhs = (right * root).reshape(people, -1, 1)
    return (np.linalg.pinv(lhs) @ rhs)[..., 0]


def back_project(
    pixels: Floats, depth: Floats, focal_px: Floats | float, center: Floats
) -> NDArray[np.float64]:
    """Points (..., 3), metres, that pixels (..., 2) show at a depth (...), metres."""
    z = np.asarray(depth, np.float64)[..., None]
    return np.concatenate([(pixels - np.asarray(center)) / focal_px * z, z], -1)
