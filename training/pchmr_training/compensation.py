"""What the calibration may learn beside A and W (Table 3, V and VI): two-layer perceptrons.

Both take the generator's Theta = (pose, shape) and the bones' Psi, and begin as if absent.
"""

import torch
from torch import Tensor, nn

from .networks.rotations import rot6d_to_rotmat
from .smpl import SmplLayer

WIDTH = 256


class PosePerceptron(nn.Module):
    """Rotations (B, J, 3, 3) and betas of the generator and Psi (B, K, 3, 3) to (B, outputs)."""

    def __init__(self, joints: int, betas: int, bones: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(6 * joints + betas + 6 * bones, WIDTH)
        self.last = nn.Linear(WIDTH, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, rotmats: Tensor, betas: Tensor, psi: Tensor) -> Tensor:
        turns = torch.cat([rotmats, psi], 1)[..., :2].flatten(1)
        state = torch.cat([turns, betas], 1).to(self.hidden.weight.dtype)
        return self.last(torch.relu(self.hidden(state)))


class SelfRotation(PosePerceptron):
    """(B, K) radians by which each bone turns about itself, which its two joints cannot show."""

    def __init__(self, layer: SmplLayer, bones: int) -> None:
        super().__init__(len(layer.parents), layer.body.num_betas, bones, bones)


class ShapeCompensation(nn.Module):
    """Pose blend shapes of the calibrated pose less those the mesh already has, (B, V, 3) metres.

    The perceptron gives the joint rotations of the calibrated pose. At rest the difference would be
    added before skinning; here the generator's skinning and then the blended Psi turn it.
    """

    def __init__(self, layer: SmplLayer, bones: int) -> None:
        super().__init__()
        joints = len(layer.parents)
        self.layer = layer
        self.perceptron = PosePerceptron(joints, layer.body.num_betas, bones, 6 * (joints - 1))

    def pose(self, rotmats: Tensor, betas: Tensor, psi: Tensor) -> Tensor:
        """(B, J, 3, 3): the joint rotations of the calibrated mesh; the global one is kept."""
        change = self.perceptron(rotmats, betas, psi).unflatten(1, (-1, 3, 2))
        moved = rotmats[:, 1:, :, :2] + change
        return torch.cat([rotmats[:, :1], rot6d_to_rotmat(moved.flatten(2))], 1)

    def forward(self, rotmats: Tensor, betas: Tensor, psi: Tensor, A: Tensor) -> Tensor:
        """rotmats, betas: the generator's; psi: (B, K, 3, 3); A: (V, K)."""
        layer = self.layer
        calibrated = self.pose(rotmats, betas, psi)
        offset = layer.pose_offsets(calibrated) - layer.pose_offsets(rotmats)
        for weights, rotations in ((layer.lbs_weights, layer.rotations(rotmats)), (A, psi)):
            turn = (weights.to(A) @ rotations.flatten(2).to(A)).unflatten(2, (3, 3))
            offset = (turn * offset.to(A)[:, :, None]).sum(-1)
        return offset
