"""What lies between the networks of a followed person, on a GPU: native/person.cu.

Regions, landmarks, placement and targets are as pchmr's blazepose.py, crops.py, placement.py and
stages have them, float64 but where a network gives or takes an array. Each kernel names the arrays
it reads and writes; nothing is allocated.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pchmr_kernels import cuda_runtime
from pchmr_kernels.cuda_runtime import BLOCK, check_rows, refuse, stream_address, view

LANDMARKS, POINTS = 33, 39  # of a person, of the landmark network

SIZES = (
    *("batch", "joints", "target_joints", "shapes", "terms", "vertices", "columns_taken"),
    *("crop_size", "map_size"),
)
ARRAYS: Mapping[str, tuple[type, tuple[int | str, ...]]] = {
    "lens": (np.float64, (4,)),
    "next_roi": (np.float64, ("batch", 4)),
    "roi": (np.float64, ("batch", 4)),
    "affine": (np.float64, ("batch", 2, 3)),
    "rotation": (np.float64, ("batch", 3, 3)),
    "landmarks": (np.float32, ("batch", POINTS, 5)),
    "world": (np.float32, ("batch", POINTS, 3)),
    "heatmaps": (np.float32, ("batch", "map_size", "map_size", POINTS)),
    "keypoints": (np.float64, ("batch", LANDMARKS, 3)),
    "world_view": (np.float64, ("batch", LANDMARKS, 3)),
    "world_upright": (np.float64, ("batch", LANDMARKS, 3)),
    "presence": (np.float64, ("batch", LANDMARKS)),
    "depth": (np.float64, ("batch", LANDMARKS)),
    "auxiliary": (np.float64, ("batch", 2, 2)),
    "columns": (np.int32, ("columns_taken",)),
    "mesh_landmarks": (np.float32, ("batch", LANDMARKS, 3)),
    "points": (np.float32, ("batch", "columns_taken", 3)),
    "rot6d": (np.float32, ("batch", "joints", 6)),
    "betas": (np.float32, ("batch", "shapes")),
    "parents": (np.int32, ("joints",)),
    "rest": (np.float64, ("1 + shapes", "joints", 3)),
    "basis": (np.float32, ("terms", "vertices", 3)),
    "rotmats": (np.float64, ("batch", "joints", 3, 3)),
    "transforms": (np.float32, ("batch", "joints", 3, 4)),
    "coefficients": (np.float32, ("batch", "terms")),
    "shaped": (np.float32, ("batch", "vertices", 3)),
    "translation": (np.float64, ("batch", 3)),
    "placed": (np.float64, ("batch",)),
    "lifted_joints": (np.float32, ("batch", "target_joints", 3)),
    "lifted_landmarks": (np.float32, ("batch", LANDMARKS, 3)),
    "source": (np.float32, ("batch", "target_joints", 3)),
    "carry": (np.float32, ("target_joints", LANDMARKS)),
    "trust": (np.float32, ("target_joints", LANDMARKS)),
    "target": (np.float64, ("batch", "target_joints", 3)),
    "confidence": (np.float64, ("batch", "target_joints")),
}
"""Every array of native/pchmr_cuda_person.h, in its order: dtype and shape by SIZES."""


class PersonStruct(ctypes.Structure):
    """pchmr_cuda_person."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in SIZES),
        *((name, ctypes.c_void_p) for name in ARRAYS),
    )


@dataclass(frozen=True)
class Kernel:
    """reads, writes: its arrays. optional: those of them that may be left out, all or none."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    optional: tuple[str, ...] = ()
    shared_bytes: int = 0
    shared_bytes_a_joint: int = field(default=0, repr=False)


KERNELS: Mapping[str, Kernel] = {
    "pchmr_person_crops": Kernel(("lens", "next_roi"), ("roi", "affine", "rotation")),
    "pchmr_person_landmarks": Kernel(
        ("lens", "roi", "landmarks", "world", "heatmaps"),
        (
            *("keypoints", "world_view"),
            *("world_upright", "presence", "depth", "auxiliary", "next_roi"),
        ),
        ("heatmaps", "world_upright", "presence", "depth", "auxiliary", "next_roi"),
        shared_bytes=4 * 8,
    ),
    "pchmr_person_points": Kernel(("lens", "roi", "rotation", "keypoints", "columns"), ("points",)),
    "pchmr_person_projection": Kernel(
        ("lens", "roi", "rotation", "mesh_landmarks", "translation", "columns"), ("points",)
    ),
    "pchmr_person_pose": Kernel(
        ("rotation", "rot6d", "betas", "parents", "rest"),
        ("rotmats", "transforms", "coefficients"),
        shared_bytes_a_joint=12 * 8 + 2 * 24 + 4,
    ),
    "pchmr_person_shape": Kernel(("coefficients", "basis"), ("shaped",)),
    "pchmr_person_place": Kernel(
        ("lens", "mesh_landmarks", "keypoints"),
        ("translation", "placed"),
        shared_bytes=8 * 3 * LANDMARKS,
    ),
    "pchmr_person_lifted": Kernel(("rotation", "lifted_joints"), ("target", "confidence")),
    "pchmr_person_target": Kernel(
        (
            *("lens", "rotation", "keypoints", "world_view", "lifted_joints", "lifted_landmarks"),
            *("translation", "source", "carry", "trust"),
        ),
        ("target", "confidence"),
        shared_bytes=24 * LANDMARKS,
    ),
}


def queue(kernel: str, arrays: Mapping[str, Any], stream: Any = None, crop_size: int = 0) -> None:
    """Queue a kernel of KERNELS on its arrays, by the names of ARRAYS.

    crop_size: pixels to a side of the landmark network's crop, where the kernel reads regions.
    Raises: ValueError for a missing or needless array, and as `cuda.blend`.
    """
    run, spec = cuda_runtime.runtime(), KERNELS[kernel]
    wanted = {*spec.reads, *spec.writes}
    missing, needless = wanted - {*spec.optional, *arrays}, arrays.keys() - wanted
    refuse(bool(missing), f"{kernel} lacks {', '.join(sorted(missing))}")
    refuse(bool(needless), f"{kernel} takes no {', '.join(sorted(needless))}")
    written = [name for name in spec.optional if name in spec.writes]
    given = [name for name in written if name in arrays]
    refuse(len(given) not in (0, len(written)), f"{kernel} takes all of {written}, or none")
    with run.on(stream_address(stream)):
        sizes = _sizes(arrays)
        job = PersonStruct(**sizes)
        job.crop_size = crop_size
        for name, array in arrays.items():
            dtype, dims = ARRAYS[name]
            shape = tuple(_size(d, sizes) for d in dims)
            label = f"out {name}" if name in spec.writes else name
            setattr(job, name, view(run, label, array, shape, (dtype,)).pointer)
        batch = job.batch
        check_rows(batch)
        if not batch:
            return
        shared = spec.shared_bytes + spec.shared_bytes_a_joint * job.joints
        grid = (1, batch)
        if kernel == "pchmr_person_crops":
            grid = (-(-batch // BLOCK), 1)
        elif kernel == "pchmr_person_shape":
            grid = (max(1, -(-3 * job.vertices // BLOCK)), batch)
        run.launch(kernel, grid, shared, job)


def _sizes(arrays: Mapping[str, Any]) -> dict[str, int]:
    """What the arrays' shapes say, the first that says it; the others must agree."""
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        dims, shape = ARRAYS[name][1], tuple(getattr(array, "shape", ()))
        refuse(len(shape) != len(dims), f"{name} is {shape}; expected {len(dims)} dimensions")
        for dim, size in zip(dims, shape, strict=True):
            if dim in SIZES:
                sizes.setdefault(str(dim), size)
    return sizes


def _size(dim: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    return 1 + sizes["shapes"] if dim == "1 + shapes" else sizes[dim]
