"""Rotations; they keep the input's float type."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Rot6dLayout = Literal["interleaved", "columns"]

# Below this norm a direction is noise; a zero vector stays zero instead of becoming NaN.
_TINY = 1e-12


def rot6d_to_rotmat(rot6d: Array, layout: Rot6dLayout = "interleaved") -> Array:
    """Rotation matrices (..., 3, 3) from the first two columns of each, made orthonormal.

    rot6d: (..., 6), Zhou et al. 2019, "On the Continuity of Rotation Representations". Networks lay
    the two columns out in two ways, and the wrong one gives a valid but different rotation:
    `interleaved` is `R[:, :2]` row by row (HMR in SPIN, VIBE and the own generator), `columns` one
    column after the other (HMR2).
    """
    if rot6d.shape[-1:] != (6,):
        raise ValueError(f"rot6d is {rot6d.shape}; expected (..., 6)")
    if layout == "interleaved":
        a1, a2 = rot6d[..., 0::2], rot6d[..., 1::2]
    elif layout == "columns":
        a1, a2 = rot6d[..., :3], rot6d[..., 3:]
    else:
        raise ValueError(f"layout is {layout!r}; expected 'interleaved' or 'columns'")
    rotmat = np.empty((*rot6d.shape[:-1], 3, 3), rot6d.dtype)
    b1, b2, b3 = (rotmat[..., i] for i in range(3))
    b1[...] = _normalised(a1)
    b2[...] = _normalised(a2 - (b1 * a2).sum(-1, keepdims=True) * b1)
    # np.cross, at a third of its time for few rotations
    b3[...] = b1[..., [1, 2, 0]] * b2[..., [2, 0, 1]] - b1[..., [2, 0, 1]] * b2[..., [1, 2, 0]]
    return rotmat


def rotmat_to_rot6d(rotmat: Array, layout: Rot6dLayout = "interleaved") -> Array:
    """The first two columns (..., 6) of rotation matrices (..., 3, 3); see `rot6d_to_rotmat`."""
    columns = rotmat[..., :2] if layout == "interleaved" else rotmat[..., :2].swapaxes(-1, -2)
    return columns.reshape(*rotmat.shape[:-2], 6)


def rotvec_to_rotmat(rotvec: Array) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), axis times angle in radians.

    Rodrigues' formula, exact at zero: I + sinc(a) [r] + sinc(a/2)^2 / 2 [r]^2 with a = |r|.
    """
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    skew = _skew(rotvec)
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    rotmat = np.eye(3) + first * skew + second * (skew @ skew)
    return rotmat.astype(rotvec.dtype, copy=False)


def rotmat_to_rotvec(rotmat: Array) -> Array:
    """Rotation vectors (..., 3), angle in 0..pi, of rotation matrices (..., 3, 3).

    By way of the unit quaternion read from its largest component, so that angles near 0 and near pi
    are as exact as any other.
    """
    m = rotmat.astype(np.float64)
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    trace = diagonal.sum(-1, keepdims=True)
    # Four times q q^T; each row is the quaternion (w, x, y, z) times one of its components.
    outer = np.empty((*m.shape[:-2], 4, 4))
    outer[..., 0, 0] = 1 + trace[..., 0]
    outer[..., 0, 1:] = outer[..., 1:, 0] = np.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        axis=-1,
    )
    outer[..., 1:, 1:] = m + m.swapaxes(-1, -2)
    index = np.arange(1, 4)
    outer[..., index, index] = 1 + 2 * diagonal - trace
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    quaternion = np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion = _normalised(quaternion)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    # angle / sine tends to 2 as the rotation vanishes
    scale = np.where(sine > _TINY, angle / np.maximum(sine, _TINY), 2.0)
    return (scale * quaternion[..., 1:]).astype(rotmat.dtype, copy=False)


def _normalised(vectors: Array) -> Array:
    norm = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.maximum(norm, _TINY)


def _skew(v: Array) -> Array:
    """[v] (..., 3, 3), so that [v] w = v x w."""
    zero = np.zeros_like(v[..., 0])
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*v.shape, 3)
