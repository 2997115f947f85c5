"""The forward pass of a body and the joints of its mesh, by the native library."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, as_float32, as_float64, as_it_is, as_output, check, library
from .weights import SparseWeights

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
GROUP = 16  # PCHMR_GROUP of native/pchmr_kernels.h


class Joints:
    """Poses the joints of a body: what its mesh is skinned with.

    parents: (J,), each before its children, -1 at the root, which its rotation turns in place.
    rest: (1 + S, J, 3), joints of the template, then what each shape moves them by. pose_blends:
    whether there are pose blend shapes, 9 (J - 1) terms after those of shape.

    Raises: ValueError for a joint before its parent.
    """

    def __init__(self, parents: Array, rest: Array, pose_blends: bool) -> None:
        self._parents = np.ascontiguousarray(parents, np.int32)
        self._rest = np.ascontiguousarray(rest, np.float64)
        self.shapes, self.joints = len(rest) - 1, len(parents)
        self.terms = 1 + self.shapes + (9 * (self.joints - 1) if pose_blends else 0)
        if (self._parents >= np.arange(self.joints)).any():
            raise ValueError(
                f"parents are {self._parents.tolist()}; expected each before its children"
            )
        self._function = functions().pchmr_pose_body_f64
        self._constants = self.joints, self.shapes, self.terms
        self._addresses = address(self._parents), address(self._rest)

    def arguments(self, rotmats: Float64, betas: Float64, *out: Array) -> tuple[Any, ...]:
        """Of `pchmr_pose_body_f64`, for a program; out: transforms, coefficients and joints.

        Raises: ValueError for arrays that do not fit.
        """
        B, J = len(rotmats), self.joints
        given = (
            as_it_is("rotmats", rotmats, (B, J, 3, 3), "float64"),
            as_it_is("betas", betas, (B, self.shapes), "float64"),
        )
        return B, *self._constants, self._parents, self._rest, *given, None, *out

    def __call__(
        self, rotmats: Array, betas: Array, transl: Array | None = None
    ) -> tuple[Float32, Float32, Float64]:
        """Transforms (B, J, 3, 4) and coefficients (B, terms) for `skin`, and joints (B, J, 3).

        rotmats: (B, J, 3, 3), each joint's rotation to its parent. betas: (B, S). transl: (B, 3).

        Raises: ValueError for shapes that do not fit.
        """
        B, J = len(rotmats), self.joints
        rotmats = as_float64("rotmats", rotmats, (B, J, 3, 3))
        betas = as_float64("betas", betas, (B, self.shapes))
        transl = None if transl is None else as_float64("transl", transl, (B, 3))
        transforms = np.empty((B, J, 3, 4), np.float32)
        coefficients = np.empty((B, self.terms), np.float32)
        joints = np.empty((B, J, 3))
        self._function(
            *(B, *self._constants, *self._addresses),
            *(address(rotmats), address(betas), address(transl)),
            *(address(transforms), address(coefficients), address(joints)),
        )
        return transforms, coefficients, joints


def pack_basis(basis: Array) -> Float32:
    """Blend shapes (N, V, 3) as `skin` reads them: (G, N, GROUP) float32, zeros after the last."""
    terms = len(basis)
    flat = basis.reshape(terms, -1)
    groups = -(-flat.shape[1] // GROUP)
    packed = np.zeros((terms, groups * GROUP), np.float32)
    packed[:, : flat.shape[1]] = flat
    return np.ascontiguousarray(packed.reshape(terms, groups, GROUP).swapaxes(0, 1))


def skin(
    coefficients: Float32,
    basis: Float32,
    transforms: Float32,
    weights: SparseWeights,
    out: Float32 | None = None,
    threads: int = 1,
) -> Float32:
    """`native.blend` of the shaped mesh, the sum of coefficients times basis: (B, V, 3) float32.

    Args:
        coefficients: (B, N) float32.
        basis: of `pack_basis`: the template, shape and pose blend shapes.
        transforms: (B, K, 3, 4) float32, R beside t.
        out, threads: as `native.blend`.
    Raises: TypeError for another dtype, ValueError for another shape.
    """
    batch, terms, bones = len(coefficients), basis.shape[1], transforms.shape[1]
    count = len(weights.indices)
    coefficients = as_float32("coefficients", coefficients, (batch, terms))
    basis = as_float32("basis", basis, (-(-3 * count // GROUP), terms, GROUP))
    transforms = as_float32("transforms", transforms, (batch, bones, 3, 4))
    if bones < weights.bones_needed:
        raise ValueError(f"transforms are of {bones} bones; weights name {weights.bones_needed}")
    out = as_output(out, (batch, count, 3))
    loaded = functions()
    failed = loaded.pchmr_skin_f32(
        *(ctypes.byref(weights.as_c), batch, bones, terms, address(coefficients), address(basis)),
        *(address(transforms), address(out), threads),
    )
    check(loaded, failed)
    return out


class Regressor:
    """Joints of a mesh as sums over its vertices. matrix: (J, V), mostly zeros."""

    def __init__(self, matrix: Array) -> None:
        joints, vertices = np.nonzero(matrix)
        self._shape = matrix.shape
        self._starts = np.searchsorted(joints, np.arange(len(matrix) + 1)).astype(np.int32)
        self._indices = vertices.astype(np.int32)
        self._values = np.ascontiguousarray(matrix[joints, vertices], np.float32)
        self._function = functions().pchmr_regress_f32
        self._arrays = self._starts, self._indices, self._values
        self._addresses = tuple(map(address, self._arrays))

    def arguments(self, vertices: Float32, out: Float32) -> tuple[Any, ...]:
        """Of `pchmr_regress_f32`, for a program. Raises: ValueError for arrays that do not fit."""
        joints, count = self._shape
        batch = len(vertices)
        vertices = as_it_is("vertices", vertices, (batch, count, 3), "float32")
        out = as_it_is("out", out, (batch, joints, 3), "float32")
        return batch, count, vertices, joints, *self._arrays, out

    def __call__(self, vertices: Float32) -> Float32:
        """(B, J, 3) float32 of vertices (B, V, 3). Raises: TypeError, ValueError."""
        joints, count = self._shape
        batch = len(vertices)
        vertices = as_float32("vertices", vertices, (batch, count, 3))
        out = np.empty((batch, joints, 3), np.float32)
        self._function(batch, count, address(vertices), joints, *self._addresses, address(out))
        return out


@cache
def functions() -> ctypes.CDLL:
    """The library, its functions of this module declared."""
    loaded = library()
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    loaded.pchmr_pose_body_f64.argtypes = (int64, *[int32] * 3, *[pointer] * 8)
    loaded.pchmr_pose_body_f64.restype = None
    loaded.pchmr_regress_f32.argtypes = (int64, int64, pointer, int32, *[pointer] * 4)
    loaded.pchmr_regress_f32.restype = None
    loaded.pchmr_skin_f32.argtypes = (pointer, int64, int32, int32, *[pointer] * 4, int32)
    return loaded
