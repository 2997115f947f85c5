"""The cascaded pyramid network (Chen et al. 2018) in its PyTorch re-implementation.

A different network from the TensorFlow original in `cpn_tf.py`; weights do not convert.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .resnet import Bottleneck, ResNet, conv, conv_bn, conv_bn_relu
from .spec import ImageInput, NetworkSpec

JOINTS = 17


def resize(x: Tensor, like: Tensor) -> Tensor:
    """To the height and width of `like`: bilinear, corners aligned."""
    return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


class _Head(nn.ModuleList):
    """Heat maps from a feature; the norm comes after the resize, whose place is kept empty."""

    def __init__(self) -> None:
        last = conv(256, JOINTS, 3), nn.Identity(), nn.BatchNorm2d(JOINTS)
        super().__init__([*conv_bn_relu(256, 256, 1), *last])

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        *layers, norm = self
        for layer in layers:
            x = layer(x)
        return norm(resize(x, like))


class _GlobalNet(nn.Module):
    """Four levels, coarse to fine, to as many features of 256 channels and heat maps."""

    def __init__(self) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn_relu(c, 256, 1) for c in (2048, 1024, 512, 256))
        self.upsamples = nn.ModuleList(
            nn.Sequential(nn.Identity(), *conv_bn(256, 256, 1)) for _ in range(3)
        )
        self.predict = nn.ModuleList(_Head() for _ in range(4))

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        features: list[Tensor] = []
        for index, level in enumerate(levels):
            feature = self.laterals[index](level)
            if features:
                coarse = resize(features[-1], level)
                feature = feature + self.upsamples[index - 1](coarse)
            features.append(feature)
        heads = zip(self.predict, features, strict=True)
        return features, [head(x, features[-1]) for head, x in heads]


def _bottleneck(inputs: int) -> Bottleneck:
    return Bottleneck(inputs, 128, 256, project=True)


class _RefineNet(nn.Module):
    """Features of all levels to the final heat maps; the coarser, the more bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        self.cascade = nn.ModuleList(
            nn.Sequential(*(_bottleneck(256) for _ in range(count))) for count in (3, 2, 1, 0)
        )
        self.final_predict = nn.Sequential(_bottleneck(4 * 256), *conv_bn(256, JOINTS, 3))

    def forward(self, features: list[Tensor]) -> Tensor:
        parts = zip(self.cascade, features, strict=True)
        refined = [resize(part(x), features[-1]) for part, x in parts]
        return self.final_predict(torch.cat(refined, 1))


class CPN(nn.Module):
    """Image (B, 3, H, W) to five heat maps (B, 17, H/4, W/4): refined, global coarse to fine."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.resnet, self.global_net, self.refine_net = ResNet(depth), _GlobalNet(), _RefineNet()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features, heatmaps = self.global_net(self.resnet(image)[::-1])
        return self.refine_net(features), *heatmaps


def _spec(depth: int, size: tuple[int, int], parameters: int, gmacs: float) -> NetworkSpec:
    return NetworkSpec(
        f"cpn{depth}_{size[0]}x{size[1]}",
        partial(CPN, depth),
        ImageInput(
            size,
            crop="cpn",
            mean=(122.7717 / 255, 115.9465 / 255, 102.9801 / 255),
            std=(1.0, 1.0, 1.0),
        ),
        ("refine", "global0", "global1", "global2", "global3"),
        skeleton="coco17",
        unit="heat maps of a quarter of the input, peaks of 255",
        licence="GPL-3.0 (authors' code; this is an own implementation)",
        parameters=parameters,
        gmacs=gmacs,
    )


SPECS = (
    _spec(50, (256, 192), 27_406_826, 7.32),
    _spec(50, (384, 288), 27_406_826, 16.46),
    _spec(101, (384, 288), 46_398_954, 24.64),
)
