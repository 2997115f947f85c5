"""The cascaded pyramid network (Chen et al. 2018), the authors' TensorFlow form: NHWC, BGR.

A different network from the PyTorch re-implementation in `cpn.py`; weights do not convert.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from .resnet import LAYERS
from .spec import ImageInput, NetworkSpec, recorded
from .tf_layers import Conv, scope

EPS = 1e-9
JOINTS = 17


def resize(x: Tensor, like: Tensor) -> Tensor:
    """To the size of `like`, as TensorFlow 1 did: cell i lies at i * old / new of the source."""
    for dim in (-2, -1):
        old, new = x.shape[dim], like.shape[dim]
        at = torch.arange(new, device=x.device, dtype=x.dtype) * (old / new)
        first = at.floor().long()
        share = (at - first)[:, None] if dim == -2 else at - first
        low = x.index_select(dim, first)
        high = x.index_select(dim, (first + 1).clamp(max=old - 1))
        x = low + share * (high - low)
    return x


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around an identity, or a projection where the depth changes or it strides."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        changes = inputs != outputs
        self.shortcut = Conv(inputs, outputs, 1, stride, norm_eps=EPS) if changes else None
        self.conv1 = Conv(inputs, width, 1, norm_eps=EPS, relu=True)
        self.conv2 = Conv(width, width, 3, stride, norm_eps=EPS, relu=True)
        self.conv3 = Conv(width, outputs, 1, norm_eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return torch.relu(shortcut + self.conv3(self.conv2(self.conv1(x))))


class ResNetV1(nn.Module):
    """slim's resnet_v1: (B, 3, H, W) to four maps, H/4 to H/32. Blocks stride in the first unit."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, 2, norm_eps=EPS, relu=True)
        inputs = 64
        for block, count in enumerate(LAYERS[depth], 1):
            width, units = 32 << block, {}
            for unit in range(1, count + 1):
                stride = 2 if unit == 1 and block > 1 else 1
                bottleneck = _Bottleneck(inputs, width, 4 * width, stride)
                units[f"unit_{unit}"] = scope(bottleneck_v1=bottleneck)
                inputs = 4 * width
            self.add_module(f"block{block}", scope(**units))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = max_pool2d(pad(self.conv1(image), (1, 1, 1, 1)), 3, 2)
        levels = []
        for block in range(1, 5):
            for unit in self.get_submodule(f"block{block}").children():
                x = unit.get_submodule("bottleneck_v1")(x)
            levels.append(x)
        return levels


class CPN(nn.Module):
    """Image (B, H, W, 3) to heat maps (B, H/4, W/4, 17): refined, then global, fine to coarse."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.backbone = f"resnet_v1_{depth}"
        self.add_module(self.backbone, ResNetV1(depth))
        names = [f"res{level}" for level in range(2, 6)]
        self.lateral = scope(
            **{
                name: Conv(256 << index, 256, 1, norm_eps=EPS, relu=True)
                for index, name in enumerate(names)
            }
        )
        self.merge = scope(**{name: Conv(256, 256, 1) for name in names[:3]})
        self.tmp = scope(**{name: Conv(256, 256, 1, norm_eps=EPS, relu=True) for name in names})
        self.pyramid = scope(**{name: Conv(256, JOINTS, 3, norm_eps=EPS) for name in names})
        for count, name in enumerate(names[1:], 1):
            units = {f"refine_conv{unit}": _Bottleneck(256, 128, 256) for unit in range(count)}
            self.add_module(name, scope(**units))
        self.final_bottleneck = _Bottleneck(4 * 256, 128, 256)
        self.refine_out = Conv(256, JOINTS, 3, norm_eps=EPS)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        levels = self.get_submodule(self.backbone)(image.permute(0, 3, 1, 2))
        features: list[Tensor] = []
        heatmaps, refined = [], []
        for index in (3, 2, 1, 0):
            name, level = f"res{index + 2}", levels[index]
            feature = self.lateral[name](level)
            if features:
                feature = feature + self.merge[name](resize(features[-1], level))
            features.append(feature)
            heatmaps.append(resize(self.pyramid[name](self.tmp[name](feature)), levels[0]))
            if index > 0:
                for unit in self.get_submodule(name).children():
                    feature = unit(feature)
            refined.append(resize(feature, levels[0]))
        refine = self.refine_out(self.final_bottleneck(torch.cat(refined[::-1], 1)))
        return tuple(x.permute(0, 2, 3, 1) for x in (refine, *heatmaps[::-1]))


def _probe(network: CPN, image: Tensor) -> dict[str, Tensor]:
    with recorded(network, levels=network.backbone) as seen:
        refine, *heatmaps = network(image)
    maps = {f"global{index}": x for index, x in enumerate(heatmaps)}
    levels = {f"fm{index}": x.permute(0, 2, 3, 1) for index, x in enumerate(seen["levels"])}
    return {"refine": refine, **maps, **levels}


def _spec(depth: int, size: tuple[int, int], parameters: int, gmacs: float) -> NetworkSpec:
    return NetworkSpec(
        f"cpn_tf{depth}_{size[0]}x{size[1]}",
        partial(CPN, depth),
        ImageInput(
            size,
            crop="cpn",
            mean=(102.9801 / 255, 115.9465 / 255, 122.7717 / 255),
            std=(1.0, 1.0, 1.0),
            colour="bgr",
            layout="NHWC",
        ),
        ("refine", "global0", "global1", "global2", "global3"),
        skeleton="coco17",
        unit="heat maps of a quarter of the input, peaks of 255",
        licence="MIT",
        parameters=parameters,
        gmacs=gmacs,
        wrappers=(),
        ignore=("global_step", "beta1_power", "beta2_power"),
        tensorflow=True,
        probe=_probe,
    )


SPECS = (
    _spec(50, (256, 192), 27_009_770, 7.23),
    _spec(50, (384, 288), 27_009_770, 16.27),
    _spec(101, (384, 288), 46_001_898, 24.45),
)
