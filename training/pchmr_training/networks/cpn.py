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


class _Resize(nn.Module):
    """Bilinear, corners aligned, to `size` (height, width) or to double the size."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.size, self.factor = size, None if size else 2

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, self.size, self.factor, mode="bilinear", align_corners=True)


class _GlobalNet(nn.Module):
    """Four levels, coarse to fine, to as many features of 256 channels and heat maps."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn_relu(c, 256, 1) for c in (2048, 1024, 512, 256))
        self.upsamples = nn.ModuleList(
            nn.Sequential(_Resize(), *conv_bn(256, 256, 1)) for _ in range(3)
        )
        self.predict = nn.ModuleList(
            nn.Sequential(
                *conv_bn_relu(256, 256, 1),
                conv(256, JOINTS, 3),
                _Resize(size),
                nn.BatchNorm2d(JOINTS),
            )
            for _ in range(4)
        )

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        features: list[Tensor] = []
        for index, level in enumerate(levels):
            feature = self.laterals[index](level)
            if features:
                feature = feature + self.upsamples[index - 1](features[-1])
            features.append(feature)
        heatmaps = [head(x) for head, x in zip(self.predict, features, strict=True)]
        return features, heatmaps


def _bottleneck(inputs: int) -> Bottleneck:
    return Bottleneck(inputs, 128, 256, project=True)


class _RefineNet(nn.Module):
    """Features of all levels to the final heat maps; the coarser, the more bottlenecks."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.cascade = nn.ModuleList(
            nn.Sequential(*(_bottleneck(256) for _ in range(3 - index)), _Resize(size))
            for index in range(4)
        )
        self.final_predict = nn.Sequential(_bottleneck(4 * 256), *conv_bn(256, JOINTS, 3))

    def forward(self, features: list[Tensor]) -> Tensor:
        refined = [part(x) for part, x in zip(self.cascade, features, strict=True)]
        return self.final_predict(torch.cat(refined, 1))


class CPN(nn.Module):
    """Image (B, 3, H, W) to five heat maps (B, 17, H/4, W/4): refined, global coarse to fine."""

    def __init__(self, depth: int, size: tuple[int, int]) -> None:
        super().__init__()
        quarter = size[0] // 4, size[1] // 4
        self.resnet = ResNet(depth)
        self.global_net, self.refine_net = _GlobalNet(quarter), _RefineNet(quarter)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features, heatmaps = self.global_net(self.resnet(image)[::-1])
        return self.refine_net(features), *heatmaps


def _spec(depth: int, size: tuple[int, int], parameters: int, gmacs: float) -> NetworkSpec:
    return NetworkSpec(
        f"cpn{depth}_{size[0]}x{size[1]}",
        partial(CPN, depth, size),
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
