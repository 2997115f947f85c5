"""The calibration of Luan et al. 2021 in NumPy and float64: the judge of every faster build.

Symbols are the paper's: Psi, T, Delta turn, move and stretch a bone of the mesh (source) onto the
bone of the target pose; A (V, K) says how much of vertex j follows bone i, W (V, K) how far along
the bone it lies. B batch, V vertices, J joints, K bones. Metres, any right-handed frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Bones = npt.NDArray[np.integer[Any]]
Pairs = Sequence[tuple[int, int]]

SHORTEST_BONE_M = 1e-9  # a shorter bone has no direction
THRESHOLDS = (0.2, 0.5)  # of confidence: a joint counts nothing below and fully above


def calibrate(
    vertices: Array,
    source: Array,
    target: Array,
    bones: Bones,
    A: Array,
    W: Array,
    root: int = 0,
    prealign: str = "none",
    scale: str = "none",
    torso: Sequence[int] = (),
    axes: Pairs = (),
    confidence: Array | None = None,
    thresholds: tuple[float, float] = THRESHOLDS,
    alpha: Array | None = None,
) -> Float64:
    """The mesh bent onto the target pose, its root where the mesh has it: (B, V, 3) float64.

    Args:
        vertices: (B, V, 3), the generator's mesh.
        source: (B, J, 3), regressed from that mesh; target: (B, J, 3), NaN where missing.
        bones: (K, 2) parent and child of each bone.
        A: (V, K), rows on the simplex; W: (V, K) in 0..1.
        prealign: "torso" first turns mesh and source by the rigid fit of the joints `torso`.
        scale: "fit" first scales the target to the bone lengths of the source.
        axes: pairs of joints, see `bone_rotation`.
        confidence: (B, J) and thresholds: see `fade_targets`.
        alpha: (B, K) radians, self-rotation about the target bone.
    """
    vertices, source, target = (np.array(x, np.float64) for x in (vertices, source, target))
    origin = source[:, root, None]
    weights = joint_weights(target, confidence, thresholds)
    if prealign == "torso":
        R = torso_rotation(source, target, torso, weights)
        vertices, source = (
            np.einsum("bmn,bvn->bvm", R, x - origin) + origin for x in (vertices, source)
        )
    if scale == "fit":
        target = fitting_scale(source, target, bones, weights)[:, None, None] * target
    target = fade_targets(source, target, confidence, bones, root, axes, thresholds)
    psi, t, delta = bone_transforms(source, target, bones, axes, alpha)
    return blend(vertices, psi, t, delta, A, W)


def blend(vertices: Array, psi: Array, t: Array, delta: Array, A: Array, W: Array) -> Float64:
    """V_j = sum_i A_ji (Psi_i v_j + T_i + W_ji Delta_i), Eq. (12-13): (B, V, 3) float64."""
    moved = np.einsum("bkmn,bvn->bvkm", np.asarray(psi, np.float64), vertices) + t[:, None]
    moved += np.asarray(W, np.float64)[None, :, :, None] * delta[:, None]
    return np.einsum("vk,bvkm->bvm", np.asarray(A, np.float64), moved)


def bone_transforms(
    source: Array, target: Array, bones: Bones, axes: Pairs = (), alpha: Array | None = None
) -> tuple[Float64, Float64, Float64]:
    """Psi (B, K, 3, 3), T (B, K, 3) and Delta (B, K, 3) of each bone, Eq. (6-10), float64.

    source, target: (B, J, 3), root-aligned; axes: see `bone_rotation`; alpha: (B, K) radians.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    psi = np.empty((len(source), len(bones), 3, 3))
    t, delta = np.empty((2, len(source), len(bones), 3))
    for b in range(len(source)):
        across = [source[b, tip] - source[b, tail] for tip, tail in axes]
        for k, (parent, child) in enumerate(bones):
            b_src = source[b, parent] - source[b, child]
            b_tgt = target[b, parent] - target[b, child]
            psi[b, k] = bone_rotation(b_src, b_tgt, across)
            if alpha is not None and np.linalg.norm(b_tgt) >= SHORTEST_BONE_M:
                psi[b, k] = rotation(_unit(b_tgt), float(alpha[b, k])) @ psi[b, k]
            t[b, k] = target[b, parent] - psi[b, k] @ source[b, parent]  # Eq. (8)
            delta[b, k] = target[b, child] - (psi[b, k] @ source[b, child] + t[b, k])  # Eq. (9-10)
    return psi, t, delta


def bone_rotation(b_src: Float64, b_tgt: Float64, axes: Sequence[Float64] = ()) -> Float64:
    """Psi (3, 3), the smallest rotation of the direction of b_src (3,) onto b_tgt (3,), Eq. (6-7).

    Exactly antiparallel: a half turn about b_src x the first of `axes`, the body's own, that is not
    parallel to it (else the frame's). A bone without length: no rotation.
    """
    if min(np.linalg.norm(b_src), np.linalg.norm(b_tgt)) < SHORTEST_BONE_M:
        return np.eye(3)
    u, v = _unit(b_src), _unit(b_tgt)
    c, d = np.cross(u, v), u @ v
    if d < 0 and c @ c < 1e-20:
        return rotation(half_turn_axis(u, axes), np.pi)
    f = 1 / (1 + d) if d >= 0 else (1 - d) / (c @ c)  # 1 / (1 + d) loses everything near d = -1
    return np.eye(3) + _cross_matrix(c) + f * _cross_matrix(c) @ _cross_matrix(c)


def half_turn_axis(u: Float64, axes: Sequence[Float64] = ()) -> Float64:
    """(3,) unit vector square to the unit vector u (3,): u x the first of `axes` that serves."""
    for axis in (*axes, *np.eye(3)):
        if np.linalg.norm(axis) >= SHORTEST_BONE_M:
            square = np.cross(u, _unit(axis))
            if np.linalg.norm(square) >= 1e-3:
                return _unit(square)
    raise AssertionError("one of the frame's axes is square enough")


def rotation(axis: Float64, angle: float) -> Float64:
    """(3, 3), by `angle` radians about the unit vector `axis` (3,): Rodrigues, Eq. (7)."""
    K = _cross_matrix(axis)
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def root_align(source: Array, target: Array, root: int = 0) -> Float64:
    """The target (B, J, 3) moved so that its root is the source's."""
    shift: Float64 = (source - target)[:, root, None]
    return target + shift


def joint_weights(
    target: Array, confidence: Array | None = None, thresholds: tuple[float, float] = THRESHOLDS
) -> Float64:
    """(B, J) in 0..1: how far each target joint counts; 0 where it is not finite.

    Rises smoothly (3x^2 - 2x^3) from the lower threshold of `confidence` (B, J) to the upper one.
    """
    low, high = thresholds
    known = np.where(np.isfinite(target).all(-1), 1.0, 0.0)
    if confidence is None:
        return known
    x: Float64 = np.clip(
        (np.nan_to_num(np.asarray(confidence, np.float64)) - low) / (high - low), 0, 1
    )
    return known * x * x * (3 - 2 * x)


def fade_targets(
    source: Array,
    target: Array,
    confidence: Array | None,
    bones: Bones,
    root: int = 0,
    axes: Pairs = (),
    thresholds: tuple[float, float] = THRESHOLDS,
) -> Float64:
    """The root-aligned target with its untrusted bones faded back to the source's: (B, J, 3).

    A bone counts as far as the lesser of its two joints (`joint_weights`); its direction goes that
    share of the smallest rotation, its length that share of the difference. The skeleton is put
    together again from the root, so a missing joint never drags those beyond it. With every joint
    trusted this is `root_align`.

    Args:
        source: (B, J, 3); target: (B, J, 3), NaN where missing; confidence: (B, J) or None.
        bones: (K, 2), each joint the child of one bone at most, in any order.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weights = joint_weights(target, confidence, thresholds)
    target = np.where(weights[..., None] > 0, target, source)  # no NaN; its weight is 0
    # A joint that no bone ends in and that is not the root starts a chain of its own.
    start = (weights * weights[:, root, None])[..., None]
    faded = source + start * (root_align(source, target, root) - source)
    faded[:, root] = source[:, root]
    for k in bone_order(bones, root):
        parent, child = bones[k]
        for b in range(len(source)):
            share = float(min(weights[b, parent], weights[b, child]))
            across = [source[b, tip] - source[b, tail] for tip, tail in axes]
            b_src = source[b, parent] - source[b, child]
            b_tgt = target[b, parent] - target[b, child]
            faded[b, child] = faded[b, parent] - fade_bone(b_src, b_tgt, share, across)
    return faded


def fade_bone(
    b_src: Float64, b_tgt: Float64, share: float, axes: Sequence[Float64] = ()
) -> Float64:
    """(3,): from b_src (share 0) to b_tgt (share 1), angle and length apart."""
    length_src, length_tgt = np.linalg.norm(b_src), np.linalg.norm(b_tgt)
    if share in (0, 1) or min(length_src, length_tgt) < SHORTEST_BONE_M:
        return (1 - share) * b_src + share * b_tgt
    u, v = _unit(b_src), _unit(b_tgt)
    c = np.cross(u, v)
    angle = float(np.arctan2(np.linalg.norm(c), u @ v))
    axis = _unit(c) if c @ c >= 1e-20 else half_turn_axis(u, axes)
    return ((1 - share) * length_src + share * length_tgt) * (rotation(axis, share * angle) @ u)


def bone_order(bones: Bones, root: int = 0) -> list[int]:
    """Indices of `bones` (K, 2), each after the bone that its parent is the child of.

    Raises: ValueError where a joint is the child of two bones, or of one that leads back to it.
    """
    incoming = {int(child): k for k, (_, child) in enumerate(bones)}
    if len(incoming) != len(bones) or root in incoming:
        raise ValueError(
            f"bones {np.asarray(bones).tolist()} with root {root} are no tree: each joint may be "
            "the child of one bone at most, the root of none"
        )
    order: list[int] = []
    for k in range(len(bones)):
        path = []
        step: int | None = k
        while step is not None and step not in order:
            if step in path:
                raise ValueError(f"bones {np.asarray(bones).tolist()} contain a cycle")
            path.append(step)
            step = incoming.get(int(bones[step][0]))
        order += reversed(path)
    return order


def fitting_scale(source: Array, target: Array, bones: Bones, weights: Array) -> Float64:
    """(B,): the factor of the target that best fits its bone lengths to the source's.

    Least squares over the bones, each counting as the lesser weight of its two joints.
    """
    parent, child = np.asarray(bones).T
    share = np.minimum(weights[:, parent], weights[:, child])
    target = np.where(weights[..., None] > 0, target, 0)
    l_src = np.linalg.norm(source[:, parent] - source[:, child], axis=-1)
    l_tgt = np.linalg.norm(target[:, parent] - target[:, child], axis=-1)
    numerator, denominator = (share * l_src * l_tgt).sum(1), (share * l_tgt * l_tgt).sum(1)
    known = numerator * denominator > 0
    return np.where(known, numerator, 1) / np.where(known, denominator, 1)


def torso_rotation(source: Array, target: Array, torso: Sequence[int], weights: Array) -> Float64:
    """(B, 3, 3): the rotation of the rigid fit of the joints `torso` of the source to the target.

    A joint that counts less than 1 (`weights`, (B, J)) is pulled back to the source by the rest, so
    that a torso nobody saw is not turned at all.
    """
    R = np.empty((len(source), 3, 3))
    for b in range(len(source)):
        w = weights[b, torso, None]
        s, t = source[b, torso], np.where(w > 0, target[b, torso], 0)
        H = ((1 - w) * (s - s.mean(0))).T @ (s - s.mean(0))
        if w.sum() > 0:
            s_mean, t_mean = (w * s).sum(0) / w.sum(), (w * t).sum(0) / w.sum()
            H += (w * (s - s_mean)).T @ (t - t_mean)
        U, _, Vt = np.linalg.svd(H)
        proper = np.diag([1, 1, np.sign(np.linalg.det(Vt.T @ U.T))])
        R[b] = Vt.T @ proper @ U.T
    return R


def joint_tables(U: Array, lbs_weights: Array, basis: Array) -> Float64:
    """C (N, J, K, 4) with C_nmk = sum_v U_mv w_vk [basis_nv; 1 where n is 0, else 0].

    What `pose_joints` needs of a body: mesh-to-pose contracted with skinning ahead of time.

    U: (J, V), joints from the posed mesh; lbs_weights: (V, K) w. basis: (N, V, 3), the template,
    then the shape and pose blend shapes.
    """
    basis = np.asarray(basis, np.float64)
    homogeneous = np.zeros((*basis.shape[:2], 4))
    homogeneous[..., :3] = basis
    homogeneous[0, :, 3] = 1
    U, w = np.asarray(U, np.float64), np.asarray(lbs_weights, np.float64)
    return np.stack([np.einsum("mv,vk,vh->mkh", U, w, one, optimize=True) for one in homogeneous])


def pose_joints(tables: Array, coefficients: Array, transforms: Array) -> Float64:
    """J_m = sum_k G_k sum_n c_n C_nmk: joints U M of the skinned mesh M, never made: (B, J, 3).

    tables: (N, J, K, 4), see `joint_tables`; coefficients: (B, N) c of the basis, the first 1;
    transforms: (B, K, 3, 4) G, of the skinning.
    """
    contracted = np.einsum("bn,nmkh->bmkh", np.asarray(coefficients, np.float64), tables)
    return np.einsum("bkrh,bmkh->bmr", np.asarray(transforms, np.float64), contracted)


def _unit(v: Float64) -> Float64:
    return v / np.linalg.norm(v)


def _cross_matrix(c: Float64) -> Float64:
    return np.array([[0, -c[2], c[1]], [c[2], 0, -c[0]], [-c[1], c[0], 0]])
