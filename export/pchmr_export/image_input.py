"""The first layer of a stage that takes an image: from a crop's pixels to its network's numbers."""

import torch
from torch import Tensor, nn

from pchmr_training.networks import ImageInput


class ImageNormalisation(nn.Module):
    """Crops (B, H, W, 3) uint8 RGB to what a network takes, as `pchmr.prepost.normalise` does.

    The cast comes first: TensorRT reads uint8 in no other way. Then colours, layout and one
    multiply-add.
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, convention: ImageInput) -> None:
        super().__init__()
        low, high = convention.value_range
        mean, std = (
            torch.tensor(x, dtype=torch.float64) for x in (convention.mean, convention.std)
        )
        self.swap, self.planar = convention.colour == "bgr", convention.layout == "NCHW"
        for name, value in (("slope", (high - low) / (255 * std)), ("offset", (low - mean) / std)):
            shape = (3, 1, 1) if self.planar else (3,)
            self.register_buffer(name, value.float().reshape(shape))

    def forward(self, image: Tensor) -> Tensor:
        values = image.float()
        if self.swap:
            values = values[..., [2, 1, 0]]
        if self.planar:
            values = values.permute(0, 3, 1, 2)
        return values * self.slope + self.offset


class FromImage(nn.Module):
    """A network that is fed crops as the runtime cuts them, (B, H, W, 3) uint8 RGB."""

    def __init__(self, network: nn.Module, convention: ImageInput) -> None:
        super().__init__()
        self.image, self.network = ImageNormalisation(convention), network

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.network(self.image(image))
