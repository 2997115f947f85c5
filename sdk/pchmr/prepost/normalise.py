"""From the pixels of a crop to the numbers a network takes."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .crops import Size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageConvention(Protocol):
    """How a network takes its image. A network's description has these fields, so has a bundle's.

    size: (height, width). crop: name of the crop rule. mean, std: in the order of `colour`.
    value_range: what 0..255 is brought to before the mean is taken off.
    """

    @property
    def size(self) -> Size: ...
    @property
    def crop(self) -> str: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def value_range(self) -> tuple[float, float]: ...
    @property
    def colour(self) -> Literal["rgb", "bgr"]: ...
    @property
    def layout(self) -> Literal["NCHW", "NHWC"]: ...


def normalise(
    pixels: NDArray[Any],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    value_range: tuple[float, float] = (0.0, 1.0),
    colour: Literal["rgb", "bgr"] = "rgb",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
) -> NDArray[np.float32]:
    """`(value - mean) / std` of RGB pixels (..., H, W, 3), 0..255, brought to `value_range` first.

    Gives (..., 3, H, W) or, for `NHWC`, (..., H, W, 3) float32. mean and std are in the order of
    `colour`, which is also that of the result. PoseNet's value_range is (0, 255) with ImageNet's
    mean and std, so its numbers go up to 1100; that is how it was trained.
    """
    low, high = value_range
    slope = (high - low) / (255.0 * np.asarray(std, np.float64))
    offset = (low - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)
    ordered = pixels if colour == "rgb" else pixels[..., ::-1]
    values = (ordered * slope + offset).astype(np.float32)
    return values if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(values, -1, -3))
