"""SPIN's HMR (Kolotouros et al. 2019): a ResNet-50 and a regressor that corrects itself."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .resnet import ResNet
from .rotations import rot6d_to_rotmat
from .spec import ImageInput, NetworkSpec, recorded


class MeshParameters(NamedTuple):
    """rotmat: (..., 24, 3, 3), joint 0 the global orientation. betas: (..., 10).

    cam: (..., 3) = s, tx, ty of the network's own crop camera.
    """

    rotmat: Tensor
    betas: Tensor
    cam: Tensor


class SpinRegressor(nn.Module):
    """Features (N, 2048) to six numbers a joint, shape and camera; nothing bends between layers."""

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2048 + 144 + 10 + 3, 1024)
        self.fc2 = nn.Linear(1024, 1024)
        self.dropout = nn.Dropout(0.5)
        self.decpose = nn.Linear(1024, 144)
        self.decshape = nn.Linear(1024, 10)
        self.deccam = nn.Linear(1024, 3)
        self.register_buffer("init_pose", torch.zeros(1, 144))
        self.register_buffer("init_shape", torch.zeros(1, 10))
        self.register_buffer("init_cam", torch.zeros(1, 3))

    def regress(
        self,
        feature: Tensor,
        iterations: int = 3,
        start: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 144), (N, 10), (N, 3) after `iterations` corrections of the mean, or of `start`."""
        batch = feature.shape[0]
        mean = self.init_pose, self.init_shape, self.init_cam
        pose, shape, cam = start or (value.expand(batch, -1) for value in mean)
        for _ in range(iterations):
            state = torch.cat((feature, pose, shape, cam), 1)
            state = self.dropout(self.fc2(self.dropout(self.fc1(state))))
            pose = pose + self.decpose(state)
            shape = shape + self.decshape(state)
            cam = cam + self.deccam(state)
        return pose, shape, cam


class SpinHMR(ResNet, SpinRegressor):
    """Image (B, 3, 224, 224) to mesh parameters. Its file has both parts in one namespace."""

    def feature(self, image: Tensor) -> Tensor:
        """(B, 2048) of an image; also what VIBE takes for each frame."""
        return self.levels(image)[-1].mean((2, 3))

    def forward(
        self,
        image: Tensor,
        iterations: int = 3,
        start: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> MeshParameters:
        pose, betas, cam = self.regress(self.feature(image), iterations, start)
        return MeshParameters(rot6d_to_rotmat(pose.unflatten(-1, (24, 6))), betas, cam)


def _probe(network: SpinHMR, image: Tensor) -> dict[str, Tensor]:
    with recorded(network, layer1="layer1", layer4="layer4") as seen:
        result = network(image)
    feature = seen["layer4"].mean((2, 3))
    pose, _, cam = network.regress(feature, iterations=1)
    return {
        **result._asdict(),
        "feature": feature,
        "layer1": seen["layer1"],
        "rotmat_iter1": rot6d_to_rotmat(pose.unflatten(-1, (24, 6))),
        "cam_iter1": cam,
    }


SPECS = (
    NetworkSpec(
        "spin_hmr",
        SpinHMR,
        ImageInput((224, 224), crop="spin"),
        MeshParameters._fields,
        skeleton="smpl24",
        unit="rotation matrices; camera t = (tx, ty, 2 * 5000 / (224 s)) m with f = 5000 px",
        licence="BSD-3-Clause",
        parameters=26_977_501,
        gmacs=4.10,
        wrappers=("model",),
        probe=_probe,
    ),
)
