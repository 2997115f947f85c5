"""A GPU, CuPy and TensorRT that are none: memory is NumPy's, and every call is written down.

The fake engine computes y = 2 x through the addresses it was given, so that a wrong one shows.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Calls(list):
    """What was called, in order: (name, arguments). failing: names of calls that answer no."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()

    def answer(self, name: str, *arguments: Any) -> bool:
        self.append((name, *arguments))
        return name not in self.failing

    def names(self) -> list[str]:
        return [name for name, *_ in self]


class DeviceArray:
    """What of a cupy.ndarray the backends use."""

    def __init__(self, host: np.ndarray) -> None:
        self.host = host
        self.shape, self.dtype, self.flags = host.shape, host.dtype, host.flags
        self.data = SimpleNamespace(ptr=host.ctypes.data)
        self.__cuda_array_interface__ = host.__array_interface__

    def __len__(self) -> int:
        return len(self.host)

    def __setitem__(self, place: Any, value: DeviceArray) -> None:
        self.host[place] = value.host

    def copy(self) -> DeviceArray:
        return DeviceArray(self.host.copy())

    def __dlpack__(self, **options: Any) -> Any:
        return self.host.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.host.__dlpack_device__()

    def get(self) -> np.ndarray:
        return self.host


def fake_cupy(calls: Calls) -> ModuleType:
    """The module `cupy`."""

    class Stream:
        def __init__(self, ptr: int = 7, non_blocking: bool = False) -> None:
            self.ptr = ptr

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

        def synchronize(self) -> None:
            calls.append(("synchronize", self.ptr))

    def asarray(array: Any) -> DeviceArray:
        return array if isinstance(array, DeviceArray) else DeviceArray(np.array(array))

    cupy = ModuleType("cupy")
    cupy.zeros = lambda shape, dtype: DeviceArray(np.zeros(shape, dtype))  # type: ignore[attr-defined]
    cupy.asarray = asarray  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        Stream=Stream, ExternalStream=Stream, get_current_stream=lambda: Stream(0)
    )
    return cupy


class Mode(Enum):
    INPUT, OUTPUT = range(2)


class DataType(Enum):
    FLOAT, HALF, UINT8 = range(3)


def fake_tensorrt(calls: Calls, dims: tuple[int, ...] = (-1, 3)) -> ModuleType:
    """The module `tensorrt`, whose engines take x and give y, both `dims` float32."""

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}
            self.shape: tuple[int, ...] = dims

        def set_optimization_profile_async(self, index: int, stream: int) -> bool:
            return calls.answer("profile", index, stream)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shape = shape
            return calls.answer("shape", name, shape)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return calls.answer("address", name)

        def infer_shapes(self) -> list[str]:
            return [] if calls.answer("infer") else ["x"]

        def execute_async_v3(self, stream: int) -> bool:
            size = int(np.prod(self.shape))
            x, y = (
                np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name]))
                for name in "xy"
            )
            y[:] = 2 * x
            return calls.answer("execute", stream)

    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return "xy"[index]

        def get_tensor_mode(self, name: str) -> Mode:
            return Mode.INPUT if name == "x" else Mode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType.FLOAT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return dims

        def create_execution_context(self, *config: Any) -> Context | None:
            return Context() if calls.answer("context", *config) else None

        def create_runtime_config(self) -> Any:  # of TensorRT for RTX
            return config

    class Cache:
        def __init__(self) -> None:
            self.kernels = b"compiled"

        def deserialize(self, blob: bytes) -> bool:
            return calls.answer("deserialize kernels", blob)

        def serialize(self) -> bytes:
            return self.kernels

    config = SimpleNamespace(
        dynamic_shapes_kernel_specialization_strategy="lazy",
        create_runtime_cache=Cache,
        set_runtime_cache=lambda cache: calls.answer("set_runtime_cache"),
    )

    class Logger:
        ERROR, INTERNAL_ERROR, Severity = 1, 0, int

    class Runtime:
        def __init__(self, logger: Any) -> None:
            calls.append(("runtime",))
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if calls.answer("deserialize"):
                return Engine()
            self.logger.log(Logger.ERROR, "the plan is of version 9\nmore")
            return None

    tensorrt = ModuleType("tensorrt")
    tensorrt.__dict__.update(
        __version__="10.3.0",
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=Mode,
        DataType=DataType,
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )
    return tensorrt
