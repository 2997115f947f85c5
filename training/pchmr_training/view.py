"""What registered networks see of people: crops of full frames, in clips."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Crop(NamedTuple):
    """image: as the network takes it, (N, 3, H, W) or (N, H, W, 3); affine: (N, 2, 3), from the
    crop's pixels to the full frame's, upright."""

    image: Tensor
    affine: Tensor

    def to_frame(self, pixels: Tensor) -> Tensor:
        """(N, J, 2) pixels of the crop in the full frame."""
        return pixels @ self.affine[..., :2].mT.to(pixels) + self.affine[:, None, :, 2].to(pixels)


@dataclass(frozen=True)
class View:
    """N = clips x frames rows, clip by clip: people in full frames of one size.

    crop: for the mesh stream; pose_crop: for the pose stream; joints: (N, J, 3), a given pose.
    size: (width, height), pixels; focal_px: of the full frame, its diagonal where unknown; centre:
    (x, y) of its optical axis, the middle where unknown. Of a graph whose camera is an input, these
    are tensors (2,), (1,) and (2,).
    """

    crop: Crop
    size: tuple[int, int] | Tensor
    frames: int = 1
    pose_crop: Crop | None = None
    joints: Tensor | None = None
    focal_px: float | Tensor | None = None
    centre: tuple[float, float] | Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.crop.image)

    @property
    def focal(self) -> float | Tensor:
        return float(np.hypot(*self.size)) if self.focal_px is None else self.focal_px

    @property
    def middle(self) -> tuple[float | Tensor, ...] | Tensor:
        return (self.size[0] / 2, self.size[1] / 2) if self.centre is None else self.centre

    def from_middle(self, pixels: Tensor) -> Tensor:
        """Pixels (N, ..., 2) of the full frame, counted from its optical axis."""
        return pixels - _like(self.middle, pixels)

    def rays(self, pixels: Tensor) -> Tensor:
        """Image points at depth 1 of pixels (N, ..., 2) of the full frame."""
        return self.from_middle(pixels) / self.focal

    def to_screen(self, pixels: Tensor) -> Tensor:
        """Pixels (N, ..., 2) of the full frame as -1..1 over its width, from its middle."""
        size = _like(self.size, pixels)
        return (2 * pixels - size) / size[0]

    def to_clips(self, rows: Tensor) -> Tensor:
        """(clips, frames, ...) of (N, ...)."""
        return rows.unflatten(0, (-1, self.frames))


def _like(numbers: tuple[float | Tensor, ...] | Tensor, other: Tensor) -> Tensor:
    return torch.as_tensor(numbers, dtype=other.dtype, device=other.device)
