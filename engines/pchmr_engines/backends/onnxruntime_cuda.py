"""ONNX Runtime's CUDA provider on the caller's stream, bound to device buffers.

Never executed on a GPU; session set-up and the refusal of a silent CPU fallback are tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..cuda_driver import cuda_device
from ..engine import Caps, Stream
from ..errors import EngineError
from .cpu import largest_batch
from .gpu import GpuContext, GpuEngine, stream_pointer
from .onnxruntime import import_onnxruntime, spec_from_node

PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine(GpuEngine):
    """An ONNX file in ONNX Runtime on a GPU, in the graph's own precision.

    A session belongs to one stream and holds its own copy of the weights: contexts of one stream
    share it.
    """

    def __init__(
        self, path: Path, threads: int | None = None, precision: str = "fp32", cache: bool = True
    ) -> None:
        super().__init__("onnxruntime-cuda", precision)
        ort = import_onnxruntime()
        if PROVIDER not in ort.get_available_providers():
            raise EngineError(
                f"onnxruntime {ort.__version__} is a build for the CPU: run  pip uninstall -y "
                "onnxruntime  and  pip install 'pchmr[ort-cuda]'  (never both in one environment)"
            )
        if precision == "bf16":
            raise EngineError("onnxruntime cannot lower a graph to bf16: use precision='fp32'")
        cuda_device()
        self.version = ort.__version__
        self._path = path
        self._sessions: dict[int, Any] = {}
        session = self._load()  # for what the graph holds
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.inputs = {node.name: spec_from_node(node, path.name) for node in inputs}
        self.outputs = {node.name: spec_from_node(node, path.name) for node in outputs}
        self.caps = Caps("cuda", largest_batch(self.inputs), False)

    def _load(self, stream: int = 0) -> Any:
        """A session on that stream, on one of ONNX Runtime's own for 0."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        cuda = {"device_id": "0", "use_tf32": "0"}  # fp32 means fp32
        if stream:
            cuda["user_compute_stream"] = str(stream)
        try:
            session = ort.InferenceSession(str(self._path), options, providers=[(PROVIDER, cuda)])
        except Exception as error:  # the binding's own classes, which share no base
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot load {self._path} on the GPU: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if (provided := session.get_providers())[:1] != [PROVIDER]:
            raise EngineError(
                f"ONNX Runtime {ort.__version__} would run {self._path.name} on {provided}; "
                f"expected {PROVIDER}: its CUDA or cuDNN libraries do not load, see its log"
            )
        return session

    def _context(self, batch: int, stream: Stream) -> GpuContext:
        pointer = stream_pointer(stream)
        if not pointer:  # taken for none: it would run on one that the caller does not wait for
            raise EngineError("onnxruntime-cuda does not run on the default stream: give another")
        if pointer not in self._sessions:
            self._sessions[pointer] = self._load(pointer)
        return OnnxRuntimeCudaContext(self, self._sessions[pointer], batch, stream)


class OnnxRuntimeCudaContext(GpuContext):
    """An I/O binding of one session to the context's buffers."""

    def __init__(
        self, engine: OnnxRuntimeCudaEngine, session: Any, batch: int, stream: Stream
    ) -> None:
        super().__init__(engine.inputs, engine.outputs, batch, stream)
        self._session = session
        self._binding: Any = None
        self._options = import_onnxruntime().RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def _attach(self) -> None:
        self._binding = self._session.io_binding()
        for name, array in self.buffers.items():
            output = name in self._outputs
            bind = self._binding.bind_output if output else self._binding.bind_input
            bind(name, "cuda", 0, array.dtype.type, array.shape, array.data.ptr)

    def _run(self) -> None:
        self._session.run_with_iobinding(self._binding, self._options)

    def _detach(self) -> None:
        self._binding = self._session = None


engine_from_graph = OnnxRuntimeCudaEngine
