"""The open default's streams, differentiable; `pchmr.stages` is the same in NumPy and ONNX.

serial = SerialPCHMR(OpenMeshStream(G, layer), OpenLifter(L), calibration)
parallel = ParallelPCHMR(OpenMeshStream(G, layer), OpenPoseStream(L, carry), calibration)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pchmr.placement import NEAREST_M
from pchmr_kernels.person import WORLD
from pchmr_kernels.skeletons import get_skeleton

from .networks.rotations import rot6d_to_rotmat
from .open_default.networks import KEYPOINTS, Lifter, MeshGenerator
from .pchmr import Mesh, Target
from .smpl import SmplLayer

SKELETON = "smpl24"
BLAZEPOSE = get_skeleton("blazepose33")
COLUMNS = [BLAZEPOSE.index(name) for name in KEYPOINTS]
HIPS = [BLAZEPOSE.index("left_hip"), BLAZEPOSE.index("right_hip")]
NEAREST_POINT_M = 0.1  # as the runtime has it


@dataclass(frozen=True)
class OpenView:
    """What BlazePose saw of N people.

    keypoints: (N, 33, 3), pixels and visibility; world: (N, 33, 3), metres, oriented as the camera;
    crop_rotation: (N, 3, 3), the crop's camera to the full one; crop_size: (N,) pixels; focal and
    centre: (2,) pixels. pose_keypoints, pose_world: of a landmark network that the pose stream has
    of its own.
    """

    keypoints: Tensor
    world: Tensor
    crop_rotation: Tensor
    crop_size: Tensor
    focal: Tensor
    centre: Tensor
    pose_keypoints: Tensor | None = None
    pose_world: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.keypoints)

    def to_network(self, keypoints: Tensor) -> Tensor:
        """(N, 25, 3) of keypoints (N, 33, 3): as the crop's own camera sees them."""
        kept = keypoints[:, COLUMNS]
        rays = torch.cat([self.rays(kept), torch.ones_like(kept[..., :1])], -1)
        seen = rays @ self.crop_rotation
        scale = (2 * self.focal[0] / self.crop_size)[:, None, None]
        points = scale * seen[..., :2] / seen[..., 2:].clamp(min=1e-3)
        return torch.cat([points, kept[..., 2:]], -1)

    def rays(self, pixels: Tensor) -> Tensor:
        """(..., 2) image points at depth 1 of pixels (..., 2 or more)."""
        return (pixels[..., :2] - self.centre) / self.focal

    def project(self, points: Tensor) -> Tensor:
        """(..., 3), pixels and a score of 1, of points (..., 3) before the camera."""
        pixels = points[..., :2] / points[..., 2:].clamp(min=1e-6) * self.focal + self.centre
        return torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)

    def place(self, points: Tensor) -> Tensor:
        """(N, 3): the translation that puts points (N, 33, 3) onto the keypoints, least squares.

        Each point gives t_x - a t_z = a Z - X with a = (u - c_x) / f_x, and likewise in y. Points
        that end up behind the camera are a guess at the nearest depth allowed.
        """
        weight = self.keypoints[..., 2:].clamp(min=1e-6)
        ray = self.rays(self.keypoints)
        residual = ray * points[..., 2:] - points[..., :2]
        total = weight.sum(1)
        mean_ray, mean_residual = ((weight * x).sum(1) / total for x in (ray, residual))
        off = ray - mean_ray[:, None]
        spread = (weight * off.square()).sum((1, 2))
        moment = (weight * off * residual).sum((1, 2))
        depth = -moment / spread.clamp(min=1e-12)
        nearest = NEAREST_M - points[..., 2].amin(1)
        depth = torch.where((depth > nearest) & (spread > 1e-12), depth, nearest)[:, None]
        return torch.cat([mean_residual + mean_ray * depth, depth], 1)


class OpenMeshStream(nn.Module):
    """Keypoints -> G -> body -> placed before the camera; its keypoints are BlazePose's 33."""

    def __init__(self, generator: MeshGenerator, layer: SmplLayer) -> None:
        super().__init__()
        self.generator, self.layer = generator, layer

    def forward(self, view: OpenView) -> Mesh:
        dtype = self.layer.v_template.dtype
        rot6d, betas = self.generator(view.to_network(view.keypoints).float())
        rotmats = rot6d_to_rotmat(rot6d).to(dtype)
        upright = view.crop_rotation.to(dtype) @ rotmats[:, 0]
        rotmats, betas = torch.cat([upright[:, None], rotmats[:, 1:]], 1), betas.to(dtype)
        vertices = self.layer(rotmats, betas).vertices
        source = self.layer.regress(SKELETON, vertices)
        landmarks = self.layer.regress(BLAZEPOSE.name, vertices)
        translation = view.place(landmarks.double())
        keypoints_2d = view.project(landmarks + translation[:, None])
        return Mesh(rotmats, betas, vertices, source, translation, keypoints_2d)


class OpenLifter(nn.Module):
    """L on the mesh's own image: the lifter of the serial form. All joints are trusted alike."""

    def __init__(self, lifter: Lifter) -> None:
        super().__init__()
        self.lifter = lifter

    def lift(self, keypoints: Tensor, view: OpenView) -> tuple[Tensor, Tensor]:
        """Joints (N, 24, 3) and landmarks (N, 33, 3) about the pelvis, oriented as the camera."""
        joints, landmarks = self.lifter(view.to_network(keypoints).float())
        turn = view.crop_rotation.mT
        return joints.to(turn) @ turn, landmarks.to(turn) @ turn

    def forward(self, keypoints_2d: Tensor, view: OpenView) -> Target:
        return Target(self.lift(keypoints_2d, view)[0])


class OpenPoseStream(OpenLifter):
    """x, y from the image, depth from L and the world landmarks; the runtime's `ImageTarget`.

    carry: (24, 33), how a landmark's residual moves each joint.
    """

    carry: Tensor

    def __init__(self, lifter: Lifter, carry: Tensor) -> None:
        super().__init__(lifter)
        self.register_buffer("carry", carry.double())

    def forward(self, view: OpenView, mesh: Mesh) -> Target:  # type: ignore[override]
        keypoints = view.keypoints if view.pose_keypoints is None else view.pose_keypoints
        world = view.world if view.pose_world is None else view.pose_world
        joints, lifted = self.lift(keypoints, view)
        hips = lifted[:, HIPS].mean(1, keepdim=True)
        depth = (1 - WORLD) * lifted[..., 2:] + WORLD * (world + hips)[..., 2:]
        root = (mesh.translation + mesh.source[:, 0])[:, None]
        z = (depth + root[..., 2:]).clamp(min=NEAREST_POINT_M)
        seen = torch.cat([view.rays(keypoints) * z, z], -1)
        visibility = keypoints[..., 2:]
        target = joints + self.carry @ ((seen - root - lifted) * visibility)
        trust = self.carry / self.carry.sum(1, keepdim=True).clamp(min=1e-6)
        return Target(target, (trust @ visibility)[..., 0])
