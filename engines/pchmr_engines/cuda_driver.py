"""Facts about the GPU, asked of the CUDA driver itself: no CUDA package is needed to know them."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

from .errors import EngineError

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True)
class CudaDevice:
    """sm: compute capability as major * 10 + minor. driver: the CUDA version it supports."""

    name: str
    sm: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (sm_{self.sm}, driver for CUDA {self.driver})"


@cache
def cuda_device() -> CudaDevice:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves. Raises: EngineError without one.

    TensorRT's Runtime() without a driver crashes the process, so this is asked first.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise EngineError(
            "this machine has no NVIDIA driver: install one, or use a CPU backend "
            "(onnxruntime, openvino)"
        ) from error

    def call(function: str, *arguments: object) -> None:
        code = getattr(driver, function)(*arguments)
        if code:
            raise EngineError(
                f"the NVIDIA driver gives no GPU ({function} failed with code {code}): see that "
                "nvidia-smi lists it and that CUDA_VISIBLE_DEVICES does not hide it"
            )

    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    call("cuInit", 0)
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDeviceGetAttribute", ctypes.byref(major), COMPUTE_CAPABILITY_MAJOR, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), COMPUTE_CAPABILITY_MINOR, device)
    return CudaDevice(
        name.value.decode(errors="replace"),
        10 * major.value + minor.value,
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )
