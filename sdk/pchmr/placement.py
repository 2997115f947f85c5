"""Where a crop looks and where its body stands: viewing rays and the body's translation."""

from __future__ import annotations

import numpy as np

from pchmr_kernels import geometry
from pchmr_kernels.geometry import NEAREST_M

from .camera import Camera

__all__ = ["NEAREST_M", "points_to_crop", "ray_rotation", "solve_translation", "unproject"]


def ray_rotation(centre_px: np.ndarray, roll_rad: np.ndarray | None, camera: Camera) -> np.ndarray:
    """Rotation from a crop's own frame (z along its viewing ray, its own upright) to the camera.

    A network that sees a crop answers as if the person stood on the optical axis of a camera that
    looks straight at the crop; this turns its answer onto the crop's true viewing ray.

    centre_px: (B, 2) pixels, full frame. roll_rad: (B,), clockwise as seen in the image; None: the
    crops are upright.
    Returns (B, 3, 3) float64.
    """
    return geometry.ray_rotation(centre_px, roll_rad, camera.lens)


def points_to_crop(
    points_px: np.ndarray, rotation: np.ndarray, size_px: np.ndarray, camera: Camera
) -> np.ndarray:
    """Image points as the crop's own camera sees them, in units of half the crop's size.

    points_px: (B, N, 2) pixels, full frame. rotation: (B, 3, 3) from `ray_rotation`.
    size_px: (B,) side of the square crop. Returns (B, N, 2) float32, about -1..1 inside the crop.
    """
    return geometry.points_to_crop(points_px, rotation, size_px, camera.lens)


def solve_translation(
    points: np.ndarray, keypoints_2d: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """The translation that puts 3D points onto their image points, by weighted least squares.

    Each point gives two equations linear in t:  t_x - a t_z = a Z - X  with a = (u - c_x) / f_x,
    and likewise in y.

    points: (B, N, 3) metres, rotated as in the camera frame, about any origin.
    keypoints_2d: (B, N, 3): x px, y px, weight 0..1.
    Returns t (B, 3) metres and ok (B,) bool, False where the fit failed; t is then
    a guess at the nearest allowed depth.
    """
    return geometry.solve_translation(points, keypoints_2d, camera.lens)


def unproject(points_px: np.ndarray, depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(B, N, 3) camera-frame points, metres, from pixels (B, N, 2) and depths (B, N)."""
    x = (points_px[..., 0] - camera.cx) / camera.fx * depth
    y = (points_px[..., 1] - camera.cy) / camera.fy * depth
    return np.stack([x, y, depth], -1)
