"""What lies between the networks of a followed person, by the native library.

`cuda_person` has the same steps on a GPU, from the same arithmetic (native/person.h).
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .geometry import Lens, lens_pointer
from .native import address, as_float32, as_float64, as_it_is, library

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LANDMARKS, POINTS = 33, 39  # of a person, of the landmark network
WORLD = 0.25  # as native/person.h has it
"""Share of the world landmarks in a target's depth; on Pose2Sim 0.15 to 0.3 was best, 0.5 2 mm
worse."""

FOUND = np.dtype(
    [
        ("keypoints_2d", np.float32, (LANDMARKS, 3)),
        ("presence", np.float32, LANDMARKS),
        ("depth_px", np.float32, LANDMARKS),
        ("auxiliary", np.float32, (2, 2)),
        ("world", np.float32, (LANDMARKS, 3)),
        ("score", np.float32),
        ("region", np.float64, 4),
        ("next_region", np.float64, 4),
    ],
    align=True,
)
"""A person as the landmark network sees one, in the frame: pchmr_landmarks of
native/pchmr_person.h; what each is says `pchmr.blazepose.Landmarks`. Regions: middle and side of
a crop, pixels, and its turn, radians; where the network looked, and is to look next."""

VIEW = ("keypoints", "world", "rotation", "size", "box", "visible")


@lru_cache(maxsize=16)
def view_of(people: int) -> np.dtype[np.void]:
    """Of people before the camera, all of them in one record; see `view_people`."""
    points, one = (people, LANDMARKS, 3), (people,)
    shapes = points, points, (people, 3, 3), one, (people, 4), one
    dtypes = [np.float64] * 5 + [np.int64]
    return np.dtype(list(zip(VIEW, dtypes, shapes, strict=True)))


class LandmarkDecoder:
    """The landmark network's answer in the frame; reads its output arrays at every call.

    points: (B, 39, 5) float32: x, y, z in crop pixels, logits of visibility and presence. scores:
    (B, 1) and world: (B, 39, 3) float32, metres. heatmaps: (B, n, n, 39) float32 logits that refine
    x and y as `heatmaps.refine_peaks` does with that radius, or None.

    Raises: TypeError for another dtype, ValueError for another shape.
    """

    def __init__(
        self,
        points: Float32,
        scores: Float32,
        world: Float32,
        heatmaps: Float32 | None,
        crop_size: int,
        radius: int,
    ) -> None:
        self._rows = rows = len(points)
        size = 0 if heatmaps is None else heatmaps.shape[1]
        given = (
            as_float32("points", points, (rows, POINTS, 5)),
            as_float32("scores", scores, (rows, 1)),
            as_float32("world", world, (rows, POINTS, 3)),
            None
            if heatmaps is None
            else as_float32("heatmaps", heatmaps, (rows, size, size, POINTS)),
        )
        self._arguments = (crop_size, *map(address, given), size, radius)
        self._given = given  # alive as long as their addresses
        self._function = functions().pchmr_decode_landmarks_f32

    def __call__(self, regions: Float64) -> Array:
        """(b, n) uint8, the bytes of b `FOUND`, of the first rows.

        regions: (b, 4) float64: the middle and side of each crop in the frame, pixels, and its
        turn, radians.

        Raises: ValueError for another shape.
        """
        batch = len(regions)
        regions = as_float64("regions", regions, (batch, 4))
        if batch > self._rows:
            raise ValueError(f"{batch} regions, but points has {self._rows} rows")
        found = np.empty((batch, FOUND.itemsize), np.uint8)  # a record's address takes longer
        self._function(batch, *self._arguments, address(regions), address(found))
        return found


def view_people(found: Array, lens: Lens, seen: float, size: tuple[int, int]) -> Array:
    """People as the stages between the networks take them: one record `view_of` (B).

    found: (B, n) uint8, the bytes of B `FOUND`.

    keypoints: (B, 33, 3) x px, y px, visibility. world: (B, 33, 3) metres, turned onto each crop's
    viewing ray. rotation: (B, 3, 3), the crop's camera to the frame's. size: (B,) the crop's side,
    pixels. box: (B, 4) x0, y0, x1, y1, upright, cut to a frame of `size` (width, height), around
    the keypoints of more visibility than `seen`, which `visible` (B,) counts, or around all where
    there is none.

    Raises: ValueError for another dtype or shape.
    """
    views = np.empty((), view_of(len(found)))
    out = (views[name] for name in VIEW)
    functions().pchmr_view_people_f64(
        *(lens_pointer(lens), frame_pointer(size), *_people(found), seen, *map(address, out))
    )
    return views


def _people(found: Array) -> tuple[int, Any]:
    if found.dtype != np.uint8 or found.shape[1:] != (FOUND.itemsize,):
        raise ValueError(f"found is {found.dtype} {found.shape}; expected uint8 of FOUND")
    return len(found), address(found)


@lru_cache(maxsize=16)
def frame_pointer(size: tuple[int, int]) -> Any:
    """Width and height as the library takes them."""
    return (ctypes.c_double * 2)(*size)


def pose_rotmats(rot6d: Array, root: Array) -> Float64:
    """(B, J, 3, 3) from the first two columns of each, row by row (B, J, 6), made orthonormal.

    root: (B, 3, 3) that turns the first joint's. A column of zeros stays zero.

    Raises: ValueError for another shape.
    """
    batch, joints = rot6d.shape[:2]
    rot6d = as_float32("rot6d", rot6d.astype(np.float32, copy=False), (batch, joints, 6))
    root = as_float64("root", root, (batch, 3, 3))
    rotmats = np.empty((batch, joints, 3, 3))
    functions().pchmr_pose_rotmats_f64(
        batch, joints, address(rot6d), address(root), address(rotmats)
    )
    return rotmats


class ImageTarget:
    """Target joints of the parallel form: x, y from the image, depth from the pose stream.

    carry: (J, 33) how much of what a landmark is off moves a joint. trust: (J, 33) how it vouches
    for one.

    Raises: ValueError for another shape.
    """

    def __init__(self, carry: Array, trust: Array) -> None:
        self._joints = len(carry)
        self._given = [
            as_float32(name, array.astype(np.float32, copy=False), (len(carry), LANDMARKS))
            for name, array in (("carry", carry), ("trust", trust))
        ]
        self._addresses = tuple(map(address, self._given))
        self._function = functions().pchmr_image_target_f64

    def arguments(self, lens: Float64, *arrays: Float64) -> tuple[Any, ...]:
        """Of `pchmr_image_target_f64`, for a program.

        lens: (4,). arrays: those of a call in turn, then the target and the confidence.

        Raises: ValueError for arrays that do not fit.
        """
        batch, joints = len(arrays[0]), self._joints
        points, landmarks = (batch, joints, 3), (batch, LANDMARKS, 3)
        shapes = (points, *[landmarks] * 3, (batch, 3), points, (batch, joints))
        names = ("joints", "landmarks", "keypoints", "world", "root", "target", "confidence")
        given = zip(names, arrays, shapes, strict=True)
        *read, target, confidence = (as_it_is(*one, "float64") for one in given)
        return lens, batch, joints, *read, *self._given, target, confidence

    def __call__(
        self,
        joints: Array,
        landmarks: Array,
        keypoints: Array,
        world: Array,
        root: Array,
        lens: Lens,
    ) -> tuple[Float64, Float64]:
        """Target (B, J, 3) about `root` and confidence (B, J).

        joints: (B, J, 3), landmarks: (B, 33, 3), the lifter's, metres about the root. keypoints:
        (B, 33, 3) x px, y px, visibility. world: (B, 33, 3) metres about the hips, of which the
        depth counts. root: (B, 3) before the camera, metres.

        Raises: ValueError for another shape.
        """
        batch, count = len(joints), self._joints
        points = (batch, LANDMARKS, 3)
        if not landmarks.shape == keypoints.shape == world.shape == points:
            raise ValueError(
                f"landmarks, keypoints and world are {landmarks.shape}, {keypoints.shape} and "
                f"{world.shape}; expected {points}"
            )
        given = (
            as_float64("joints", joints, (batch, count, 3)),
            np.ascontiguousarray(landmarks, np.float64),
            np.ascontiguousarray(keypoints, np.float64),
            np.ascontiguousarray(world, np.float64),
            as_float64("root", root, (batch, 3)),
        )
        target, confidence = np.empty((batch, count, 3)), np.empty((batch, count))
        self._function(
            *(lens_pointer(lens), batch, count, *map(address, given)),
            *(*self._addresses, address(target), address(confidence)),
        )
        return target, confidence


@cache
def functions() -> ctypes.CDLL:
    """The library, its functions of this module declared."""
    loaded = library()
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    real = ctypes.c_double
    for name, arguments in (
        ("decode_landmarks_f32", (int64, int32, *[pointer] * 4, int32, int32, pointer, pointer)),
        ("view_people_f64", (pointer, pointer, int64, pointer, real, *[pointer] * 6)),
        ("pose_rotmats_f64", (int64, int32, *[pointer] * 3)),
        ("image_target_f64", (pointer, int64, int32, *[pointer] * 9)),
    ):
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = arguments, None
    return loaded
