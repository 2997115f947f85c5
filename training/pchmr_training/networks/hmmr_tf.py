"""HMMR (Kanazawa et al. 2019) in its original TensorFlow form: features of a clip to its meshes.

Its group norm takes statistics over all frames of a call: a frame's result depends on the whole
window, so windows of another length give other results, and it cannot run frame by frame.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, group_norm

from .hmr_tf import BODY_AND_TRAINING, split_theta
from .spec import FeatureInput, NetworkSpec
from .tf_layers import Linear, Regressor, matrix, scope


class _GroupNorm(nn.Module):
    """32 groups of channels, over all frames of (B, C, T)."""

    def __init__(self, channels: int = 2048) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, 32, self.gamma, self.beta, eps=1e-6)


class _TemporalConv(nn.Module):
    """Over three frames of (B, C, T), zeros beyond the ends; weights (3, 1, inputs, outputs)."""

    def __init__(self, channels: int = 2048) -> None:
        super().__init__()
        self.weights = matrix(3, 1, channels, channels)
        self.biases = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return conv1d(x, self.weights[:, 0].permute(2, 1, 0), self.biases, padding=1)


class _Hallucinator(nn.Module):
    """(B, T, 2048) to what the movie strip might be, each frame for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (Linear(2048, 2048) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(features)))))


class Omega(NamedTuple):
    """(B, T, 85) of every frame, of five frames before it and five after: camera, pose, shape."""

    omega: Tensor
    omega_past5: Tensor
    omega_future5: Tensor


class Clip(NamedTuple):
    """Omega of a clip, and the strip (B, T, 2048) that each frame alone would suggest."""

    omega: Tensor
    omega_past5: Tensor
    omega_future5: Tensor
    hallucinated: Tensor


class HMMR(nn.Module):
    """Features (B, T, 2048) to the mesh parameters of every frame and of its past and future."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.blocks = blocks
        self.mean_param = nn.Parameter(torch.zeros(1, 85))
        for block in range(blocks):
            for part in (1, 2):
                self.add_module(f"AZ_FC_block_preact_gn{part}block_{block}", _GroupNorm())
                self.add_module(f"AZ_FC_block2_conv{part}block_{block}", _TemporalConv())
        self.fc2_res = _Hallucinator()
        for name, outputs in (("", 85), ("_past5", 72), ("_future5", 72)):
            self.add_module(f"single_view_ief{name}", scope(**{"3D_module": Regressor(outputs)}))

    def movie_strip(self, features: Tensor) -> Tensor:
        """(B, T, 2048) of the frames in their context, 13 frames wide."""
        x = features.transpose(1, 2)
        for block in range(self.blocks):
            y = x
            for part in (1, 2):
                norm = self.get_submodule(f"AZ_FC_block_preact_gn{part}block_{block}")
                y = torch.relu(norm(y))
                y = self.get_submodule(f"AZ_FC_block2_conv{part}block_{block}")(y)
            x = x + y
        return x.transpose(1, 2)

    def hallucinate(self, features: Tensor) -> Tensor:
        """What stands for the movie strip where only single images are known."""
        return self.fc2_res(features)

    def regress(self, strip: Tensor) -> Omega:
        """Mesh parameters from a movie strip (..., 2048), true or hallucinated."""
        start = self.mean_param.expand(*strip.shape[:-1], -1)
        omega = self.get_submodule("single_view_ief.3D_module")(strip, start)[-1]
        _, pose, betas = split_theta(omega)
        camera = omega.new_tensor((1.0, 0.0, 0.0)).expand(*strip.shape[:-1], -1)
        near = []
        for name in ("past5", "future5"):
            other = self.get_submodule(f"single_view_ief_{name}.3D_module")(strip, pose)[-1]
            near.append(torch.cat((camera, other, betas), -1))
        return Omega(omega, *near)

    def forward(self, features: Tensor) -> Clip:
        return Clip(*self.regress(self.movie_strip(features)), self.hallucinate(features))


def _probe(network: HMMR, features: Tensor) -> dict[str, Tensor]:
    return {**network(features)._asdict(), "movie_strip": network.movie_strip(features)}


SPECS = (
    NetworkSpec(
        "hmmr_tf",
        HMMR,
        FeatureInput("hmr_tf", frames=20),
        Clip._fields,
        skeleton="smpl24",
        unit="axis-angle; weak perspective as hmr_tf; the camera of past and future is (1, 0, 0)",
        licence="BSD-2-Clause",
        parameters=98_036_026,
        gmacs=2.36,
        wrappers=(),
        ignore=(*BODY_AND_TRAINING, "resnet_v2_50/"),
        tensorflow=True,
        probe=_probe,
    ),
)
