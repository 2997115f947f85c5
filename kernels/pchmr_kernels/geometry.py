"""Geometry of people between the networks, by the native library."""

import ctypes
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, as_float32, as_float64, as_output, library

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
    turns = as_float64("rotmats", rotmats, (batch, joints, 3, 3))
    rest = as_float64("rest_joints", rest_joints, (batch, joints, 3))
    order = np.ascontiguousarray(parents, np.int32)
    if (order >= np.arange(joints)).any():
        raise ValueError(f"parents are {order.tolist()}; expected each before its children")
    transforms, posed = np.empty((batch, joints, 3, 4)), np.empty((batch, joints, 3))
    functions().pchmr_forward_kinematics_f64(
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
    xyz = as_float64("points", points, (batch, count, 3))
    seen = as_float64("keypoints_2d", keypoints_2d, (batch, count, 3))
    translation, placed = np.empty((batch, 3)), np.empty(batch, np.bool_)
    functions().pchmr_solve_translation_f64(
        *(lens_pointer(lens), batch, count, address(xyz), address(seen)),
        *(address(translation), address(placed)),
    )
    return translation, placed


def points_to_crop(
    points: Array,
    rotation: Array,
    size_px: Array,
    lens: Lens,
    columns: npt.NDArray[np.int32] | None = None,
    out: Float32 | None = None,
) -> Float32:
    """Image points as the crop's own camera sees them, in units of half the crop's size.

    points: (B, N, D): x px, y px, full frame, and D - 2 numbers that stay. rotation: (B, 3, 3), the
    crop's camera to the full one. size_px: (B,) side of the square crop. columns: (K,) int32, which
    points, below N: not checked here; all by default. out: where to write, C-contiguous.
    Returns (B, K, D) float32, x and y about -1..1 inside the crop.

    Raises: ValueError for shapes that do not fit.
    """
    batch, count, numbers = points.shape
    pixels = as_float64("points", points, (batch, count, numbers))
    turn = as_float64("rotation", rotation, (batch, 3, 3))
    side = as_float64("size_px", size_px, (batch,))
    taken = np.arange(count, dtype=np.int32) if columns is None else columns
    out = as_output(out, (batch, len(taken), numbers))
    functions().pchmr_points_to_crop_f64(
        *(lens_pointer(lens), batch, count, numbers, address(pixels)),
        *(len(taken), address(taken), address(turn), address(side), address(out)),
    )
    return out


def ray_rotation(centre_px: Array, roll_rad: Array | None, lens: Lens) -> Float64:
    """Rotations (B, 3, 3) from crops' own frames, z along the viewing ray, to the camera's.

    centre_px: (B, 2), of the crops. roll_rad: (B,), clockwise as seen in the image; None: upright.

    Raises: ValueError for shapes that do not fit.
    """
    batch = len(centre_px)
    centre = as_float64("centre_px", centre_px, (batch, 2))
    roll = None if roll_rad is None else as_float64("roll_rad", roll_rad, (batch,))
    rotation = np.empty((batch, 3, 3))
    functions().pchmr_ray_rotation_f64(
        *(lens_pointer(lens), batch, address(centre), address(roll), address(rotation))
    )
    return rotation


def rotate(points: Array, rotation: Array) -> Float64:
    """Points (B, N, 3), rounded to float32, turned by rotation (B, 3, 3).

    Raises: ValueError for another shape.
    """
    batch, count = points.shape[:2]
    points = as_float32("points", points.astype(np.float32, copy=False), (batch, count, 3))
    turn = as_float64("rotation", rotation, (batch, 3, 3))
    out = np.empty((batch, count, 3))
    functions().pchmr_rotate_f64(batch, count, address(points), address(turn), address(out))
    return out


def project(points: Array, translation: Array, lens: Lens) -> Float64:
    """Where the camera sees points (B, N, 3), rounded to float32, moved by translation (B, 3):
    keypoints (B, N, 3), x and y in pixels, and 1.

    Raises: ValueError for another shape.
    """
    batch, count = points.shape[:2]
    points = as_float32("points", points.astype(np.float32, copy=False), (batch, count, 3))
    translation = as_float64("translation", translation, (batch, 3))
    keypoints = np.empty((batch, count, 3))
    functions().pchmr_project_f64(
        *(lens_pointer(lens), batch, count, address(points)),
        *(address(translation), address(keypoints)),
    )
    return keypoints


def translate(points: Float32, shift: Float32) -> Float32:
    """Points (B, N, 3) moved by shift (B, 3), float32; NumPy takes ten times as long.

    Raises: TypeError for another dtype, ValueError for another shape.
    """
    batch, count = points.shape[:2]
    points = as_float32("points", points, (batch, count, 3))
    shift = as_float32("shift", shift, (batch, 3))
    out = np.empty_like(points)
    functions().pchmr_translate_f32(batch, count, address(points), address(shift), address(out))
    return out


@lru_cache(maxsize=16)
def lens_pointer(lens: Lens) -> Any:
    """The four numbers as the library takes them."""
    return (ctypes.c_double * 4)(*lens)


@cache
def functions() -> ctypes.CDLL:
    """The library, its functions of this module declared."""
    loaded = library()
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, arguments in (
        ("forward_kinematics_f64", (int64, int32, *[pointer] * 5)),
        ("solve_translation_f64", (pointer, int64, int32, *[pointer] * 4)),
        ("points_to_crop_f64", (pointer, int64, int32, int32, pointer, int32, *[pointer] * 4)),
        ("ray_rotation_f64", (pointer, int64, *[pointer] * 3)),
        ("rotate_f64", (int64, int64, *[pointer] * 3)),
        ("project_f64", (pointer, int64, int32, *[pointer] * 3)),
        ("joint_places_f64", (int64, int32, int32, *[pointer] * 3)),
        ("move_joints_f32", (int64, int32, int32, *[pointer] * 3)),
        ("translate_f32", (int64, int64, *[pointer] * 3)),
    ):
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = arguments, None
    return loaded
