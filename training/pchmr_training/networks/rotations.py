"""Rotations in torch, differentiable; `pchmr.geometry` is the same in NumPy."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rot6d_to_rotmat(
    rot6d: Tensor, layout: Literal["interleaved", "columns"] = "interleaved", floor: float = 1e-12
) -> Tensor:
    """Rotation matrices (..., 3, 3) from six numbers (..., 6), by Gram-Schmidt (Zhou et al. 2019).

    layout: `interleaved` (SPIN, VIBE: the numbers are the rows of a 3x2 matrix) or `columns`
    (HMR2: first column, second column). floor: least norm that is divided by.
    """
    if layout == "interleaved":
        a1, a2 = rot6d.unflatten(-1, (3, 2)).unbind(-1)
    else:
        a1, a2 = rot6d.unflatten(-1, (2, 3)).unbind(-2)
    b1 = normalize(a1, dim=-1, eps=floor)
    b2 = normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1, eps=floor)
    return torch.stack((b1, b2, torch.linalg.cross(b1, b2)), -1)


def rotmat_to_rotvec(rotmat: Tensor) -> Tensor:
    """Rotation vectors (..., 3), angle 0..pi, of rotation matrices (..., 3, 3).

    Through the unit quaternion, from the row of 4 q q^T with the largest diagonal (Shepperd 1978).
    """
    m = rotmat.flatten(-2).unbind(-1)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m
    rows = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, zy - yz, xz - zx, yx - xy), -1),
            torch.stack((zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx), -1),
            torch.stack((xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz), -1),
            torch.stack((yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz), -1),
        ),
        -2,
    )
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    quaternion = normalize(rows.gather(-2, index).squeeze(-2), dim=-1)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    sine = xyz.norm(dim=-1, keepdim=True)
    small = sine < 1e-6
    safe = torch.where(small, torch.ones_like(sine), sine)
    return torch.where(small, 2 * xyz, xyz * (2 * torch.atan2(safe, w) / safe))
