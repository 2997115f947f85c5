"""Geometry of people between the networks, by the native library."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, as_float32, library

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
NEAREST_M = 0.3  # as native/geometry.h has it
"""A body closer than this to the lens cannot be seen whole: the fit of its place has failed."""

Lens = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels; pixel (0, 0) is the centre of the first."""


def forward_kinematics(
    rotmats: Array, rest_joints: Array, parents: Array
) -> tuple[Float64, Float64]:
    """Skinning transforms (B, J, 3, 4), which take a joint's rest position and what hangs on it to
    the posed one, and posed joints (B, J, 3).

    rotmats: (B, J, 3, 3), each joint's rotation to its parent; rest_joints: (B, J, 3); parents:
    (J,), each before its children, -1 at the root, which stays where it is.

    Raises: ValueError for shapes that do not fit, or a joint before its parent.
    """
    batch, joints = len(rotmats), len(parents)
    turns = _float64("rotmats", rotmats, (batch, joints, 3, 3))
    rest = _float64("rest_joints", rest_joints, (batch, joints, 3))
    order = np.ascontiguousarray(parents, np.int32)
    if (order >= np.arange(joints)).any():
        raise ValueError(f"parents are {order.tolist()}; expected each before its children")
    transforms, posed = np.empty((batch, joints, 3, 4)), np.empty((batch, joints, 3))
    _library().pchmr_forward_kinematics_f64(
        *(batch, joints, address(order), address(turns), address(rest)),
        *(address(transforms), address(posed)),
    )
    return transforms, posed


def solve_translation(
    points: Array, keypoints_2d: Array, lens: Lens
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """The translation that puts 3D points onto their image points, by weighted least squares.

    points: (B, N, 3) metres, rotated as in the camera frame, about any origin. keypoints_2d:
    (B, N, 3): x px, y px, weight 0..1. Returns t (B, 3) metres and ok (B,), False where the fit
    failed; t is then a guess at the nearest depth allowed, NEAREST_M.

    Raises: ValueError for shapes that do not fit.
    """
    batch, count = points.shape[:2]
    xyz = _float64("points", points, (batch, count, 3))
    seen = _float64("keypoints_2d", keypoints_2d, (batch, count, 3))
    translation, placed = np.empty((batch, 3)), np.empty(batch, np.bool_)
    _library().pchmr_solve_translation_f64(
        *((ctypes.c_double * 4)(*lens), batch, count, address(xyz), address(seen)),
        *(address(translation), address(placed)),
    )
    return translation, placed


def points_to_crop(points_px: Array, rotation: Array, size_px: Array, lens: Lens) -> Float32:
    """Image points as the crop's own camera sees them, in units of half the crop's size.

    points_px: (B, N, 2) pixels, full frame. rotation: (B, 3, 3), the crop's camera to the full one.
    size_px: (B,) side of the square crop. Returns (B, N, 2) float32, about -1..1 inside the crop.

    Raises: ValueError for shapes that do not fit.
    """
    batch, count = points_px.shape[:2]
    pixels = _float64("points_px", points_px, (batch, count, 2))
    turn = _float64("rotation", rotation, (batch, 3, 3))
    side = _float64("size_px", size_px, (batch,))
    out = np.empty((batch, count, 2), np.float32)
    _library().pchmr_points_to_crop_f64(
        *((ctypes.c_double * 4)(*lens), batch, count, address(pixels), address(turn)),
        *(address(side), address(out)),
    )
    return out


def translate(points: Float32, shift: Float32) -> Float32:
    """Points (B, N, 3) moved by shift (B, 3), float32; NumPy takes ten times as long.

    Raises: TypeError for another dtype, ValueError for another shape.
    """
    batch, count = points.shape[:2]
    points = as_float32("points", points, (batch, count, 3))
    shift = as_float32("shift", shift, (batch, 3))
    out = np.empty_like(points)
    _library().pchmr_translate_f32(batch, count, address(points), address(shift), address(out))
    return out


@cache
def _library() -> ctypes.CDLL:
    loaded = library()
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, arguments in (
        ("forward_kinematics_f64", (int64, int32, *[pointer] * 5)),
        ("solve_translation_f64", (pointer, int64, int32, *[pointer] * 4)),
        ("points_to_crop_f64", (pointer, int64, int32, *[pointer] * 4)),
        ("translate_f32", (int64, int64, *[pointer] * 3)),
    ):
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = arguments, None
    return loaded


def _float64(name: str, array: Array, shape: tuple[int, ...]) -> Float64:
    if array.shape != shape:
        raise ValueError(f"{name} is {array.shape}; expected {shape}")
    return np.ascontiguousarray(array, np.float64)
