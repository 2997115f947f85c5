"""PoseNet of 3DMPPE (Moon et al. 2019): an image to volumes of joint positions and their means."""

from functools import partial

from torch import Tensor, nn

from .heatmaps import soft_argmax_3d
from .resnet import ResNet
from .spec import ImageInput, NetworkSpec, recorded

DEPTH_CELLS = 64


class _Head(nn.Module):
    """Three doublings of the resolution, then `channels` maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (2048, 256, 256):
            up = nn.ConvTranspose2d(inputs, 256, 4, 2, 1, bias=False)
            layers += [up, nn.BatchNorm2d(256), nn.ReLU(inplace=True)]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, channels, 1)

    def forward(self, feature: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(feature))


class PoseNet(nn.Module):
    """Image (B, 3, 256, 256) to cells (B, J, 3): x, y of the crop and depth, 0..63."""

    def __init__(self, joints: int, depth: int = 50) -> None:
        super().__init__()
        self.joints = joints
        self.backbone, self.head = ResNet(depth), _Head(joints * DEPTH_CELLS)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.head(self.backbone(image)[-1])
        return soft_argmax_3d(maps.unflatten(1, (self.joints, DEPTH_CELLS)))


def _probe(network: PoseNet, image: Tensor) -> dict[str, Tensor]:
    with recorded(network, levels="backbone", volume="head") as seen:
        coord = network(image)
    return {"coord": coord, "feature": seen["levels"][-1], "volume": seen["volume"]}


def _spec(name: str, joints: int, skeleton: str, parameters: int, gmacs: float) -> NetworkSpec:
    return NetworkSpec(
        f"posenet_r50_{name}",
        partial(PoseNet, joints),
        # Trained on pixels that were never divided by 255: values up to about 1100.
        ImageInput((256, 256), crop="posenet", value_range=(0.0, 255.0)),
        ("coord",),
        skeleton=skeleton,
        unit="cells of 64 x 64 x 64; depth 2000 mm around the root",
        licence="MIT",
        parameters=parameters,
        gmacs=gmacs,
        wrappers=("network",),
        probe=_probe,
    )


SPECS = (
    _spec("18j", 18, "posenet18", 34_291_392, 8.43),
    _spec("21j", 21, "posenet21_muco", 34_340_736, 8.63),
)
