"""VIBE (Kocabas et al. 2020): a recurrent network over SPIN's features, and SPIN's regressor.

The memory starts empty with each call; a longer context changes the results.
"""

import torch
from torch import Tensor, nn

from .rotations import rot6d_to_rotmat, rotmat_to_rotvec
from .spec import FeatureInput, NetworkSpec, recorded
from .spin_hmr import MeshParameters, SpinRegressor


class TemporalEncoder(nn.Module):
    """(B, T, 2048) to (B, T, 2048); `state` (2, B, 1024) carries the memory on, if wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2048, 1024, num_layers=2)
        self.linear = nn.Linear(1024, 2048)

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        memory, state = self.gru(features.transpose(0, 1), state)
        return features + self.linear(torch.relu(memory)).transpose(0, 1), state


class VIBE(nn.Module):
    """Features (B, T, 2048) to mesh parameters of every frame, (B, T, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.regressor = TemporalEncoder(), SpinRegressor()

    def forward(self, features: Tensor) -> MeshParameters:
        frames = features.shape[:2]
        encoded = self.encoder(features)[0].flatten(0, 1)
        pose, betas, cam = self.regressor.regress(encoded)
        rotmat = rot6d_to_rotmat(pose.unflatten(-1, (24, 6)), floor=1e-6)
        return MeshParameters(*(value.unflatten(0, frames) for value in (rotmat, betas, cam)))


def _probe(network: VIBE, features: Tensor) -> dict[str, Tensor]:
    with recorded(network, encoder="encoder") as seen:
        result = network(features)
    return {
        "rotmat": result.rotmat,
        "pose_axis_angle": rotmat_to_rotvec(result.rotmat).flatten(-2),
        "theta_cam_shape": torch.cat((result.cam, result.betas), -1),
        "temporal_feature": seen["encoder"][0],
    }


SPECS = (
    NetworkSpec(
        "vibe",
        VIBE,
        FeatureInput("spin_hmr", frames=16),
        MeshParameters._fields,
        skeleton="smpl24",
        unit="rotation matrices; camera as spin_hmr",
        licence="MPI non-commercial research",
        parameters=21_309_597,
        gmacs=16 * 0.028,
        wrappers=("gen_state_dict",),
        ignore=("regressor.smpl.",),
        probe=_probe,
    ),
)
