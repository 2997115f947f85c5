"""The table of backends, and the one way from an ONNX file to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..engine import Engine
from ..errors import EngineError


@dataclass(frozen=True)
class Backend:
    """Where a backend's engine class is, imported when it is asked for, and whose wheel brings it.

    packages: the distributions that hold the runtime; more than one of them clash.
    """

    module: str
    engine: str
    packages: tuple[str, ...]


BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": Backend(
        ".onnxruntime",
        "OnnxRuntimeEngine",
        (
            "onnxruntime",
            "onnxruntime-gpu",
            "onnxruntime-openvino",
            "onnxruntime-directml",
            "onnxruntime-qnn",
        ),
    ),
    "openvino": Backend(".openvino", "OpenVinoEngine", ("openvino",)),
}


def engine_from_onnx(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    cache: bool = True,
) -> Engine:
    """The engine of an ONNX file on exactly the backend asked for.

    backend: a name in BACKENDS, or "auto": the fastest one installed, measured once and remembered.
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
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r} is unknown; expected one of {['auto', *BACKENDS]}")
    chosen = BACKENDS[backend]
    make: Any = getattr(import_module(chosen.module, __package__), chosen.engine)
    return make(Path(path), threads=threads, precision=precision, cache=cache)
