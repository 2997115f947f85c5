"""HMR (Kanazawa et al. 2018) in its original TensorFlow form: images NHWC, variables by name."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from .spec import ImageInput, NetworkSpec, recorded
from .tf_layers import Conv, Norm, Regressor, scope

EPS = 1e-5
# Constants of the body, optimiser and discriminator that the checkpoint may hold besides.
BODY_AND_TRAINING = (
    *("v_template", "shapedirs", "J_regressor", "posedirs", "lbs_weights", "cocoplus_regressor"),
    *("D/", "D_", "global_step", "beta1_power", "beta2_power"),
)


class _Unit(nn.Module):
    """Pre-activated bottleneck; a projection sees the activated input, an identity the raw one."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.preact = Norm(inputs, EPS)
        self.shortcut = Conv(inputs, 4 * width, 1, stride) if inputs != 4 * width else None
        self.conv1 = Conv(inputs, width, 1, norm_eps=EPS, relu=True)
        self.conv2 = Conv(width, width, 3, stride, norm_eps=EPS, relu=True)
        self.conv3 = Conv(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.preact(x))
        identity = x[..., :: self.stride, :: self.stride]
        shortcut = identity if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv3(self.conv2(self.conv1(active)))


class ResNetV2(nn.Module):
    """slim's resnet_v2_50: (B, 3, 224, 224) to (B, 2048). Blocks stride in their last unit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, 2)
        inputs = 64
        for block, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
            units = {}
            for unit in range(1, count + 1):
                stride = 2 if unit == count and block < 4 else 1
                units[f"unit_{unit}"] = scope(bottleneck_v2=_Unit(inputs, width, stride))
                inputs = 4 * width
            self.add_module(f"block{block}", _Block(units))
        self.postnorm = Norm(inputs, EPS)

    def pool1(self, image: Tensor) -> Tensor:
        """(B, 64, 56, 56); SAME padding of an even size: one row and column after, none before."""
        return max_pool2d(pad(self.conv1(image), (0, 1, 0, 1), value=-torch.inf), 3, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool1(image)
        for block in range(1, 5):
            x = self.get_submodule(f"block{block}")(x)
        return torch.relu(self.postnorm(x)).mean((2, 3))


class _Block(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for unit in self.values():
            x = unit["bottleneck_v2"](x)  # type: ignore[index]
        return x


class HMR(nn.Module):
    """Image (B, 224, 224, 3) to theta (B, 85): camera 3, axis-angle pose 72, shape 10."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_param = nn.Parameter(torch.zeros(1, 85))
        self.resnet_v2_50 = ResNetV2()
        self.add_module("3D_module", Regressor(85))

    def forward(self, image: Tensor) -> Tensor:
        feature = self.resnet_v2_50(image.permute(0, 3, 1, 2))
        start = self.mean_param.expand(image.shape[0], -1)
        return self.get_submodule("3D_module")(feature, start)[-1]


class Theta(NamedTuple):
    """cam: (..., 3) = s, tx, ty. pose: (..., 72) axis-angle. betas: (..., 10)."""

    cam: Tensor
    pose: Tensor
    betas: Tensor


def split_theta(theta: Tensor) -> Theta:
    """The parts of the 85 numbers of HMR and HMMR: the camera comes first."""
    return Theta(*theta.split((3, 72, 10), -1))


def _probe(network: HMR, image: Tensor) -> dict[str, Tensor]:
    paths = {"block1": "resnet_v2_50.block1", "feature": "resnet_v2_50", "thetas": "3D_module"}
    with recorded(network, **paths) as seen:
        network(image)
    theta1, theta2, theta3 = seen["thetas"]
    return {
        "theta1": theta1,
        "theta2": theta2,
        "theta3": theta3,
        "feature": seen["feature"],
        "pool1": network.resnet_v2_50.pool1(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        "block1": seen["block1"].permute(0, 2, 3, 1),
    }


SPECS = (
    NetworkSpec(
        "hmr_tf",
        HMR,
        ImageInput((224, 224), crop="hmr_tf", mean=(0.5,) * 3, std=(0.5,) * 3, layout="NHWC"),
        ("theta",),
        skeleton="smpl24",
        unit="axis-angle; weak perspective s (X + t) in -1..1",
        licence="MIT",
        parameters=26_841_386,
        gmacs=3.49,
        wrappers=(),
        ignore=BODY_AND_TRAINING,
        tensorflow=True,
        probe=_probe,
    ),
)
