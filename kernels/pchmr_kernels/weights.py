"""Which bones a vertex follows: row-sparse weights, and first weights from a body's skinning.

A (V, K), rows on the simplex, and W (V, K) in 0..1 are the paper's (Eq. 12-13); W is 0 at a bone's
parent and 1 at its child. A row needs four bones or so: the kernels read A and A * W by rows.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference
from .skeletons import Skeleton

Array = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]

MOST_BONES = 8  # a vertex, in the kernels


class WeightsStruct(ctypes.Structure):
    """pchmr_weights of native/pchmr_kernels.h."""

    _fields_ = (
        ("vertices", ctypes.c_int64),
        ("slots", ctypes.c_int32),
        ("indices", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
    )


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """A and A * W by rows; a row with fewer than S bones is padded with bone 0 and zeros.

    indices: (V, S) int32 bones; values: (V, S) float32, A; offsets: (V, S) float32, A * W.
    """

    indices: npt.NDArray[np.int32]
    values: Float32
    offsets: Float32

    def __post_init__(self) -> None:
        for name, dtype in (("indices", np.int32), ("values", np.float32), ("offsets", np.float32)):
            array = getattr(self, name)
            if array.ndim != 2 or array.shape != self.indices.shape or array.dtype != dtype:
                raise ValueError(
                    f"{name} are {array.dtype} {array.shape}; expected {np.dtype(dtype)} (V, S), "
                    f"here {self.indices.shape}"
                )
            object.__setattr__(self, name, np.ascontiguousarray(array))
        if not 1 <= self.indices.shape[1] <= MOST_BONES:
            raise ValueError(f"{self.indices.shape[1]} bones a vertex; expected 1 to {MOST_BONES}")
        if self.indices.size and self.indices.min() < 0:
            raise ValueError(f"indices go down to {self.indices.min()}; bones count from 0")

    @cached_property
    def bones_needed(self) -> int:
        """One more than the highest bone index."""
        return int(self.indices.max(initial=-1)) + 1

    @cached_property
    def as_c(self) -> WeightsStruct:
        """What the native library reads; valid as long as this object lives."""
        arrays = (self.indices, self.values, self.offsets)
        return WeightsStruct(*self.indices.shape, *(array.ctypes.data for array in arrays))

    def to_dense(self, bones: int) -> tuple[Float32, Float32]:
        """A and A * W, each (V, bones) float32."""
        A, AW = np.zeros((2, len(self.indices), bones), np.float32)
        rows = np.arange(len(self.indices))[:, None]
        np.add.at(A, (rows, self.indices), self.values)
        np.add.at(AW, (rows, self.indices), self.offsets)
        return A, AW


def from_dense(A: Array, W: Array | None = None, max_per_vertex: int = 4) -> SparseWeights:
    """The largest `max_per_vertex` (1 to 8) entries of each row of A, on the simplex again.

    Without W: skinning weights, whose offsets are zero. `pruning_cost_mm` tells what was lost.
    Raises: ValueError for shapes that differ, rows off the simplex, W outside 0..1.
    """
    A = np.asarray(A, np.float64)
    W = np.zeros_like(A) if W is None else np.asarray(W, np.float64)
    if A.ndim != 2 or A.shape != W.shape:
        raise ValueError(f"A is {A.shape}, W is {W.shape}; expected both (V, K)")
    if not (A.min(initial=0) >= 0 and np.abs(A.sum(1) - 1).max(initial=0) < 1e-2):
        raise ValueError("rows of A must be non-negative and sum to 1: divide each by its sum")
    if not (W.min(initial=0) >= 0 and W.max(initial=0) <= 1):
        raise ValueError(f"W goes from {W.min()} to {W.max()}; expected 0..1: clip it")
    if not 1 <= max_per_vertex <= MOST_BONES:
        raise ValueError(f"max_per_vertex is {max_per_vertex}; expected 1 to {MOST_BONES}")
    used = int((A > 0).sum(1).max(initial=1))
    indices = np.argsort(-A, axis=1, kind="stable")[:, : min(used, max_per_vertex)]
    values = np.take_along_axis(A, indices, 1)
    values /= values.sum(1, keepdims=True)
    offsets = values * np.take_along_axis(W, indices, 1)
    indices = np.where(values > 0, indices, 0)
    return SparseWeights(
        indices.astype(np.int32), values.astype(np.float32), offsets.astype(np.float32)
    )


def pruning_cost_mm(
    A: Array,
    W: Array,
    weights: SparseWeights,
    vertices: Array,
    source: Array,
    target: Array,
    bones: npt.NDArray[np.integer[Any]],
) -> npt.NDArray[np.float64]:
    """(B, V): by how many mm `weights` move each calibrated vertex away from the dense A, W.

    vertices: (B, V, 3); source, target: (B, J, 3) root-aligned, all in metres.
    """
    psi, t, delta = reference.bone_transforms(source, target, bones)
    A_kept, AW_kept = weights.to_dense(len(bones))
    W_kept = np.divide(AW_kept, A_kept, out=np.zeros_like(AW_kept), where=A_kept > 0)
    dense = reference.blend(vertices, psi, t, delta, A, W)
    sparse = reference.blend(vertices, psi, t, delta, A_kept, W_kept)
    return 1000 * np.sqrt(((dense - sparse) ** 2).sum(-1))


def initial_weights(
    rest_vertices: Array,
    rest_joints: Array,
    lbs_weights: Array,
    skinning: Skeleton,
    skeleton: Skeleton,
) -> tuple[Float32, Float32]:
    """A and W, each (V, K) float32, for the bones of `skeleton` from a body's skinning weights.

    A vertex's weight on a skinning joint goes to the bones that joint moves (`bones_of`), shared by
    1 / d^4 of its distances d to them at rest. W is its projection on the bone, cut to 0..1.

    Args:
        rest_vertices: (V, 3); rest_joints: (J, 3) of `skeleton`, regressed from them.
        lbs_weights: (V, J') on the joints of `skinning`, rows on the simplex.
    Raises: ValueError for shapes that do not fit, or a skinning joint that moves no bone.
    """
    rest_vertices, rest_joints = (np.asarray(x, np.float64) for x in (rest_vertices, rest_joints))
    expected = ((len(rest_vertices), 3), (len(skeleton), 3), (len(rest_vertices), len(skinning)))
    shapes = (rest_vertices.shape, rest_joints.shape, lbs_weights.shape)
    if shapes != expected:
        raise ValueError(
            f"vertices, joints and lbs_weights are {shapes}; expected {expected} "
            f"for skinning {skinning.name} and skeleton {skeleton.name}"
        )
    parent, child = rest_joints[skeleton.bones.T]
    along = child - parent
    length2 = np.maximum((along**2).sum(-1), reference.SHORTEST_BONE_M**2)
    from_parent = rest_vertices[:, None] - parent
    W = np.clip((from_parent * along).sum(-1) / length2, 0, 1)
    distance2 = ((from_parent - W[..., None] * along) ** 2).sum(-1)
    nearness = 1 / np.maximum(distance2, 1e-12) ** 2
    A = np.zeros_like(W)
    for j, joint in enumerate(skinning.joints):
        moved = bones_of(joint, skeleton)
        share = nearness[:, moved] / nearness[:, moved].sum(1, keepdims=True)
        A[:, moved] += lbs_weights[:, j, None] * share
    A /= A.sum(1, keepdims=True)
    return A.astype(np.float32), W.astype(np.float32)


def bones_of(joint: str, skeleton: Skeleton) -> list[int]:
    """Indices of the bones of `skeleton` that SMPL's skinning joint of that name moves.

    Those that start at its joint of the same name, else the one that ends there. Where it has none:
    toes and hands follow ankle and wrist, collars and spine the trunk's bones beside them.
    """
    pairs = [(skeleton.joints[p], skeleton.joints[c]) for p, c in skeleton.bones]
    if joint in skeleton.joints:
        outgoing = [k for k, pair in enumerate(pairs) if pair[0] == joint]
        return outgoing or [k for k, pair in enumerate(pairs) if pair[1] == joint]
    side, _, part = joint.rpartition("_")
    if part in _FOLLOWS:
        return bones_of(f"{side}_{_FOLLOWS[part]}", skeleton)
    upper = "thorax" if "thorax" in skeleton.joints else "neck"
    middle = "spine" if "spine" in skeleton.joints else "pelvis"
    wanted = {
        "spine1": [("pelvis", "spine" if middle == "spine" else upper)],
        "spine2": [(middle, upper)],
        "spine3": [(middle, upper), (upper, "left_shoulder"), (upper, "right_shoulder")],
        "neck": [(upper, "nose"), (upper, "head")],
        "head": [(upper, "nose")],
        "left_collar": [(upper, "left_shoulder")],
        "right_collar": [(upper, "right_shoulder")],
    }.get(joint, [])
    found = [k for k, pair in enumerate(pairs) if pair in wanted]
    if not found:
        raise ValueError(
            f"{skeleton.name} has no bone that the skinning joint {joint!r} moves: "
            "calibrate in one that has a pelvis, and a thorax or a neck"
        )
    return found


_FOLLOWS = {"foot": "ankle", "hand": "wrist"}
