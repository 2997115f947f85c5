"""ONNX Runtime on the CPU: one session a thread count, outputs bound to fixed NumPy buffers."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engine import Caps, TensorSpec
from ..errors import EngineError, MissingDependency
from ..host import installed_versions
from . import BACKENDS
from .cpu import CpuContext, CpuEngine, largest_batch, spec_from_graph

DTYPES = {"float": "float32", "double": "float64"}  # tensor(...) names that are not NumPy's


def import_onnxruntime() -> ModuleType:
    """The package. Raises: MissingDependency; EngineError when two of its builds are installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", "cpu", "the backend onnxruntime") from error
    installed = installed_versions(BACKENDS["onnxruntime"].packages)
    if len(installed) > 1:
        raise EngineError(
            f"{' and '.join(installed)} are installed together, but they overwrite each other's "
            f"files: run  pip uninstall -y {' '.join(installed)}  and install only one of them"
        )
    return onnxruntime


def open_session(path: str | PathLike[str], threads: int) -> Any:
    """An ONNX file's session on the CPU. Raises: EngineError, MissingDependency."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the binding's own classes, which share no base
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot load {path}: {str(error).splitlines()[0]}"
        ) from error


def spec_from_node(node: Any, where: str) -> TensorSpec:
    """The spec of a session's input or output. Raises: EngineError as `spec_from_graph`."""
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    return spec_from_graph(node.name, tuple(node.shape), DTYPES.get(dtype, dtype), where)


class OnnxRuntimeEngine(CpuEngine):
    """An ONNX file in ONNX Runtime, in the graph's own precision; waiting threads sleep."""

    backend = "onnxruntime"

    def __init__(
        self, path: Path, threads: int | None = None, precision: str = "fp32", cache: bool = True
    ) -> None:
        super().__init__(precision, threads)
        if precision == "bf16":
            raise EngineError(
                f"onnxruntime cannot lower a graph to {precision}: "
                "use precision='fp32', or backend='openvino' on a CPU that has bf16"
            )
        self.version = import_onnxruntime().__version__
        self._path = path
        self._sessions: dict[int, Any] = {}
        session = self._session(self.threads)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.inputs = {node.name: spec_from_node(node, path.name) for node in inputs}
        self.outputs = {node.name: spec_from_node(node, path.name) for node in outputs}
        self.caps = Caps("cpu", largest_batch(self.inputs), False)

    def _session(self, threads: int) -> Any:
        if threads not in self._sessions:
            self._sessions[threads] = open_session(self._path, threads)
        return self._sessions[threads]

    def _context(self, batch: int, threads: int) -> CpuContext:
        return OnnxRuntimeContext(self, self._session(threads), batch)


class OnnxRuntimeContext(CpuContext):
    """An I/O binding of one session to the context's buffers."""

    def __init__(self, engine: OnnxRuntimeEngine, session: Any, batch: int) -> None:
        super().__init__(engine.inputs, engine.outputs, batch)
        self._session = session
        self._binding: Any = None

    def _attach(self) -> None:
        ort = import_onnxruntime()
        self._binding = self._session.io_binding()
        for name, buffer in self.buffers.items():
            value = ort.OrtValue.ortvalue_from_numpy(buffer)  # aliases CPU memory
            if name in self._outputs:
                self._binding.bind_ortvalue_output(name, value)
            else:
                self._binding.bind_ortvalue_input(name, value)

    def _run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def _detach(self) -> None:
        self._binding = self._session = None


engine_from_graph = OnnxRuntimeEngine
