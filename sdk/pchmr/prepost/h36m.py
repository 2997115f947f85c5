"""Human3.6M as VideoPose3D and SemGCN prepare it: 32 joints to 17 or 16, and its four cameras.

Sources: VideoPose3D common/{camera,h36m_dataset,quaternion}.py, SemGCN data/prepare_data_h36m.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .crops import Floats
from .sequences import pixels_to_screen, screen_to_pixels

H36M17_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Joints of `h36m17` among the 32 of a Human3.6M file; the rest never move."""

SEMGCN16_OF_32 = tuple(joint for joint in H36M17_OF_32 if joint != 14)
"""Joints of `semgcn16`: those of `h36m17` without the nose."""

SEMGCN16_GROUPS = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9), (14, 15), (11, 12), (10, 13))
"""Pairs of `semgcn16` over which SemGCN's non-local block pools."""


@dataclass(frozen=True)
class StudioCamera:
    """A camera in a world of metres, z up, with the lens as VideoPose3D writes it.

    orientation: (4,) quaternion w, x, y, z, camera to world. translation: (3,) m. width, height:
    pixels. intrinsic: (9,) focal x, y and centre x, y in screen coordinates, radial k1, k2, k3,
    tangential p1, p2. Its tangential form is not OpenCV's.
    """

    orientation: Floats
    translation: Floats
    width: int
    height: int
    intrinsic: Floats

    @classmethod
    def from_pixels(
        cls,
        orientation: Floats,
        translation: Floats,
        resolution: tuple[int, int],
        intrinsic: Floats,
    ) -> "StudioCamera":
        """From a (9,) intrinsic with focal and centre in pixels; resolution: (width, height)."""
        width, height = resolution
        screen = np.array(intrinsic, np.float64)
        screen[:2] *= 2 / width  # by the width along y too
        screen[2:4] = pixels_to_screen(screen[2:4], width, height)
        return cls(np.asarray(orientation), np.asarray(translation), width, height, screen)

    def to_camera(self, world: Floats) -> NDArray[np.float64]:
        """Points (..., 3) of the world, metres, in the camera frame."""
        return rotate(self.orientation * (1, -1, -1, -1), world - self.translation)

    def to_world(self, points: Floats) -> NDArray[np.float64]:
        """Points (..., 3) of the camera frame, metres, in the world."""
        return rotate(self.orientation, points) + self.translation

    def project(self, points: Floats, *, distort: bool = True) -> NDArray[np.float64]:
        """Screen coordinates (..., 2) of points (..., 3), camera frame. distort: with the lens."""
        focal, center, radial, tangential = np.split(self.intrinsic, (2, 4, 7))
        near = np.clip(points[..., :2] / points[..., 2:], -1, 1).astype(np.float64)
        if distort:
            r2 = (near * near).sum(-1, keepdims=True)
            swell = 1 + sum(k * r2 ** (i + 1) for i, k in enumerate(radial))
            near = near * (swell + (near * tangential).sum(-1, keepdims=True)) + tangential * r2
        return focal * near + center

    def project_to_pixels(self, points: Floats, *, distort: bool = True) -> NDArray[np.float64]:
        """Pixels (..., 2) of points (..., 3), camera frame."""
        return screen_to_pixels(self.project(points, distort=distort), self.width, self.height)

    def flipped(self) -> "StudioCamera":
        """The camera of the mirrored image: centre x and p1 negated; by its text only."""
        intrinsic = np.array(self.intrinsic)
        intrinsic[[2, 7]] *= -1
        return StudioCamera(self.orientation, self.translation, self.width, self.height, intrinsic)


def rotate(quaternion: Floats, points: Floats) -> NDArray[np.float64]:
    """Points (..., 3) turned by a quaternion (4,) w, x, y, z, which is used as it is."""
    w, axis = float(quaternion[0]), np.asarray(quaternion[1:], np.float64)
    across = np.cross(axis, np.asarray(points, np.float64))
    return points + 2 * (w * across + np.cross(axis, across))


def stand_up(poses: Floats, orientation: Floats) -> NDArray[np.float64]:
    """Root-relative poses (T, J, 3), camera frame, as if in the world: turned by the camera, and
    the lowest joint of the whole clip on the ground. For drawing where the position is unknown."""
    turned = rotate(orientation, poses)
    turned[..., 2] -= turned[..., 2].min()
    return turned
