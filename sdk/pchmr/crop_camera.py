"""The camera a mesh network sees its crop through, and where that puts the body before the frame's.

A network over a crop answers cam = (s, tx, ty), as if the person stood on the optical axis of a
camera that looks straight at the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .placement import NEAREST_M, ray_rotation
from .prepost.cameras import crop_translation, project, project_weak
from .prepost.crops import Floats


def crop_centre(affine: Floats, size: tuple[int, int]) -> Floats:
    """(B, 2) where the middles of crops of `size` (width, height) lie in the frame, pixels.

    affine: (B, 2, 3), crop pixels to frame pixels.
    """
    return np.asarray(affine[..., :2] @ (np.array(size) / 2) + affine[..., 2])


def crop_turn(affine: Floats, size: tuple[int, int], camera: Camera) -> Floats:
    """(B, 3, 3) from the own cameras of such crops onto their viewing rays in the frame's."""
    centre = camera.undistort(crop_centre(affine, size))
    return ray_rotation(centre, np.zeros(len(centre)), camera)


@dataclass(frozen=True)
class CropCamera:
    """size: side of the square crop, pixels. focal_px: of its lens; None: s (X + t) in -1..1."""

    size: int
    focal_px: float | None

    def project(self, points: Floats, cam: Floats) -> Floats:
        """Crop pixels (B, J, 2) of points (B, J, 3), metres, about the body's origin."""
        if self.focal_px is None:
            return (project_weak(points, cam) + 1) * (self.size / 2)
        translation = crop_translation(cam, self.size, self.focal_px)
        return project(points, translation, self.focal_px) + self.size / 2

    def turn(self, affine: Floats, camera: Camera) -> Floats:
        """(B, 3, 3) from the crop's own camera onto its viewing ray in the frame's."""
        return crop_turn(affine, (self.size, self.size), camera)

    def translation(self, cam: Floats, affine: Floats, camera: Camera) -> tuple[Floats, np.ndarray]:
        """The body's origin (B, 3), metres, before the frame's camera, and ok (B,) bool.

        The crop is taken for a small part of the frame. ok is False where no body can stand; it
        then stands at the nearest place.
        """
        pixels_a_metre = cam[:, 0].astype(np.float64) * affine[:, 0, 0] * (self.size / 2)
        ok = np.isfinite(cam).all(1) & (pixels_a_metre > 0)
        depth = camera.fx / np.where(ok, pixels_a_metre, 1.0)
        ok &= depth > NEAREST_M
        depth = np.where(ok, depth, NEAREST_M)
        centre = camera.undistort(crop_centre(affine, (self.size, self.size)))
        shift = np.where(ok[:, None], cam[:, 1:], 0.0)
        ray = (centre - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
        return np.concatenate([shift + ray * depth[:, None], depth[:, None]], 1), ok
