"""A body in SMPL's format as a differentiable layer (Loper et al. 2015), exportable to ONNX.

    layer = SmplLayer(load_body("SMPL_NEUTRAL.pkl"))
    posed = layer(rotvec_to_rotmat(pose), betas)
    joints = layer.regress("h36m17", posed.vertices)

V and F come from the file; `pchmr.bodies.BodyModel` is the same in NumPy.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pchmr.bodies import Body


class PosedBody(NamedTuple):
    """vertices: (B, V, 3) and joints: (B, J, 3), the kinematic ones, metres.

    rotations: (B, J, 3, 3), each joint's rotation from the rest pose, not from its parent.
    """

    vertices: Tensor
    joints: Tensor
    rotations: Tensor


class SmplLayer(nn.Module):
    """Poses a body: rotations (B, J, 3, 3), the global one first, and betas (B, num_betas)."""

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    joint_template: Tensor
    joint_dirs: Tensor
    lbs_weights: Tensor

    def __init__(self, body: Body, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.body = body
        self.parents = tuple(int(parent) for parent in body.parents)
        v_template, shapedirs, regressor = (
            torch.tensor(array, dtype=torch.float64)
            for array in (body.v_template, body.shapedirs, body.J_regressor)
        )
        vertices, _, betas = shapedirs.shape
        constants = {
            "v_template": v_template,
            "shapedirs": shapedirs.reshape(3 * vertices, betas).T,
            "posedirs": torch.from_numpy(body.posedirs.reshape(3 * vertices, -1)).T,
            "joint_template": regressor @ v_template,
            "joint_dirs": torch.einsum("jv,vcb->bjc", regressor, shapedirs).flatten(1),
            "lbs_weights": torch.from_numpy(body.lbs_weights),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(dtype).contiguous(), persistent=False)

    @property
    def has_pose_blend_shapes(self) -> bool:
        return len(self.posedirs) > 0

    def forward(self, rotmats: Tensor, betas: Tensor, transl: Tensor | None = None) -> PosedBody:
        """The posed body; the global rotation turns it about its pelvis joint, not the origin.

        rotmats: (B, J, 3, 3), each joint's rotation to its parent; betas: (B, num_betas);
        transl: (B, 3) metres, added last.
        """
        rest_joints = self.joint_template + self._offsets(betas, self.joint_dirs)
        vertices = self.v_template + self._offsets(betas, self.shapedirs)
        if self.has_pose_blend_shapes:
            vertices = vertices + self.pose_offsets(rotmats)
        rotations, joints = self._chain(rotmats, rest_joints)
        shift = joints - (rotations @ rest_joints[..., None])[..., 0]
        vertices = blend(vertices, torch.cat([rotations, shift[..., None]], -1), self.lbs_weights)
        if transl is not None:
            vertices, joints = vertices + transl[:, None], joints + transl[:, None]
        return PosedBody(vertices, joints, rotations)

    def pose_offsets(self, rotmats: Tensor) -> Tensor:
        """(B, V, 3) metres, at rest: pose blend shapes follow R - I of every joint but the root."""
        feature = rotmats[:, 1:] - torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
        return self._offsets(feature.flatten(1), self.posedirs)

    def rotations(self, rotmats: Tensor) -> Tensor:
        """(B, J, 3, 3): each joint's rotation from the rest pose."""
        return self._chain(rotmats, self.joint_template.expand(rotmats.shape[0], -1, -1))[0]

    def regress(self, skeleton: str, vertices: Tensor) -> Tensor:
        """Joints (B, N, 3) of `skeleton` from posed vertices (B, V, 3): U_S M, Eq. (2).

        Raises: InputError when the body has no regressor for it.
        """
        regressor = torch.from_numpy(self.body.regressor(skeleton))
        return regressor.to(vertices) @ vertices

    @staticmethod
    def _offsets(coefficients: Tensor, directions: Tensor) -> Tensor:
        return (coefficients @ directions).unflatten(1, (-1, 3))

    def _chain(self, rotmats: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations from rest (B, J, 3, 3) and posed joints (B, J, 3), parents before children."""
        turned, placed = [rotmats[:, 0]], [rest_joints[:, 0]]
        for child, parent in list(enumerate(self.parents))[1:]:
            bone = (rest_joints[:, child] - rest_joints[:, parent])[..., None]
            placed.append(placed[parent] + (turned[parent] @ bone)[..., 0])
            turned.append(turned[parent] @ rotmats[:, child])
        return torch.stack(turned, 1), torch.stack(placed, 1)


def blend(vertices: Tensor, transforms: Tensor, weights: Tensor) -> Tensor:
    """[sum_k w_vk (R_k | t_k)] [v; 1]: skinning, and the rigid part of the calibration; (B, V, 3).

    vertices: (B, V, 3); transforms: (B, K, 3, 4); weights: (V, K), rows sum to 1.
    """
    blended = (weights @ transforms.flatten(2)).unflatten(2, (3, 4))
    return (blended[..., :3] * vertices[:, :, None]).sum(-1) + blended[..., 3]


def rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices of rotation vectors (..., 3), with gradients at zero as well.

    Rodrigues' formula, I + sinc(a) [r] + sinc(a/2)^2 / 2 [r]^2 with a = |r|.
    """
    angle = rotvec.norm(dim=-1)[..., None, None] / torch.pi
    skew = cross_matrix(rotvec)
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return identity + torch.sinc(angle) * skew + torch.sinc(angle / 2) ** 2 / 2 * skew @ skew


def cross_matrix(v: Tensor) -> Tensor:
    """[v] (..., 3, 3), so that [v] w = v x w."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
