"""Synthetic training samples: a posed body, a camera, and what the landmark detector would see."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..smpl import rotvec_to_rotmat
from .body_points import BodyPoints
from .networks import BETAS, JOINTS
from .observation import observe
from .poses import Motion, sample_poses
from .views import View, sample_camera, sample_view


@dataclass(frozen=True)
class Samples:
    """A batch: keypoints (B, 25, 3), and in the region's upright frame the truth they came from.

    rotations (B, 24, 3, 3) with the global one first, betas (B, 10), points (B, 57, 3) metres
    relative to the pelvis: 24 joints, then 33 landmarks.
    """

    keypoints: Tensor
    rotations: Tensor
    betas: Tensor
    points: Tensor
    view: View


@torch.no_grad()
def synthesise(
    body: BodyPoints, motion: Motion, n: int, rng: torch.Generator, widen: bool = True
) -> Samples:
    """n random samples; `widen=False` keeps the poses of the motion capture as they are."""
    rotations = rotvec_to_rotmat(sample_poses(motion, n, rng, widen))
    betas = torch.randn(n, BETAS, generator=rng).clamp(-2.5, 2.5)
    points = body(rotations, betas)
    points = points - points[:, :1]
    camera, pelvis = sample_camera(n, rng)
    view = sample_view(camera, pelvis, points[:, JOINTS:], rng)
    upright = view.turn.mT @ camera
    rotations[:, 0] = upright @ rotations[:, 0]
    points = points @ upright.mT
    keypoints = observe(view, points[:, JOINTS:], rng)
    return Samples(keypoints, rotations, betas, points, view)
