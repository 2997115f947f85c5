"""The fused CUDA kernels: `native.blend` and `calibration.Calibrator` for arrays on a GPU.

Arrays are CuPy's, torch's or any that speak `__cuda_array_interface__` or DLPack; none is copied.
A call queues one launch on the caller's stream and returns: inputs must be ready on that stream,
and must live until it has run. CuPy compiles native/calibrate.cu at the first call, and is imported
there.
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
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pchmr_kernels import calibration, reference
from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.weights import SparseWeights, WeightsStruct

NATIVE = Path(__file__).with_name("native")

# The C ABI's own functions, which the headers declare, are nothing to NVRTC without the last.
OPTIONS = ("-std=c++17", f"-I{NATIVE}", "-default-device")

# As in native/pchmr_cuda.h and pchmr_kernels.h.
BLOCK = 128
BLOCKS_A_PROCESSOR = 8
MOST_ROWS = 65535
MOST_JOINTS = 128  # and bones, and axes

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType


class RealsStruct(ctypes.Structure):
    """pchmr_reals."""

    _fields_ = (("data", ctypes.c_void_p), ("is_float64", ctypes.c_int32))


class JobStruct(ctypes.Structure):
    """pchmr_cuda_job."""

    _fields_ = (
        ("weights", WeightsStruct),
        ("bones", calibration.BonesStruct),
        ("batch", ctypes.c_int64),
        ("vertices", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("half", ctypes.c_int32),
        *((name, RealsStruct) for name in ("source", "target", "confidence", "alpha")),
        *((name, ctypes.c_void_p) for name in ("transforms", "delta", "centre")),
    )


class Runtime(Protocol):
    """What the kernels need of a CUDA library."""

    def upload(self, array: npt.NDArray[Any]) -> Any: ...
    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any: ...
    def import_dlpack(self, array: Any) -> Any: ...
    def device(self) -> int: ...
    def processors(self) -> int: ...
    def on(self, stream: int | None) -> AbstractContextManager[Any]: ...
    def launch(
        self, kernel: str, grid: tuple[int, int], shared_bytes: int, job: JobStruct
    ) -> None: ...


@dataclass(frozen=True, eq=False)
class DenseWeights:
    """A (V, K) and A * W (V, K) on the GPU, float32: for training. Without A * W: skinning only."""

    values: Any
    offsets: Any = None


def blend(
    vertices: Any,
    transforms: Any,
    weights: SparseWeights | DenseWeights,
    delta: Any = None,
    out: Any = None,
    centre: Any = None,
    stream: Any = None,
) -> Any:
    """out_j = sum_s A_js (R v_j + t)_i + (A W)_js delta_i with i = indices_js: (B, V, 3).

    Args:
        vertices: (B, V, 3) float32 or float16, the type of the result; sums are in float32.
        transforms: (B, K, 3, 4) float32, R beside t; delta: (B, K, 3) float32, none for skinning.
        weights: sparse ones are uploaded, and waited for, at the first call with them (so before
            any capture into a graph), and kept as long as they live.
        out: (B, V, 3), as `vertices` and maybe the same; else a CuPy array is allocated.
        centre: (B, 3) float32, taken off the vertices first and added last.
        stream: of CuPy, of torch, or its address; CuPy's current one where none is given.
    Raises: TypeError for an array on the CPU or of another dtype, ValueError for another shape, a
    strided array or too large a job, ImportError where CuPy is not installed.
    """
    run = runtime()
    bones = _shape("transforms", transforms, 4)[1]
    with_weights, needed = _weights(run, weights, bones, delta is not None)
    _refuse(bones > MOST_JOINTS, f"{bones} bones; at most {MOST_JOINTS}")
    _refuse(bones < needed, f"transforms are of {bones} bones; weights name {needed}")
    batch = _shape("vertices", vertices, 3)[0]
    job = JobStruct(weights=with_weights, batch=batch)
    job.bones.bones = bones
    arrays = [
        _view(run, "transforms", transforms, (batch, bones, 3, 4), FLOAT32),
        _view(run, "delta", delta, (batch, bones, 3), FLOAT32),
        _view(run, "centre", centre, (batch, 3), FLOAT32),
    ]
    job.transforms, job.delta, job.centre = (array.pointer for array in arrays)
    return _launch(run, "pchmr_blend", job, vertices, out, stream)


class Calibrator:
    """`calibration.Calibrator` on the GPU, with the same arguments; `weights` may be dense too.

    Bound to the device that is current when it is made. Up to 128 joints and bones.
    """

    def __init__(
        self,
        skeleton: Skeleton | npt.NDArray[np.integer[Any]],
        weights: SparseWeights | DenseWeights,
        prealign: str = "none",
        scale: str = "none",
        thresholds: tuple[float, float] = reference.THRESHOLDS,
        root: int = 0,
        torso: Sequence[int] = (),
        axes: Sequence[tuple[int, int]] = (),
        joints: int | None = None,
    ) -> None:
        run = runtime()
        checked = weights if isinstance(weights, SparseWeights) else NO_WEIGHTS
        host = calibration.Calibrator(
            skeleton, checked, prealign, scale, thresholds, root, torso, axes, joints
        )
        self.joints, self.bones, self.weights = host.joints, host.bones, weights
        struct = calibration.BonesStruct.from_buffer_copy(host._bones)
        most = max(self.joints, self.bones, struct.n_axes)
        _refuse(
            most > MOST_JOINTS,
            f"{self.joints} joints, {self.bones} bones and {struct.n_axes} axes; at most "
            f"{MOST_JOINTS} of each",
        )
        self._tables = [run.upload(array) for array in host._arrays]
        pointers = [_view(run, "bones", table, None, INT32).pointer for table in self._tables]
        struct.pairs, struct.order, struct.axes, struct.torso = pointers
        self._struct, self._device = struct, run.device()
        _weights(run, weights, self.bones, True)

    def __call__(
        self,
        vertices: Any,
        source: Any,
        target: Any,
        confidence: Any = None,
        alpha: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Any:
        """The calibrated mesh, its root where the source's is: (B, V, 3), the dtype of `vertices`.

        Args:
            vertices: (B, V, 3) float32 or float16; float16 is for meshes near the origin.
            source, target: (B, J, 3) float32 or float64, the target NaN where missing.
            confidence: (B, J), alpha: (B, K) radians, float32 or float64.
            out, stream: see `blend`, and there for what is raised.
        """
        run = runtime()
        other = f"this Calibrator is of device {self._device}; the current one is {run.device()}"
        _refuse(run.device() != self._device, other)
        batch, J, K = _shape("vertices", vertices, 3)[0], self.joints, self.bones
        struct, _ = _weights(run, self.weights, K, True)
        arrays = [
            _view(run, "source", source, (batch, J, 3), REALS),
            _view(run, "target", target, (batch, J, 3), REALS),
            _view(run, "confidence", confidence, (batch, J), REALS),
            _view(run, "alpha", alpha, (batch, K), REALS),
        ]
        _refuse(source is None or target is None, "source and target must be given")
        reals = [RealsStruct(array.pointer, array.dtype == np.float64) for array in arrays]
        job = JobStruct(struct, self._struct, batch, None, None, 0, *reals)
        return _launch(run, "pchmr_calibrate", job, vertices, out, stream)


def shared_bytes(joints: int, bones: int, axes: int) -> int:
    """Of a block, see native/pchmr_cuda.h: 26752 at most, for 128 of each."""
    return bones * (80 + 24) + 128 + joints * (3 * 24 + 8) + axes * 24


def stream_address(stream: Any) -> int | None:
    """Of a CuPy or torch stream, of one that speaks `__cuda_stream__`, or the address itself."""
    if stream is None or isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("ptr", "cuda_stream"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise TypeError(f"stream is {_kind(stream)}; expected a CUDA stream of CuPy or torch")


def source() -> str:
    """calibrate.cu. A digest of its headers heads it: CuPy keeps compiled kernels by their text."""
    headers = b"".join(path.read_bytes() for path in sorted(NATIVE.glob("*.h")))
    text = (NATIVE / "calibrate.cu").read_text()
    return f"// Headers {hashlib.sha256(headers).hexdigest()}\n{text}"


@cache
def runtime() -> Runtime:
    """CuPy. Raises: ImportError, which names the extra to install."""
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
        self.module = cupy.RawModule(code=source(), options=OPTIONS)

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
        foreign: AbstractContextManager[Any] = self.cupy.cuda.Stream.from_external(_Stream(stream))
        return foreign

    def launch(self, kernel: str, grid: tuple[int, int], shared_bytes: int, job: JobStruct) -> None:
        by_value = np.frombuffer(bytes(job), np.dtype((np.void, ctypes.sizeof(job))))
        function = self.module.get_function(kernel)
        function(grid, (BLOCK,), (by_value,), shared_mem=shared_bytes)


FLOAT32, REALS, INT32 = (np.float32,), (np.float32, np.float64), (np.int32,)
MESHES = (np.float32, np.float16)
NO_WEIGHTS = SparseWeights(
    np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)
)

# Uploaded weights, by device; they go when the weights go.
_uploaded: WeakKeyDictionary[SparseWeights, dict[int, tuple[Any, ...]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _View:
    pointer: int | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _view(
    run: Runtime, name: str, array: Any, shape: tuple[int, ...] | None, dtypes: Sequence[type]
) -> _View:
    """The memory of a contiguous array of this device; of None, a null pointer."""
    if array is None:
        return _View(None, (), np.dtype(np.float32))
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
    _refuse(shape is not None and got != shape, f"{name} is {got}; expected {shape}")
    strides = described.get("strides")
    if strides is not None and 0 not in got:
        packed = np.cumprod((dtype.itemsize, *got[:0:-1]))[::-1]
        strided = any(n > 1 and s != p for n, s, p in zip(got, strides, packed, strict=True))
        _refuse(strided, f"{name} is strided; expected C-contiguous: make it so first")
    pointer, read_only = described["data"]
    _refuse(name == "out" and read_only, "out is read-only; expected memory to write to")
    return _View(pointer or None, got, dtype)


def _device(name: str, array: Any) -> tuple[int, int | None]:
    if hasattr(array, "__dlpack_device__"):
        device, index = array.__dlpack_device__()
        return int(device), int(index)
    if hasattr(array, "__cuda_array_interface__"):
        return CUDA, None
    raise TypeError(f"{name} is {_kind(array)}; expected a CUDA array")


def _shape(name: str, array: Any, dimensions: int) -> tuple[int, ...]:
    if not hasattr(array, "shape"):
        raise TypeError(f"{name} is {_kind(array)}; expected a CUDA array")
    shape = tuple(array.shape)
    _refuse(len(shape) != dimensions, f"{name} is {shape}; expected {dimensions} dimensions")
    return shape


def _weights(
    run: Runtime, weights: SparseWeights | DenseWeights, bones: int, stretch: bool
) -> tuple[WeightsStruct, int]:
    """As the kernels read them, and how many bones they name."""
    if isinstance(weights, SparseWeights):
        kept = _uploaded.setdefault(weights, {})
        arrays = kept.get(run.device())
        if arrays is None:
            padding = ((0, 0), (0, -weights.indices.shape[1] % 4))
            tables = (weights.indices, weights.values, weights.offsets)
            arrays = tuple(run.upload(np.pad(table, padding)) for table in tables)
            kept[run.device()] = arrays
        shape, needed = tuple(arrays[0].shape), weights.bones_needed
        views = [_view(run, "weights", array, shape, (*INT32, *FLOAT32)) for array in arrays]
    else:
        shape, needed = _shape("weights.values", weights.values, 2), bones
        arrays = (weights.values, weights.offsets)
        _refuse(shape[1] != bones, f"weights.values is {shape}; there are {bones} bones")
        _refuse(stretch and weights.offsets is None, "weights.offsets, A * W, is missing")
        views = [_view(run, "weights", None, None, FLOAT32)]
        views += [
            _view(run, f"weights.{name}", array, shape, FLOAT32)
            for name, array in zip(("values", "offsets"), arrays, strict=True)
        ]
    return WeightsStruct(*shape, *(view.pointer for view in views)), needed


def _launch(run: Runtime, kernel: str, job: JobStruct, vertices: Any, out: Any, stream: Any) -> Any:
    shape = (job.batch, job.weights.vertices, 3)
    _refuse(job.batch > MOST_ROWS, f"a batch of {job.batch} rows; at most {MOST_ROWS}: split it")
    mesh = _view(run, "vertices", vertices, shape, MESHES)
    with run.on(stream_address(stream)):
        out = run.empty(shape, mesh.dtype) if out is None else out
        written = _view(run, "out", out, shape, (mesh.dtype.type,))
        if 0 in shape:
            return out
        job.vertices, job.out = mesh.pointer, written.pointer
        job.half = mesh.dtype == np.float16
        # Every block turns the joints again: no more of them than fill the device.
        enough = -(-BLOCKS_A_PROCESSOR * run.processors() // job.batch)
        grid = (min(-(-job.weights.vertices // BLOCK), enough), job.batch)
        bones = job.bones
        size = shared_bytes(bones.joints, bones.bones, bones.n_axes)
        run.launch(kernel, grid, size, job)
    return out


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise ValueError(message)


def _kind(array: Any) -> str:
    return f"a {type(array).__module__}.{type(array).__qualname__}"
