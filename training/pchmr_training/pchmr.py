"""Serial and Parallel PC-HMR as modules (Section 3.2, Figure 2 of Luan et al. 2021).

    mesh_stream = NetworkMeshStream("spin_hmr", hmr, layer, "h36m17")
    lifter = NetworkLifter("videopose3d_h36m_27", videopose3d, "h36m17")
    serial = SerialPCHMR(mesh_stream, lifter, CalibrationModule.from_body(layer, "h36m17"))
    vertices = serial(view).vertices

The parts are whatever answers as the protocols below say: registered networks (`mesh_streams.py`,
`pose_streams.py`), the open default (`open_streams.py`), a template or a given pose. N rows are
people in frames; a clip of T frames is T rows, so that image and video forms are one. Everything is
in the camera's frame, metres, about the mesh stream's own origin; `translation` moves it before the
camera.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .calibration import CalibrationModule
from .smpl import SmplLayer


class Mesh(NamedTuple):
    """A mesh stream's answer.

    rotmats: (N, 24, 3, 3) and betas: (N, num_betas): Theta. vertices: (N, V, 3); source:
    (N, J, 3), the joints U_S M of the target's skeleton (Eq. 2); translation: (N, 3);
    keypoints_2d: (N, J2, 3), pixels of the full frame and score: the mesh's own image (Eq. 3), of
    the joints that the lifter takes.
    """

    rotmats: Tensor
    betas: Tensor
    vertices: Tensor
    source: Tensor
    translation: Tensor
    keypoints_2d: Tensor


class Target(NamedTuple):
    """joints: (N, J, 3) in the calibration's skeleton, any root; confidence: (N, J) or None."""

    joints: Tensor
    confidence: Tensor | None = None


class Calibrated(NamedTuple):
    """vertices: (N, V, 3), calibrated, and what they come from."""

    vertices: Tensor
    mesh: Mesh
    target: Target


class MeshStream(Protocol):
    def __call__(self, view: Any) -> Mesh: ...


class Lifter(Protocol):
    def __call__(self, keypoints_2d: Tensor, view: Any) -> Target: ...


class PoseStream(Protocol):
    """The mesh is given for the depth of its root, which an image alone does not show."""

    def __call__(self, view: Any, mesh: Mesh) -> Target: ...


class SerialPCHMR(nn.Module):
    """A mesh-pose autoencoder: the mesh's own image is lifted to the pose that corrects it."""

    def __init__(
        self, mesh_stream: MeshStream, lifter: Lifter, calibration: CalibrationModule
    ) -> None:
        super().__init__()
        self.mesh_stream, self.lifter, self.calibration = mesh_stream, lifter, calibration

    def forward(self, view: Any) -> Calibrated:
        mesh = self.mesh_stream(view)  # Eq. 1-3
        target = self.lifter(mesh.keypoints_2d, view)  # Eq. 4
        return calibrate(self.calibration, mesh, target)  # Eq. 5


class ParallelPCHMR(nn.Module):
    """A mesh stream beside a pose stream, which sees the image itself."""

    def __init__(
        self, mesh_stream: MeshStream, pose_stream: PoseStream, calibration: CalibrationModule
    ) -> None:
        super().__init__()
        self.mesh_stream, self.pose_stream = mesh_stream, pose_stream
        self.calibration = calibration

    def forward(self, view: Any) -> Calibrated:
        mesh = self.mesh_stream(view)
        target = self.pose_stream(view, mesh)
        return calibrate(self.calibration, mesh, target)


def calibrate(calibration: CalibrationModule, mesh: Mesh, target: Target) -> Calibrated:
    """The mesh bent onto the target, its root where the mesh has it."""
    vertices = calibration(
        mesh.vertices,
        mesh.source,
        target.joints,
        target.confidence,
        rotmats=mesh.rotmats,
        betas=mesh.betas,
    )
    return Calibrated(vertices, mesh, target)


class TemplateStream(nn.Module):
    """The rest mesh in place of the mesh stream: PC-Template (Table 3, III).

    Calibrate it with `Options(prealign="torso")`: smallest rotations cannot turn it about.
    """

    def __init__(self, layer: SmplLayer, skeleton: str) -> None:
        super().__init__()
        self.layer, self.skeleton = layer, skeleton

    def forward(self, view: Any) -> Mesh:
        like = self.layer.v_template
        rotmats = torch.eye(3).to(like).repeat(view.rows, len(self.layer.parents), 1, 1)
        rotmats[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])).to(like)  # y up to y down
        betas = like.new_zeros(view.rows, self.layer.body.num_betas)
        vertices = self.layer(rotmats, betas).vertices
        source = self.layer.regress(self.skeleton, vertices)
        nowhere, nothing = like.new_zeros(view.rows, 3), like.new_zeros(view.rows, 0, 3)
        return Mesh(rotmats, betas, vertices, source, nowhere, nothing)


class GivenPose(nn.Module):
    """The view's own joints in place of the pose stream: ground truth (Table 3, IV)."""

    def forward(self, view: Any, mesh: Mesh) -> Target:
        return Target(view.joints)
