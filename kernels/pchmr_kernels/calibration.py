"""The calibration as a callable: bone transforms in float64, blend in float32 about the root."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import native, reference
from .skeletons import Skeleton
from .weights import SparseWeights

Array = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class BonesStruct(ctypes.Structure):
    """pchmr_bones."""

    _fields_ = (
        ("joints", ctypes.c_int32),
        ("bones", ctypes.c_int32),
        ("pairs", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("root", ctypes.c_int32),
        ("n_axes", ctypes.c_int32),
        ("axes", ctypes.c_void_p),
        ("n_torso", ctypes.c_int32),
        ("torso", ctypes.c_void_p),
        ("fit_scale", ctypes.c_int32),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
    )


class Calibrator:
    """Bends a mesh onto a target pose (Eq. 5): `reference.calibrate`, natively and in float32.

    Within 1e-5 m of the float64 reference at any distance from the camera: vertices are blended
    about the root of the source. Holds no state between calls; one may serve several threads.

    Args:
        skeleton: of the source and target joints. Or (K, 2) bones, parent and child, with
            `root`, `torso`, `axes` and `joints` (their number) given beside them.
        weights: of the skeleton's bones.
        prealign: "none" (the paper) or "torso": turn the whole mesh first by the rigid fit of the
            torso, since smallest rotations cannot see a bone's twist.
        scale: "none" (the paper) or "fit": scale the target first to the source's bone lengths.
        thresholds: of confidence, see `reference.joint_weights`.
    Raises: ValueError for an unknown option, bones that are no tree or weights of other bones.
    """

    def __init__(
        self,
        skeleton: Skeleton | npt.NDArray[np.integer[Any]],
        weights: SparseWeights,
        prealign: str = "none",
        scale: str = "none",
        thresholds: tuple[float, float] = reference.THRESHOLDS,
        root: int = 0,
        torso: Sequence[int] = (),
        axes: Sequence[tuple[int, int]] = (),
        joints: int | None = None,
    ) -> None:
        if isinstance(skeleton, Skeleton):
            bones, root, joints = skeleton.bones, skeleton.root, len(skeleton)
            torso, axes = skeleton.torso, skeleton.body_axes
        else:
            bones = np.asarray(skeleton)
            joints = int(bones.max(initial=root)) + 1 if joints is None else joints
        if prealign not in ("none", "torso") or scale not in ("none", "fit"):
            raise ValueError(
                f"prealign is {prealign!r}, scale is {scale!r}; expected 'none' or 'torso', "
                "'none' or 'fit'"
            )
        if prealign == "torso" and len(torso) < 3:
            raise ValueError(f"prealign='torso' fits at least 3 joints; torso is {list(torso)}")
        if weights.bones_needed > len(bones):
            raise ValueError(f"weights name {weights.bones_needed} bones; there are {len(bones)}")
        if not 0 <= thresholds[0] < thresholds[1]:
            raise ValueError(f"thresholds are {thresholds}; expected 0 <= low < high")
        self.weights, self.joints, self.bones = weights, joints, len(bones)
        order = reference.bone_order(bones, root)
        used = torso if prealign == "torso" else ()
        self._arrays = [np.array(x, np.int32) for x in (bones, order, list(axes), list(used))]
        pairs, ordered, spanned, fitted = (array.ctypes.data for array in self._arrays)
        self._bones = BonesStruct(
            *(joints, len(bones), pairs, ordered, root, len(axes), spanned, len(used), fitted),
            *(scale == "fit", *thresholds),
        )
        self._library = native.library()

    def __call__(
        self,
        vertices: Float32,
        source: Array,
        target: Array,
        confidence: Array | None = None,
        alpha: Array | None = None,
        out: Float32 | None = None,
        threads: int = 1,
    ) -> Float32:
        """The calibrated mesh, its root where the source's is: (B, V, 3) float32, metres.

        Args:
            vertices: (B, V, 3) float32; source, target: (B, J, 3), the target NaN where missing.
            confidence: (B, J) of the target joints: those of low confidence fade out.
            alpha: (B, K) radians of self-rotation about the target bones.
            out: (B, V, 3) float32, C-contiguous, to write to; may be `vertices` itself.
        Raises: TypeError where vertices are not float32, ValueError for another shape.
        """
        batch = len(vertices)
        vertices = native.as_float32("vertices", vertices, (batch, len(self.weights.indices), 3))
        out = native.as_output(out, vertices.shape)
        pose = self._pose(batch, source, target, confidence, alpha)
        failed = self._library.pchmr_calibrate_f32(
            *(ctypes.byref(self._bones), ctypes.byref(self.weights.as_c), batch),
            *map(native.address, (vertices, *pose, out)),
            threads,
        )
        native.check(self._library, failed)
        return out

    def arguments(
        self, vertices: Float32, source: Float64, target: Float64, confidence: Float64, out: Float32
    ) -> tuple[Any, ...]:
        """Of `pchmr_calibrate_f32`, for a program.

        Raises: ValueError for arrays that do not fit.
        """
        batch, joints = len(vertices), self.joints
        mesh, points = (batch, len(self.weights.indices), 3), (batch, joints, 3)
        vertices = native.as_it_is("vertices", vertices, mesh, "float32")
        pose = (
            native.as_it_is("source", source, points, "float64"),
            native.as_it_is("target", target, points, "float64"),
            native.as_it_is("confidence", confidence, points[:2], "float64"),
        )
        out = native.as_it_is("out", out, mesh, "float32")
        return self._bones, self.weights.as_c, batch, vertices, *pose, None, out, 1

    def bone_transforms(
        self,
        source: Array,
        target: Array,
        confidence: Array | None = None,
        alpha: Array | None = None,
    ) -> tuple[Float64, Float64, Float64]:
        """Psi | T (B, K, 3, 4), Delta (B, K, 3) and the centre (B, 3) they are about, float64.

        The pre-alignment is folded into Psi and T: v -> Psi (v - centre) + T + W Delta + centre.
        """
        batch = len(source)
        transforms, delta = np.empty((batch, self.bones, 3, 4)), np.empty((batch, self.bones, 3))
        centre = np.empty((batch, 3))
        pose = self._pose(batch, source, target, confidence, alpha)
        failed = self._library.pchmr_bone_transforms_f64(
            *(ctypes.byref(self._bones), batch, *map(native.address, pose)),
            *map(native.address, (transforms, delta, centre)),
        )
        native.check(self._library, failed)
        return transforms, delta, centre

    def _pose(
        self,
        batch: int,
        source: Array,
        target: Array,
        confidence: Array | None,
        alpha: Array | None,
    ) -> tuple[Float64 | None, ...]:
        return (
            _float64("source", source, (batch, self.joints, 3)),
            _float64("target", target, (batch, self.joints, 3)),
            _float64("confidence", confidence, (batch, self.joints)),
            _float64("alpha", alpha, (batch, self.bones)),
        )


def _float64(name: str, array: Array | None, shape: tuple[int, ...]) -> Float64 | None:
    if array is not None and array.shape != shape:
        raise ValueError(f"{name} is {array.shape}; expected {shape}")
    return None if array is None else np.ascontiguousarray(array, np.float64)
