"""Coordinates from heat maps, differentiable."""

import torch
from torch import Tensor


def soft_argmax_3d(volume: Tensor) -> Tensor:
    """Expected cell (B, J, 3), order x, y, z, of maps (B, J, D, H, W) after a softmax per joint.

    Cells count from 0 without a half: a flat map of 64 cells gives 31.5 (Sun et al. 2018).
    """
    share = volume.flatten(2).softmax(-1).view_as(volume)
    marginals = share.sum((2, 3)), share.sum((2, 4)), share.sum((3, 4))
    return torch.stack(
        [m @ torch.arange(m.shape[-1], device=m.device, dtype=m.dtype) for m in marginals], -1
    )
