"""Joint errors: mean per joint position error (MPJPE), after a similarity fit as PA-MPJPE."""

import torch
from torch import Tensor


def mpjpe(points: Tensor, truth: Tensor) -> Tensor:
    """(B,) mean distances of (B, N, 3) points from the truth, both as they are."""
    return (points - truth).norm(dim=-1).mean(-1)


def procrustes(points: Tensor, truth: Tensor) -> Tensor:
    """(B, N, 3) points moved onto the truth by the best rotation, scale and translation each."""
    centre, aim = points.mean(1, keepdim=True), truth.mean(1, keepdim=True)
    p, q = points - centre, truth - aim
    u, s, vh = torch.linalg.svd(p.mT @ q)
    sign = torch.ones_like(s)
    sign[:, -1] = torch.linalg.det(u @ vh).sign()  # a rotation, not a reflection
    scale = (s * sign).sum(-1) / p.square().sum((1, 2)).clamp(min=1e-12)
    return scale[:, None, None] * p @ (u * sign[:, None]) @ vh + aim


def pa_mpjpe(points: Tensor, truth: Tensor) -> Tensor:
    """(B,) mean distances after `procrustes`."""
    return mpjpe(procrustes(points, truth), truth)
