"""Arrays, streams and launches on a GPU: what every CUDA kernel here asks of a CUDA library.

Arrays are CuPy's, torch's, PyCUDA's or any that speak `__cuda_array_interface__` or DLPack; none is
copied. CuPy compiles a file of native/ at the first launch from it, and is imported then.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pchmr_kernels.cuda_host import check_context

NATIVE = Path(__file__).with_name("native")

OPTIONS = ("-std=c++17", f"-I{NATIVE}")

KERNELS = {
    "pchmr_calibrate": "calibrate.cu",
    "pchmr_skin_calibrate": "calibrate.cu",
    "pchmr_blend": "calibrate.cu",
    "pchmr_pose_joints": "calibrate.cu",
    "pchmr_crop": "crop.cu",
    "pchmr_blend_grad_vertices": "gradients.cu",
    "pchmr_blend_grad_bones": "gradients.cu",
    "pchmr_blend_grad_weights": "gradients.cu",
    "pchmr_person_crops": "person.cu",
    "pchmr_person_landmarks": "person.cu",
    "pchmr_person_points": "person.cu",
    "pchmr_person_projection": "person.cu",
    "pchmr_person_pose": "person.cu",
    "pchmr_person_shape": "person.cu",
    "pchmr_person_place": "person.cu",
    "pchmr_person_lifted": "person.cu",
    "pchmr_person_target": "person.cu",
}
"""Every kernel, and the file of native/ that has it."""

BLOCK, MOST_ROWS = 128, 65535  # threads; the y side of a grid. As in native/pchmr_cuda.h.
CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
FLOAT32, REALS, INT32 = (np.float32,), (np.float32, np.float64), (np.int32,)


class RealsStruct(ctypes.Structure):
    """pchmr_reals."""

    _fields_ = (("data", ctypes.c_void_p), ("is_float64", ctypes.c_int32))


class Runtime(Protocol):
    """What the kernels need of a CUDA library."""

    def upload(self, array: npt.NDArray[Any]) -> Any: ...
    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any: ...
    def import_dlpack(self, array: Any) -> Any: ...
    def device(self) -> int: ...
    def processors(self) -> int: ...
    def on(self, stream: int | None) -> AbstractContextManager[Any]: ...
    def launch(
        self, kernel: str, grid: tuple[int, int], shared_bytes: int, job: ctypes.Structure
    ) -> None: ...


@dataclass(frozen=True)
class View:
    """The memory of an array: a null pointer where there is none."""

    pointer: int | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pitch: int = 0  # bytes from one of the first axis to the next

    @property
    def reals(self) -> RealsStruct:
        return RealsStruct(self.pointer, self.dtype == np.float64)


def view(
    run: Runtime,
    name: str,
    array: Any,
    shape: tuple[int, ...] | None,
    dtypes: Sequence[type] = FLOAT32,
    rows_apart: bool = False,
) -> View:
    """The memory of a contiguous array of this device; of None, a null pointer.

    shape: what it must be, None for any. rows_apart: its first axis may have any stride.
    Raises: TypeError for an array on the CPU or of another dtype, ValueError for another shape or
    device, a strided array, or an `out` that is read-only.
    """
    if array is None:
        return View(None, (), np.dtype(np.float32))
    device, index = _device(name, array)
    if device not in (CUDA, CUDA_MANAGED):
        raise TypeError(f"{name} is {_kind(array)} on the CPU; expected a CUDA array: move it")
    if index is not None and index != run.device():
        raise ValueError(f"{name} is on device {index}; the current one is {run.device()}")
    if not hasattr(array, "__cuda_array_interface__"):
        array = run.import_dlpack(array)
    described = array.__cuda_array_interface__
    dtype, got = np.dtype(described["typestr"]), tuple(described["shape"])
    if dtype.type not in dtypes:
        expected = " or ".join(np.dtype(each).name for each in dtypes)
        raise TypeError(f"{name} is {dtype}; expected {expected}")
    refuse(shape is not None and got != shape, f"{name} is {got}; expected {shape}")
    strides = described.get("strides")
    if strides is not None and 0 not in got:
        packed = np.cumprod((dtype.itemsize, *got[:0:-1]))[::-1]
        apart = [n > 1 and s != p for n, s, p in zip(got, strides, packed, strict=True)]
        strided = any(apart[rows_apart:])
        refuse(strided, f"{name} is strided; expected C-contiguous: make it so first")
    pointer, read_only = described["data"]
    refuse(name.startswith("out") and read_only, f"{name} is read-only; expected one to write to")
    pitch = strides[0] if strides else dtype.itemsize * int(np.prod(got[1:], dtype=np.int64))
    return View(pointer or None, got, dtype, pitch)


def shape_of(name: str, array: Any, dimensions: int) -> tuple[int, ...]:
    """The shape of an array of so many dimensions. Raises: TypeError, ValueError."""
    if not hasattr(array, "shape"):
        raise TypeError(f"{name} is {_kind(array)}; expected a CUDA array")
    shape = tuple(array.shape)
    refuse(len(shape) != dimensions, f"{name} is {shape}; expected {dimensions} dimensions")
    return shape


def refuse(wrong: bool, message: str) -> None:
    """Raises: ValueError with that message, where something is wrong."""
    if wrong:
        raise ValueError(message)


def check_rows(batch: int) -> None:
    """Raises: ValueError for more rows than a grid has."""
    refuse(batch > MOST_ROWS, f"a batch of {batch} rows; at most {MOST_ROWS}: split it")


def stream_address(stream: Any) -> int | None:
    """Of a CuPy, torch or PyCUDA stream, of one that speaks `__cuda_stream__`, or the address."""
    if stream is None or isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("ptr", "cuda_stream", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise TypeError(f"stream is {_kind(stream)}; expected a CUDA stream of CuPy, torch or PyCUDA")


def source(file: str) -> str:
    """A file of native/. A digest of its headers heads it: CuPy keeps kernels by their text."""
    headers = b"".join(path.read_bytes() for path in sorted(NATIVE.glob("*.h")))
    return f"// Headers {hashlib.sha256(headers).hexdigest()}\n{(NATIVE / file).read_text()}"


@cache
def runtime() -> Runtime:
    """CuPy. Raises: ImportError, which names the extra to install; see `check_context`."""
    check_context()
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            f"the CUDA kernels need CuPy, which cannot be imported ({error}): "
            "pip install 'pchmr[cuda13]', or 'pchmr[cuda12]' for a driver of CUDA 12"
        ) from error
    return CupyRuntime(cupy)


@dataclass(frozen=True)
class _Stream:
    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class CupyRuntime:
    """Never executed on a GPU so far: the tests put a stand-in with the same methods here."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.functions: dict[str, Any] = {}  # CuPy keeps one a device behind each
        self.modules = {
            file: cupy.RawModule(code=source(file), options=OPTIONS)
            for file in sorted(set(KERNELS.values()))
        }

    def upload(self, array: npt.NDArray[Any]) -> Any:
        uploaded = self.cupy.asarray(array)
        self.cupy.cuda.get_current_stream().synchronize()  # other streams may read it from now on
        return uploaded

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.cupy.empty(shape, dtype)

    def import_dlpack(self, array: Any) -> Any:
        return self.cupy.from_dlpack(array)

    def device(self) -> int:
        return int(self.cupy.cuda.runtime.getDevice())

    def processors(self) -> int:
        runtime = self.cupy.cuda.runtime
        count = runtime.cudaDevAttrMultiProcessorCount
        return int(runtime.deviceGetAttribute(count, runtime.getDevice()))

    def on(self, stream: int | None) -> AbstractContextManager[Any]:
        if stream is None:
            return nullcontext()
        cuda = self.cupy.cuda
        if not hasattr(cuda.Stream, "from_external"):  # before CuPy 14
            return cuda.ExternalStream(stream)
        return cuda.Stream.from_external(_Stream(stream))

    def launch(
        self, kernel: str, grid: tuple[int, int], shared_bytes: int, job: ctypes.Structure
    ) -> None:
        by_value = np.frombuffer(bytes(job), np.dtype((np.void, ctypes.sizeof(job))))
        if kernel not in self.functions:
            self.functions[kernel] = self.modules[KERNELS[kernel]].get_function(kernel)
        self.functions[kernel](grid, (BLOCK,), (by_value,), shared_mem=shared_bytes)


def _device(name: str, array: Any) -> tuple[int, int | None]:
    if hasattr(array, "__dlpack_device__"):
        device, index = array.__dlpack_device__()
        return int(device), int(index)
    if hasattr(array, "__cuda_array_interface__"):
        return CUDA, None
    raise TypeError(f"{name} is {_kind(array)}; expected a CUDA array")


def _kind(array: Any) -> str:
    return f"a {type(array).__module__}.{type(array).__qualname__}"
