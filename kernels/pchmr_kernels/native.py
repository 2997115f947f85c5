"""The native library, and its blend kernel: one for skinning and for the calibration.

`pip install` builds the library from native/*.cpp. It takes the best instruction set of the
machine, unless the variable PCHMR_ISA or `use_instruction_set` names another.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .weights import SparseWeights

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

VERSION = 3  # PCHMR_VERSION of native/pchmr_kernels.h


@cache
def library() -> ctypes.CDLL:
    """The loaded library, its version checked.

    Raises: ImportError where it is not built, cannot be loaded or belongs to another version, and
    where PCHMR_ISA names an instruction set that this machine has not.
    """
    path = Path(__file__).with_name("libpchmr_kernels.so")
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.pchmr_version.restype = ctypes.c_int32
        version = loaded.pchmr_version()
    except (OSError, AttributeError) as error:
        raise ImportError(
            f"the native kernels cannot be loaded ({error}): build them with  pip install -e .  "
            "in the source folder (needs a C++17 compiler), or reinstall the wheel"
        ) from error
    if version != VERSION:
        raise ImportError(
            f"{path.name} is of version {version}, expected {VERSION}: "
            "build it again with  pip install -e .  in the source folder"
        )
    for name in ("pchmr_last_error", "pchmr_isas", "pchmr_isa"):
        getattr(loaded, name).restype = ctypes.c_char_p
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    loaded.pchmr_use_isa.argtypes = (ctypes.c_char_p,)
    loaded.pchmr_blend_f32.argtypes = (pointer, int64, int32, *[pointer] * 5, int32)
    loaded.pchmr_bone_transforms_f64.argtypes = (pointer, int64, *[pointer] * 7)
    loaded.pchmr_calibrate_f32.argtypes = (pointer, pointer, int64, *[pointer] * 6, int32)
    if wanted := os.environ.get("PCHMR_ISA"):
        try:
            check(loaded, loaded.pchmr_use_isa(wanted.encode()))
        except ValueError as error:
            raise ImportError(f"{error}: unset PCHMR_ISA, or set it to one of these") from error
    return loaded


def check(loaded: ctypes.CDLL, failed: int) -> None:
    """Raises: ValueError with the library's own message where a call failed."""
    if failed:
        raise ValueError(loaded.pchmr_last_error().decode())


def instruction_set() -> str:
    """The instruction set in use: baseline (SSE2, NEON), avx2 or avx512."""
    return str(library().pchmr_isa().decode())


def instruction_sets() -> list[str]:
    """Those that this machine has, the best last."""
    return str(library().pchmr_isas().decode()).split()


def use_instruction_set(name: str) -> None:
    """Use another of `instruction_sets`. Raises: ValueError for one that is not."""
    check(library(), library().pchmr_use_isa(name.encode()))


def blend(
    vertices: Float32,
    transforms: Float32,
    weights: SparseWeights,
    delta: Float32 | None = None,
    out: Float32 | None = None,
    threads: int = 1,
    centre: Float32 | None = None,
) -> Float32:
    """out_j = sum_s A_js (R v_j + t)_i + (A W)_js delta_i with i = indices_js: (B, V, 3) float32.

    The result of a vertex depends neither on its place in the batch nor on `threads`.

    Args:
        vertices: (B, V, 3) float32.
        transforms: (B, K, 3, 4) float32, R beside t.
        delta: (B, K, 3) float32; none for plain skinning.
        out: (B, V, 3) float32, C-contiguous, to write to; may be `vertices` itself.
        threads: at most so many; fewer where there is too little work.
        centre: (B, 3) float32, taken off the vertices first and added last: `transforms` are about
            it, and float32 keeps its precision far from the origin.
    Raises: TypeError for another dtype, ValueError for another shape.
    """
    batch, count = len(vertices), len(weights.indices)
    bones = transforms.shape[1] if transforms.ndim == 4 else weights.bones_needed
    vertices = as_float32("vertices", vertices, (batch, count, 3))
    transforms = as_float32("transforms", transforms, (batch, bones, 3, 4))
    if bones < weights.bones_needed:
        raise ValueError(f"transforms are of {bones} bones; weights name {weights.bones_needed}")
    delta = None if delta is None else as_float32("delta", delta, (batch, bones, 3))
    centre = None if centre is None else as_float32("centre", centre, (batch, 3))
    out = as_output(out, vertices.shape)
    loaded = library()
    failed = loaded.pchmr_blend_f32(
        ctypes.byref(weights.as_c),
        *(batch, bones, address(vertices), address(transforms)),
        *(address(delta), address(centre), address(out), threads),
    )
    check(loaded, failed)
    return out


def as_float64(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> Float64:
    """`array` as contiguous float64. Raises: ValueError for another shape."""
    if array.shape != shape:
        raise ValueError(f"{name} is {array.shape}; expected {shape}")
    return np.ascontiguousarray(array, np.float64)


_start_of = (ctypes.c_char * 0).from_buffer  # a quarter of the time of .ctypes.data


def address(array: npt.NDArray[Any] | None) -> Any:
    """Of the data of a contiguous array, as a pointer argument; None for None.

    Raises: ValueError for an array that is not contiguous.
    """
    if array is None:
        return None
    try:
        return _start_of(array)  # type: ignore[arg-type]
    except TypeError as error:
        if not array.flags.c_contiguous:
            raise ValueError(f"strides of {array.shape} are {array.strides}: {error}") from error
        return array.ctypes.data  # read-only


def as_float32(name: str, array: Float32, shape: tuple[int, ...]) -> Float32:
    """`array`, copied if it is not contiguous. Raises: TypeError, ValueError."""
    if array.dtype != np.float32:
        raise TypeError(f"{name} is {array.dtype}; expected float32: use .astype(np.float32)")
    if array.shape != shape:
        raise ValueError(f"{name} is {array.shape}; expected {shape}")
    return np.ascontiguousarray(array)


def as_it_is(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: str) -> Any:
    """`array` itself, which a program reads as often as it runs.

    Raises: ValueError for another dtype or shape, or where it is not C-contiguous.
    """
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}; expected a C-contiguous {dtype} {shape}"
        )
    return array


def as_output(out: Float32 | None, shape: tuple[int, ...]) -> Float32:
    """`out` itself, or a new array. Raises: ValueError where it cannot be written to as it is."""
    if out is None:
        return np.empty(shape, np.float32)
    if out.dtype != np.float32 or out.shape != shape or not out.flags.carray:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; expected a writeable C-contiguous float32 {shape}"
        )
    return out
