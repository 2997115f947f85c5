"""VideoPose3D (Pavllo et al. 2019): 2D joints of a window of frames to the 3D joints of one frame.

The same weights serve three forms: dilated (every frame of a clip at once), strided (the one frame
of a full window, an eighth of the work) and causal (looks only back; trained as such).
"""

from collections.abc import Sequence
from functools import partial
from math import prod

from torch import Tensor, nn

from .spec import KeypointInput, NetworkSpec


class VideoPose3D(nn.Module):
    """(B, T, J_in, F) to (B, T - receptive_field + 1, J_out, 3), metres, camera axes.

    The root is regressed like any joint. With `strided`, T is the receptive field.
    """

    def __init__(
        self,
        joints_in: int = 17,
        features: int = 2,
        joints_out: int = 17,
        widths: Sequence[int] = (3, 3, 3, 3, 3),
        causal: bool = False,
        strided: bool = False,
        channels: int = 1024,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.widths, self.causal, self.strided = tuple(widths), causal, strided
        self.expand_conv = self._conv(joints_in * features, channels, 0)
        self.expand_bn = nn.BatchNorm1d(channels)
        self.layers_conv, self.layers_bn = nn.ModuleList(), nn.ModuleList()
        for layer in range(1, len(widths)):
            self.layers_conv.append(self._conv(channels, channels, layer))
            self.layers_conv.append(nn.Conv1d(channels, channels, 1, bias=False))
            self.layers_bn.extend((nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)))
        self.shrink = nn.Conv1d(channels, 3 * joints_out, 1)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(dropout)

    def _conv(self, inputs: int, outputs: int, layer: int) -> nn.Conv1d:
        width = self.widths[layer]
        if self.strided:
            return nn.Conv1d(inputs, outputs, width, stride=width, bias=False)
        return nn.Conv1d(inputs, outputs, width, dilation=self._dilation(layer), bias=False)

    def _dilation(self, layer: int) -> int:
        return prod(self.widths[:layer])

    @property
    def receptive_field(self) -> int:
        return prod(self.widths)

    def _identity(self, x: Tensor, layer: int) -> Tensor:
        """The frames of a layer's input that its outputs stand for: the middle or the last ones."""
        width = self.widths[layer]
        if self.strided:
            return x[:, :, width - 1 if self.causal else width // 2 :: width]
        cut = (width - 1) * self._dilation(layer)
        first = cut if self.causal else cut // 2
        return x[:, :, first : x.shape[-1] - cut + first]

    def forward(self, keypoints: Tensor) -> Tensor:
        batch, frames = keypoints.shape[:2]
        x = keypoints.reshape(batch, frames, -1).transpose(1, 2)
        x = self.drop(self.relu(self.expand_bn(self.expand_conv(x))))
        for layer in range(1, len(self.widths)):
            identity = self._identity(x, layer)
            for part in (2 * layer - 2, 2 * layer - 1):
                x = self.layers_bn[part](self.layers_conv[part](x))
                x = self.drop(self.relu(x))
            x = identity + x
        return self.shrink(x).transpose(1, 2).unflatten(-1, (-1, 3))


def _spec(
    name: str,
    parameters: int,
    gmacs: float | None = None,
    skeletons: tuple[str, str] = ("h36m17", "h36m17"),
    layers: int = 5,
    wrapper: str = "model_pos",
    form_of: str | None = None,
    unit: str = "m, root relative",
    joints_out: int = 17,
    causal: bool = False,
    strided: bool = False,
) -> NetworkSpec:
    frames = 3**layers
    return NetworkSpec(
        f"videopose3d_{name}",
        partial(
            VideoPose3D,
            joints_out=joints_out,
            widths=(3,) * layers,
            causal=causal,
            strided=strided,
        ),
        KeypointInput(skeletons[0], (1, frames, 17, 2), frames=frames),
        ("pose",),
        skeleton=skeletons[1],
        unit=unit,
        licence="CC-BY-NC-4.0",
        parameters=parameters,
        gmacs=gmacs,
        wrappers=(wrapper,),
        form_of=form_of,
    )


# `pretrained_h36m_cpn.bin` wants H36M's order, `pretrained_h36m_detectron_coco.bin` and
# `cpn-pt-243.bin` COCO's; nothing in the weights tells them apart.
SPECS = (
    _spec("h36m_243", 16_952_371, 2.61),
    _spec("h36m_243_optimized1f", 16_952_371, 0.176, form_of="videopose3d_h36m_243", strided=True),
    _spec("coco_243", 16_952_371, 2.61, skeletons=("coco17", "h36m17")),
    _spec("h36m_81", 12_753_971, layers=4),
    _spec("h36m_27", 8_555_571, layers=3),
    _spec("h36m_9", 4_357_171, layers=2),
    _spec("causal_27", 8_555_571, layers=3, causal=True),
    _spec("humaneva15_27", 8_549_421, layers=3, skeletons=("coco17", "humaneva15"), joints_out=15),
    _spec(
        "traj_243",
        16_903_171,
        skeletons=("coco17", "h36m17"),
        wrapper="model_traj",
        unit="m, absolute position of the root",
        joints_out=1,
    ),
)
