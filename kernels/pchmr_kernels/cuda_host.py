"""Beside a host application on one GPU: its CUDA context, and frame buffers without a copy.

CuPy, torch and TensorRT share each device's primary context; memory of another context is nothing
to them. PyCUDA is used where it is installed (extra `pycuda`), CuPy otherwise. Never executed on a
GPU so far.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

DRIVER = "libcuda.so.1"


@dataclass(frozen=True, eq=False)
class MappedArray:
    """Page-locked memory that the CPU writes as `host` and the GPU reads where it lies.

    On a Jetson both share the DRAM, so a frame goes up without a copy; elsewhere every read crosses
    the bus. The kernels take it for a CUDA array. Before writing again, wait for the stream.
    """

    host: npt.NDArray[Any]
    address: int
    owner: Any = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.host.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.host.flags.c_contiguous else self.host.strides
        described = {"shape": self.host.shape, "typestr": self.host.dtype.str, "version": 3}
        return {**described, "data": (self.address, False), "strides": strides}

    def __getitem__(self, part: slice | tuple[slice, ...]) -> MappedArray:
        """A part of the same memory: the luma of an NV12 frame, say."""
        host = self.host[part]
        offset = host.ctypes.data - self.host.ctypes.data
        return MappedArray(host, self.address + offset, self.owner)


def mapped_array(shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> MappedArray:
    """An uninitialised one, freed with its last reference; by the current context of the thread.

    Raises: ImportError where neither PyCUDA nor CuPy can be imported.
    """
    driver = _pycuda()
    if driver is not None:
        flags = driver.host_alloc_flags.DEVICEMAP
        host = driver.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
        return MappedArray(host, int(host.base.get_device_pointer()), host.base)
    return mapped_by_cupy(_cupy(), shape, dtype)


def mapped_by_cupy(
    cupy: Any, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8
) -> MappedArray:
    """The same, of CuPy's context."""
    runtime = cupy.cuda.runtime
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    pointer = runtime.hostAlloc(max(size, 1), runtime.hostAllocMapped)
    memory = (ctypes.c_uint8 * max(size, 1)).from_address(pointer)
    weakref.finalize(memory, runtime.freeHost, pointer)
    address = int(runtime.pointerGetAttributes(pointer).devicePointer)
    bytes_ = np.ctypeslib.as_array(memory)[:size]
    return MappedArray(bytes_.view(dtype).reshape(shape), address, memory)


@contextmanager
def primary_context(device: int = 0) -> Iterator[None]:
    """The device's primary context on this thread; afterwards the host application's own again."""
    driver = _pycuda()
    if driver is not None:
        driver.init()
        context = driver.Device(device).retain_primary_context()
        context.push()
        try:
            yield
        finally:
            context.pop()
        return
    cupy = _cupy()
    contexts = importlib.import_module("cupy_backends.cuda.api.driver")
    own = contexts.ctxGetCurrent()
    try:
        with cupy.cuda.Device(device):
            cupy.cuda.runtime.setDevice(device)
            yield
    finally:
        if own:
            contexts.ctxSetCurrent(own)


def check_context() -> None:
    """Raises: RuntimeError where this thread's context is another than its device's primary one."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError:  # no driver, so no context either
        return
    current, primary, device = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    if cuda.cuCtxGetCurrent(ctypes.byref(current)) or not current:
        return  # none so far: the primary one will be made
    cuda.cuCtxGetDevice(ctypes.byref(device))
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(primary), device):
        return
    cuda.cuDevicePrimaryCtxRelease_v2(device)
    if current.value != primary.value:
        raise RuntimeError(
            f"the current CUDA context is not the primary one of device {device.value}, which "
            "CuPy, torch and TensorRT share: import pycuda.autoprimaryctx instead of "
            "pycuda.autoinit, or call from within pchmr_kernels.cuda_host.primary_context()"
        )


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError:
        return None


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            f"page-locked memory needs PyCUDA or CuPy, and neither can be imported ({error}): "
            "pip install 'pchmr[cuda13]', or 'pchmr[pycuda]'"
        ) from error
