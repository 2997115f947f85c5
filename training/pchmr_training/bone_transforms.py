"""Bone transforms of the calibration, batched and differentiable; `reference.py` is their judge.

B batch, J joints, K bones. Target joints that do not count (weight 0) may be anything but NaN.
Gradients stay finite for parallel, antiparallel and zero-length bones:
a bone without direction turns nothing, an exactly antiparallel one turns by a constant half turn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pchmr_kernels.reference import SHORTEST_BONE_M, THRESHOLDS
from pchmr_kernels.skeletons import Skeleton

from .smpl import cross_matrix

PARALLEL = 1e-20  # squared sine below which two directions span no plane


class BoneTransforms(NamedTuple):
    """Psi (B, K, 3, 3), T (B, K, 3) and Delta (B, K, 3) of Eq. (6-10)."""

    psi: Tensor
    t: Tensor
    delta: Tensor


def bone_transforms(
    source: Tensor, target: Tensor, skeleton: Skeleton, alpha: Tensor | None = None
) -> BoneTransforms:
    """What turns, moves and stretches each bone of the mesh onto the target's.

    source, target: (B, J, 3), root-aligned; alpha: (B, K) radians about the target bones.
    """
    parent, child = skeleton.bones.T.tolist()
    b_src = source[:, parent] - source[:, child]
    b_tgt = target[:, parent] - target[:, child]
    psi = bone_rotation(b_src, b_tgt, body_axes(source, skeleton))
    if alpha is not None:
        psi = axis_rotation(b_tgt, alpha) @ psi
    t = target[:, parent] - _apply(psi, source[:, parent])  # Eq. (8)
    delta = target[:, child] - (_apply(psi, source[:, child]) + t)  # Eq. (9-10)
    return BoneTransforms(psi, t, delta)


def bone_rotation(b_src: Tensor, b_tgt: Tensor, axes: Tensor) -> Tensor:
    """Psi (B, K, 3, 3), the smallest rotations of b_src (B, K, 3) onto b_tgt, Eq. (6-7).

    axes: (B, N, 3), the body's own; see `half_turn_axis`.
    """
    u, v = directions(b_src, b_tgt)
    c, d = torch.linalg.cross(u, v), (u * v).sum(-1)
    c2 = c.square().sum(-1)
    back = d < 0
    half_turn = back & (c2 < PARALLEL)
    # 1 / (1 + d) loses everything near d = -1; each branch sees harmless numbers elsewhere.
    ahead = 1 / (1 + torch.where(back, 0, d))
    behind = (1 - d) / torch.where(back & ~half_turn, c2, 1)
    skew = cross_matrix(c)
    psi = _identity(u) + skew + torch.where(back, behind, ahead)[..., None, None] * skew @ skew
    axis = half_turn_axis(u, axes)
    turned = 2 * axis[..., :, None] * axis[..., None, :] - _identity(u)
    return torch.where(half_turn[..., None, None], turned, psi)


def directions(b_src: Tensor, b_tgt: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors of both bones; one and the same constant where either has no length."""
    shortest = SHORTEST_BONE_M**2
    known = (b_src.square().sum(-1) >= shortest) & (b_tgt.square().sum(-1) >= shortest)
    anywhere = _identity(b_src)[0]
    safe = (torch.where(known[..., None], b, anywhere) for b in (b_src, b_tgt))
    u, v = (b / b.norm(dim=-1, keepdim=True) for b in safe)
    return u, v


def body_axes(source: Tensor, skeleton: Skeleton) -> Tensor:
    """(B, N, 3): hip to hip, along the trunk, ... as far as the skeleton has them."""
    tips, tails = ([pair[i] for pair in skeleton.body_axes] for i in (0, 1))
    return source[:, tips] - source[:, tails]


@torch.no_grad()
def half_turn_axis(u: Tensor, axes: Tensor) -> Tensor:
    """(B, K, 3) unit vectors square to u (B, K, 3): u x the first axis that is not parallel to it.

    axes: (B, N, 3), tried in order, the frame's own after them. A constant: no gradient.
    """
    frame = _identity(u).expand(u.shape[0], 3, 3)
    candidates = torch.cat([axes, frame], 1)[:, None]  # (B, 1, N + 3, 3)
    length = candidates.norm(dim=-1, keepdim=True)
    unit = candidates / length.clamp(min=SHORTEST_BONE_M)
    square = torch.linalg.cross(u[:, :, None].expand(-1, -1, unit.shape[2], -1), unit)
    serves = (square.norm(dim=-1) >= 1e-3) & (length[..., 0] >= SHORTEST_BONE_M)
    first = serves.float().argmax(-1)[..., None, None].expand(*u.shape[:2], 1, 3)
    chosen = square.gather(2, first)[:, :, 0]
    return chosen / chosen.norm(dim=-1, keepdim=True)


def axis_rotation(axis: Tensor, alpha: Tensor) -> Tensor:
    """(B, K, 3, 3): by alpha (B, K) radians about axis (B, K, 3); none where it has no length."""
    known = axis.square().sum(-1) >= SHORTEST_BONE_M**2
    unit, _ = directions(axis, axis)
    skew = cross_matrix(unit)
    angle = torch.where(known, alpha, 0)[..., None, None]
    return _identity(axis) + angle.sin() * skew + (1 - angle.cos()) * skew @ skew


def joint_weights(
    target: Tensor,
    confidence: Tensor | None = None,
    thresholds: tuple[float, float] = THRESHOLDS,
) -> Tensor:
    """(B, J) in 0..1: how far each target joint counts; 0 where it is not finite."""
    known = target.isfinite().all(-1).to(target.dtype)
    if confidence is None:
        return known
    low, high = thresholds
    x = ((confidence.nan_to_num() - low) / (high - low)).clamp(0, 1)
    return known * x * x * (3 - 2 * x)


def fade_targets(source: Tensor, target: Tensor, weights: Tensor, skeleton: Skeleton) -> Tensor:
    """The root-aligned target, (B, J, 3), with its untrusted bones faded back to the source's.

    A bone goes as far from the source's as the lesser weight (B, J) of its two joints says, in
    angle and in length.
    """
    parent, child = skeleton.bones.T.tolist()
    target = torch.where(weights[..., None] > 0, target, source)
    share = torch.minimum(weights[:, parent], weights[:, child])[..., None]
    b_src = source[:, parent] - source[:, child]
    b_tgt = target[:, parent] - target[:, child]
    bones = _fade_bones(b_src, b_tgt, share, body_axes(source, skeleton))
    return source[:, skeleton.root, None] - _paths(skeleton).to(bones) @ bones


def _fade_bones(b_src: Tensor, b_tgt: Tensor, share: Tensor, axes: Tensor) -> Tensor:
    """From b_src (share 0) to b_tgt (share 1), (B, K, 3): angle and length apart."""
    u, v = directions(b_src, b_tgt)
    c, d = torch.linalg.cross(u, v), (u * v).sum(-1, keepdim=True)
    c2 = c.square().sum(-1, keepdim=True)
    apart = c2 >= PARALLEL
    sine = torch.where(apart, torch.where(apart, c2, 1).sqrt(), 0)
    half_turn = ~apart & (d < 0)
    angle = torch.where(half_turn, 0, torch.atan2(sine, torch.where(half_turn, 1, d))) / torch.pi
    # sin(s a) / sin(a) = s sinc(s a) / sinc(a), smooth where the bones are parallel
    whole = torch.sinc(angle)
    between = (1 - share) * torch.sinc((1 - share) * angle) * u + share * torch.sinc(
        share * angle
    ) * v
    turned = _apply(axis_rotation(half_turn_axis(u, axes), torch.pi * share[..., 0]), u.detach())
    direction = torch.where(half_turn, turned, between / whole)
    short = torch.minimum(b_src.square().sum(-1), b_tgt.square().sum(-1)) < SHORTEST_BONE_M**2
    straight = (share == 0) | (share == 1) | short[..., None]
    safe_src, safe_tgt = (torch.where(straight, 1, b) for b in (b_src, b_tgt))
    length = (1 - share) * safe_src.norm(dim=-1, keepdim=True) + share * safe_tgt.norm(
        dim=-1, keepdim=True
    )
    return torch.where(straight, (1 - share) * b_src + share * b_tgt, length * direction)


def _paths(skeleton: Skeleton) -> Tensor:
    """(J, K): 1 where the bone lies between the root and the joint."""
    incoming = {int(child): k for k, (_, child) in enumerate(skeleton.bones)}
    paths = torch.zeros(len(skeleton), len(skeleton.bones))
    for joint in range(len(skeleton)):
        step = joint
        while step != skeleton.root:
            paths[joint, incoming[step]] = 1
            step = skeleton.parents[step]
    return paths


def fitting_scale(source: Tensor, target: Tensor, weights: Tensor, skeleton: Skeleton) -> Tensor:
    """(B,): the factor of the target that best fits its bone lengths to the source's."""
    parent, child = skeleton.bones.T.tolist()
    share = torch.minimum(weights[:, parent], weights[:, child])

    def lengths(joints: Tensor) -> Tensor:
        squares = (joints[:, parent] - joints[:, child]).square().sum(-1)
        long = squares >= SHORTEST_BONE_M**2
        return torch.where(long, torch.where(long, squares, 1).sqrt(), 0)

    l_src, l_tgt = lengths(source), lengths(target)
    numerator, denominator = (share * l_src * l_tgt).sum(1), (share * l_tgt * l_tgt).sum(1)
    known = numerator * denominator > 0
    return torch.where(known, numerator, 1) / torch.where(known, denominator, 1)


def torso_rotation(source: Tensor, target: Tensor, weights: Tensor, torso: Sequence[int]) -> Tensor:
    """(B, 3, 3): the rotation of the rigid fit of the joints `torso` of the source to the target.

    A joint that counts less than 1 is pulled back to the source by the rest.
    """
    w = weights[:, torso, None]
    s, t = source[:, torso], target[:, torso]

    def about_mean(points: Tensor) -> Tensor:
        return points - (w * points).sum(1, keepdim=True) / w.sum(1, keepdim=True).clamp(min=1e-9)

    centred = s - s.mean(1, keepdim=True)
    M = about_mean(t).mT @ (w * about_mean(s)) + centred.mT @ ((1 - w) * centred)
    return nearest_rotation(M)


def nearest_rotation(M: Tensor) -> Tensor:
    """(B, 3, 3): the rotations R with the largest tr(R^T M).

    The gradient does not go through the SVD, which has none where singular values meet: with
    P = R^T M, a change dM turns R by the w that solves (tr(P) I - P) w = vee(R^T dM - dM^T R).
    """
    with torch.no_grad():
        U, _, Vh = torch.linalg.svd(M)
        proper = torch.linalg.det(U @ Vh).sign()
        R = torch.cat([U[..., :2], U[..., 2:] * proper[:, None, None]], -1) @ Vh
        P = R.mT @ M
        trace = P.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        inverse = torch.linalg.pinv(trace * _identity(M) - P)
    skew = R.mT @ M - M.mT @ R  # zero, but for its gradient
    vee = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1)
    return R @ (_identity(M) + cross_matrix((inverse @ vee[..., None])[..., 0]))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)


def _apply(rotations: Tensor, points: Tensor) -> Tensor:
    return (rotations @ points[..., None])[..., 0]
