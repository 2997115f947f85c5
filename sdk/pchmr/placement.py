"""Where a crop looks and where its body stands: viewing rays and the body's translation."""

from __future__ import annotations

import numpy as np

from .camera import Camera

NEAREST_M = 0.3  # a body closer than this to the lens cannot be seen whole: the fit has failed


def ray_rotation(centre_px: np.ndarray, roll_rad: np.ndarray, camera: Camera) -> np.ndarray:
    """Rotation from a crop's own frame (z along its viewing ray, its own upright) to the camera.

    A network that sees a crop answers as if the person stood on the optical axis of a camera that
    looks straight at the crop; this turns its answer onto the crop's true viewing ray.

    centre_px: (B, 2) pixels, full frame. roll_rad: (B,), clockwise as seen in the image.
    Returns (B, 3, 3) float64.
    """
    ray = np.empty((len(centre_px), 3))
    ray[:, 0] = (centre_px[:, 0] - camera.cx) / camera.fx
    ray[:, 1] = (centre_px[:, 1] - camera.cy) / camera.fy
    ray[:, 2] = 1.0
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    x, y, z = ray.T
    # The shortest turn of (0, 0, 1) onto the ray: I + [c] + [c]^2 / (1 + z), c = (-y, x, 0).
    f = 1.0 / (1.0 + z)
    turn = np.empty((len(ray), 3, 3))
    turn[:, 0] = np.stack([1 - f * x * x, -f * x * y, x], 1)
    turn[:, 1] = np.stack([-f * x * y, 1 - f * y * y, y], 1)
    turn[:, 2] = np.stack([-x, -y, z], 1)
    cos, sin = np.cos(roll_rad), np.sin(roll_rad)
    roll = np.zeros((len(ray), 3, 3))
    roll[:, 0, 0] = roll[:, 1, 1] = cos
    roll[:, 0, 1], roll[:, 1, 0] = -sin, sin
    roll[:, 2, 2] = 1.0
    return turn @ roll


def points_to_crop(
    points_px: np.ndarray, rotation: np.ndarray, size_px: np.ndarray, camera: Camera
) -> np.ndarray:
    """Image points as the crop's own camera sees them, in units of half the crop's size.

    points_px: (B, N, 2) pixels, full frame. rotation: (B, 3, 3) from `ray_rotation`.
    size_px: (B,) side of the square crop. Returns (B, N, 2) float32, about -1..1 inside the crop.
    """
    rays = np.ones((*points_px.shape[:2], 3))
    rays[..., 0] = (points_px[..., 0] - camera.cx) / camera.fx
    rays[..., 1] = (points_px[..., 1] - camera.cy) / camera.fy
    seen = rays @ rotation  # row vectors: R^T applied
    depth = np.maximum(seen[..., 2:], 1e-3)
    scale = 2.0 * camera.fx / size_px
    return (seen[..., :2] / depth * scale[:, None, None]).astype(np.float32)


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
    a = (keypoints_2d[..., 0] - camera.cx) / camera.fx
    b = (keypoints_2d[..., 1] - camera.cy) / camera.fy
    w = np.maximum(keypoints_2d[..., 2].astype(np.float64), 1e-6)
    x, y, z = np.moveaxis(points.astype(np.float64), -1, 0)
    rx, ry = a * z - x, b * z - y
    total, wa, wb = w.sum(1), (w * a).sum(1), (w * b).sum(1)
    mean_rx, mean_ry = (w * rx).sum(1) / total, (w * ry).sum(1) / total
    mean_a, mean_b = wa / total, wb / total
    # Eliminating t_x and t_y from the normal equations leaves one equation for t_z.
    spread = (w * ((a - mean_a[:, None]) ** 2 + (b - mean_b[:, None]) ** 2)).sum(1)
    moment = (w * ((a - mean_a[:, None]) * rx + (b - mean_b[:, None]) * ry)).sum(1)
    t_z = -moment / np.maximum(spread, 1e-12)
    nearest = NEAREST_M - z.min(1)
    ok = np.isfinite(t_z) & (t_z > nearest) & (spread > 1e-12)
    t_z = np.where(ok, t_z, nearest)
    return np.stack([mean_rx + mean_a * t_z, mean_ry + mean_b * t_z, t_z], 1), ok


def unproject(points_px: np.ndarray, depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(B, N, 3) camera-frame points, metres, from pixels (B, N, 2) and depths (B, N)."""
    x = (points_px[..., 0] - camera.cx) / camera.fx * depth
    y = (points_px[..., 1] - camera.cy) / camera.fy * depth
    return np.stack([x, y, depth], -1)
