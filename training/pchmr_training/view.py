"""What registered networks see of people: crops of full frames, in clips."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
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
    size: (width, height), pixels; focal_px: of the full frame, its diagonal where unknown.
    """

    crop: Crop
    size: tuple[int, int]
    frames: int = 1
    pose_crop: Crop | None = None
    joints: Tensor | None = None
    focal_px: float | None = None

    @property
    def rows(self) -> int:
        return len(self.crop.image)

    @property
    def focal(self) -> float:
        return self.focal_px or float(np.hypot(*self.size))

    @property
    def middle(self) -> tuple[float, float]:
        return self.size[0] / 2, self.size[1] / 2

    def to_clips(self, rows: Tensor) -> Tensor:
        """(clips, frames, ...) of (N, ...)."""
        return rows.unflatten(0, (-1, self.frames))
