"""HRNet (Sun et al. 2019): branches of high to low resolution that keep exchanging maps."""

from functools import partial

import torch
from torch import Tensor, nn

from .resnet import BasicBlock, bottlenecks, conv_bn, conv_bn_relu
from .spec import ImageInput, NetworkSpec, recorded


class _Exchange(nn.Module):
    """Maps of every branch to maps of the first `outputs` branches; channels double per branch."""

    def __init__(self, channels: int, branches: int, outputs: int) -> None:
        super().__init__()
        widths = [channels << branch for branch in range(branches)]
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(branches))
            for target in range(outputs)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            paths = [layer(x) for layer, x in zip(layers.children(), maps, strict=True)]
            fused.append(torch.relu(sum(paths[1:], paths[0])))
        return fused


def _path(widths: list[int], source: int, target: int) -> nn.Module:
    """From one resolution to another: 1x1 and nearest upsampling, or 3x3 steps by two."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*conv_bn(widths[source], widths[target], 1), up)
    steps = [conv_bn_relu(widths[source], widths[source], 3, 2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, nn.Sequential(*conv_bn(widths[source], widths[target], 3, 2)))


def _stage(channels: int, branches: int, modules: int, last: int | None = None) -> nn.Sequential:
    """`modules` exchanges in a row; `last` limits the outputs of the last one."""
    outputs = [branches] * (modules - 1) + [last or branches]
    return nn.Sequential(*(_Exchange(channels, branches, count) for count in outputs))


def _transition(branches: int, inputs: int, outputs: int) -> nn.ModuleList:
    """Adds a branch at half the resolution of the lowest one."""
    new = nn.Sequential(conv_bn_relu(inputs, outputs, 3, 2))
    return nn.ModuleList([*(nn.Identity() for _ in range(branches)), new])


class HRNet(nn.Module):
    """Image (B, 3, H, W) to heat maps (B, joints, H/4, W/4)."""

    def __init__(self, channels: int, joints: int = 17) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = bottlenecks(64, 64, 4)
        self.transition1 = _transition(1, 256, 2 * channels)
        self.transition1[0] = conv_bn_relu(256, channels, 3)
        self.stage2 = _stage(channels, 2, 1)
        self.transition2 = _transition(2, 2 * channels, 4 * channels)
        self.stage3 = _stage(channels, 3, 4)
        self.transition3 = _transition(3, 4 * channels, 8 * channels)
        self.stage4 = _stage(channels, 4, 3, last=1)
        self.final_layer = nn.Conv2d(channels, joints, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))
        maps = [self.layer1(self.relu(self.bn2(self.conv2(x))))]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            sources = [*maps, maps[-1]]
            maps = stage([layer(x) for layer, x in zip(transition, sources, strict=True)])
        return self.final_layer(maps[0])


def _probe(network: HRNet, image: Tensor) -> dict[str, Tensor]:
    with recorded(network, layer1="layer1", stage3="stage3") as seen:
        heatmaps = network(image)
    stage3 = {f"stage3_b{branch}": x for branch, x in enumerate(seen["stage3"])}
    return {"heatmaps": heatmaps, "layer1": seen["layer1"], **stage3}


def _spec(channels: int, size: tuple[int, int], gmacs: float | None = None) -> NetworkSpec:
    return NetworkSpec(
        f"hrnet_w{channels}_{size[0]}x{size[1]}",
        partial(HRNet, channels),
        ImageInput(size, crop="hrnet"),
        ("heatmaps",),
        skeleton="coco17",
        unit="heat maps of a quarter of the input",
        licence="MIT",
        parameters={32: 28_536_113, 48: 63_595_745}[channels],
        gmacs=gmacs,
        wrappers=("best_state_dict", "state_dict"),
        probe=_probe,
    )


SPECS = (
    _spec(32, (256, 192), 7.65),
    _spec(32, (384, 288)),
    _spec(48, (256, 192)),
    _spec(48, (384, 288), 35.3),
)
