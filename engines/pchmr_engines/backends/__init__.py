"""The table of backends, and the one way from an ONNX file to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..engine import Engine
from ..errors import EngineError

ONNX_RUNTIME = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


@dataclass(frozen=True)
class Backend:
    """Where a backend's code is, imported when it is asked for, and whose wheel brings it.

    packages: the distributions that hold the runtime, any of which will do. graph: the format it
    takes. built: whether it runs engines that `pchmr build` made on the device, or nothing else.

    The module has `engine_from_graph(path, threads, precision, cache)` unless engines are always
    built; where they can be, `target`, `build` and `engine_from_built` (see backends/tensorrt.py).
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    device: Literal["cpu", "cuda"] = "cpu"
    graph: str = ".onnx"
    built: Literal["never", "maybe", "always"] = "never"

    def load(self) -> ModuleType:
        """The backend's module."""
        return import_module(self.module, __package__)


BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": Backend(".onnxruntime", ONNX_RUNTIME, "cpu"),
    "openvino": Backend(".openvino", ("openvino",), "openvino", built="maybe"),
    "onnxruntime-cuda": Backend(".onnxruntime_cuda", ONNX_RUNTIME[1:2], "ort-cuda", "cuda"),
    "tensorrt": Backend(
        ".tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt_cu13", "tensorrt_cu12"),
        "trt",
        "cuda",
        built="always",
    ),
    "tensorrt-rtx": Backend(
        ".tensorrt", ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"), "rtx", "cuda", built="always"
    ),
    "torch": Backend(".torch", ("torch",), "torch", "cpu", ".pt2", built="always"),
    "torch-cuda": Backend(".torch", ("torch",), "torch", "cuda", ".pt2", built="always"),
}
AUTO = tuple(name for name, one in BACKENDS.items() if (one.device, one.graph) == ("cpu", ".onnx"))
"""What backend "auto" chooses from: they run an ONNX file as it is, anywhere."""


def backend_named(name: str) -> Backend:
    """The backend `name`. Raises: EngineError when there is none."""
    if name not in BACKENDS:
        raise EngineError(f"backend {name!r} is unknown; expected one of {['auto', *BACKENDS]}")
    return BACKENDS[name]


def engine_from_onnx(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    cache: bool = True,
) -> Engine:
    """The engine of an ONNX file on exactly the backend asked for.

    backend: a name in BACKENDS that takes ONNX, or "auto": the fastest CPU backend installed,
    measured once and remembered.
    threads: CPU threads of its contexts; None takes all CPUs this process may use.
    precision: of the graph, or "bf16" to run an fp32 graph so where backend and CPU can.
    cache: keep compiled models on disk.
    Raises: EngineError, MissingDependency; never runs on another backend instead.
    """
    if not Path(path).is_file():
        raise EngineError(f"{path} is not a file: give the path of an ONNX file")
    if backend == "auto":
        from ..auto import fastest_backend

        backend = fastest_backend(Path(path), threads, precision, cache)
    chosen = backend_named(backend)
    if chosen.built == "always":
        raise EngineError(
            f"backend {backend!r} runs engines of a bundle that were built on this device: "
            f"run  pchmr build BUNDLE --backend {backend}  and use Bundle.engine"
        )
    make: Any = chosen.load().engine_from_graph
    return make(Path(path), threads=threads, precision=precision, cache=cache)
