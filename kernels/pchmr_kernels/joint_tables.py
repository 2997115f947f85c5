"""Joints of a skinned mesh without the mesh: mesh-to-pose contracted with skinning ahead of time.

A body's joints in a skeleton are U M, regressed from the posed mesh M. They follow from the bone
transforms alone (`reference.joint_tables`), so the target pose can be had before any mesh.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference

Array = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class JointTablesStruct(ctypes.Structure):
    """pchmr_joint_tables of native/pchmr_cuda.h."""

    _fields_ = (
        ("terms", ctypes.c_int32),
        ("pairs", ctypes.c_int32),
        ("first", ctypes.c_void_p),
        ("bones", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


@dataclass(frozen=True, eq=False)
class JointTables:
    """C of `reference.joint_tables` by pairs of joint and bone, those of zeros left out.

    first: (J + 1) int32, where the pairs of each joint start; bones: (P) int32, of each pair;
    values: (N, P, 4) float32, N terms: the template, then the shape and pose blend shapes.
    """

    first: npt.NDArray[np.int32]
    bones: npt.NDArray[np.int32]
    values: Float32

    @property
    def joints(self) -> int:
        return len(self.first) - 1

    @property
    def terms(self) -> int:
        return len(self.values)

    def __call__(self, coefficients: Array, transforms: Array) -> Float64:
        """(B, J, 3): see `reference.pose_joints`, whose arguments these are."""
        dense = np.zeros((self.terms, self.joints, transforms.shape[1], 4))
        joints = np.repeat(np.arange(self.joints), np.diff(self.first))
        dense[:, joints, self.bones] = self.values
        return reference.pose_joints(dense, coefficients, transforms)


def joint_tables(regressor: Array, lbs_weights: Array, basis: Array) -> JointTables:
    """The tables of a body, contracted in float64.

    Args:
        regressor: (J, V), joints from the posed mesh.
        lbs_weights: (V, K), the very ones that skin the mesh: pruned where those are.
        basis: (N, V, 3) the template, shape blend shapes and pose blend shapes.
    Raises: ValueError for shapes that do not fit.
    """
    V = regressor.shape[-1]
    if regressor.ndim != 2 or lbs_weights.shape[:1] != (V,) or basis.shape[1:] != (V, 3):
        raise ValueError(
            f"regressor is {regressor.shape}, lbs_weights {lbs_weights.shape}, basis "
            f"{basis.shape}; expected (J, V), (V, K) and (N, V, 3)"
        )
    C = reference.joint_tables(regressor, lbs_weights, basis)
    joints, bones = np.nonzero(C.any(axis=(0, 3)))
    first = np.searchsorted(joints, np.arange(len(regressor) + 1))
    values = np.ascontiguousarray(C[:, joints, bones], np.float32)
    return JointTables(first.astype(np.int32), bones.astype(np.int32), values)
