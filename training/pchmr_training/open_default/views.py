"""Random cameras around a body, and the detector's region of interest in their images.

Image points are in normalised coordinates, (x / z, y / z) of the camera frame, so that no focal
length is needed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pchmr_kernels.skeletons import get_skeleton

BLAZEPOSE = get_skeleton("blazepose33")
HIPS = [BLAZEPOSE.index("left_hip"), BLAZEPOSE.index("right_hip")]
SHOULDERS = [BLAZEPOSE.index("left_shoulder"), BLAZEPOSE.index("right_shoulder")]
SMPL_TO_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up, facing the viewer


def axis_rotation(axis: int, angle: Tensor) -> Tensor:
    """(B,) radians about axis 0, 1 or 2 to (B, 3, 3) rotation matrices."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = torch.eye(3).repeat(len(angle), 1, 1)
    out[:, i, i] = out[:, j, j] = angle.cos()
    out[:, j, i] = angle.sin()
    out[:, i, j] = -out[:, j, i]
    return out


def ray_rotation(ray: Tensor) -> Tensor:
    """(B, 3, 3) least rotations of (0, 0, 1) onto rays (B, 3) that point away from the camera."""
    x, y, z = torch.nn.functional.normalize(ray, dim=1).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, zero, x, zero, zero, y, -x, -y, zero], 1).reshape(-1, 3, 3)
    return torch.eye(3) + cross + cross @ cross / (1 + z)[:, None, None]


@dataclass(frozen=True)
class View:
    """A region of interest as a camera of its own that looks straight at the region's centre.

    turn (B, 3, 3) from that upright camera to the full camera; pelvis (B, 3) in the full camera's
    frame, metres; half (B,) the region's side over two focal lengths.
    """

    turn: Tensor
    pelvis: Tensor
    half: Tensor

    def place(self, points: Tensor) -> Tensor:
        """(B, N, 3) upright points relative to the pelvis to the same about the upright camera."""
        return points + (self.pelvis[:, None] @ self.turn)

    def project(self, points: Tensor) -> Tensor:
        """(B, N, 3) points about the upright camera to (B, N, 2), about -1..1 inside the region."""
        image = points[..., :2] / points[..., 2:].clamp(min=0.2)
        return image / self.half[:, None, None]


def sample_camera(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, 3, 3) rotations from SMPL's frame to the camera and (n, 3) pelvis positions, metres.

    Any heading; elevation mostly 10 degrees down, within -35..60; roll within 30; 1.8 to 12 m away;
    up to 27 degrees off the optical axis. One body in sixteen is tilted at random: lying, falling.
    """

    def normal(mean: float, deviation: float, low: float, high: float) -> Tensor:
        drawn = mean + deviation * torch.randn(n, generator=rng)
        return drawn.clamp(low, high)

    heading = axis_rotation(1, 2 * math.pi * torch.rand(n, generator=rng))
    fallen = torch.rand(n, generator=rng) < 1 / 16
    tilt = axis_rotation(0, torch.where(fallen, normal(0, 0.8, -1.6, 1.6), normal(0, 0.06, -1, 1)))
    lean = axis_rotation(2, torch.where(fallen, normal(0, 0.8, -1.6, 1.6), normal(0, 0.06, -1, 1)))
    pitch = axis_rotation(0, torch.deg2rad(normal(10, 16, -35, 60)))
    roll = axis_rotation(2, torch.deg2rad(normal(0, 9, -30, 30)))
    distance = torch.exp(math.log(1.8) + math.log(12 / 1.8) * torch.rand(n, generator=rng))
    off_axis = torch.stack([normal(0, 0.22, -0.5, 0.5), normal(0, 0.1, -0.3, 0.3)], 1)
    pelvis = distance[:, None] * torch.cat([off_axis, torch.ones(n, 1)], 1)
    return roll @ pitch @ SMPL_TO_CAMERA @ lean @ tilt @ heading, pelvis


def sample_view(camera: Tensor, pelvis: Tensor, landmarks: Tensor, rng: torch.Generator) -> View:
    """The region of interest the detector would track, with the error of a tracker.

    Its centre is the middle of the hips, its side 2.5 times the reach of the body about it, its
    upright the line from hips to shoulders.

    landmarks: (B, 33, 3), SMPL's frame, relative to the pelvis.
    """
    n = len(camera)

    def error(deviation: float) -> Tensor:
        """Normal errors, one in ten of them four times larger."""
        rare = 1 + 3 * (torch.rand(n, generator=rng) < 0.1)
        return deviation * rare * torch.randn(n, generator=rng)

    seen = landmarks @ camera.mT + pelvis[:, None]
    image = seen[..., :2] / seen[..., 2:].clamp(min=0.2)
    hips, shoulders = image[:, HIPS].mean(1), image[:, SHOULDERS].mean(1)
    reach = (image - hips[:, None]).norm(dim=2).amax(1)
    half = 1.25 * reach * torch.exp(error(0.05) + 0.03)
    up = shoulders - hips
    angle = torch.atan2(up[:, 0], -up[:, 1]) + error(0.04)
    centre = hips + half[:, None] * torch.stack([error(0.015), error(0.015)], 1)
    ray = torch.cat([centre, torch.ones(n, 1)], 1)
    turn = ray_rotation(ray) @ axis_rotation(2, angle)
    return View(turn, pelvis, half)
