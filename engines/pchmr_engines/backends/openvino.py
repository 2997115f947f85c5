"""OpenVINO on the CPU: one compiled model a context, cached on disk, or built into the bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..device_engines import Built, Progress, Target
from ..engine import Caps, TensorSpec
from ..errors import EngineError, MissingDependency
from ..host import cache_folder, cpu_fingerprint, cpu_model
from ..manifest import Precision, Stage
from .cpu import CpuContext, CpuEngine, largest_batch, spec_from_graph

PRECISIONS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}  # hints


@cache
def openvino_core() -> Any:
    """The process's one `openvino.Core`. Raises: MissingDependency."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency("openvino", "openvino", "the backend openvino") from error
    return openvino.Core()


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16 by itself."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine(CpuEngine):
    """An ONNX file in OpenVINO, in float32 unless bf16 is asked for and the CPU has it.

    blobs: by batch, models compiled on this CPU; other batches are compiled when they are needed.
    """

    backend = "openvino"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        precision: str = "fp32",
        cache: bool = True,
        blobs: Mapping[int, Path] | None = None,
    ) -> None:
        super().__init__(precision, threads)
        core = openvino_core()
        if precision not in PRECISIONS:
            known = sorted(PRECISIONS)
            raise EngineError(f"openvino has no precision {precision!r}; expected one of {known}")
        if precision == "bf16" and not has_bf16():
            raise EngineError("this CPU has no bf16 instructions: use precision='fp32'")
        import openvino

        self.version = openvino.__version__
        self._path, self._cache, self._blobs = path, cache, blobs or {}
        try:
            self._model = core.read_model(path)
        except RuntimeError as error:
            raise self._failure("read", error) from error
        ports = (port for operator in self._model.get_ops() for port in operator.outputs())
        typed = any(port.get_element_type() == openvino.Type.bf16 for port in ports)
        # A graph with bfloat16 inside says itself where; only a float32 one is lowered as a whole.
        self._hint = "f32" if typed else PRECISIONS[precision]
        self.inputs = {s.name: s for s in map(self._spec, self._model.inputs)}
        self.outputs = {s.name: s for s in map(self._spec, self._model.outputs)}
        self.caps = Caps("cpu", largest_batch(self.inputs), False)

    def _spec(self, port: Any) -> TensorSpec:
        shape = tuple(None if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
        dtype = str(port.get_element_type().to_dtype())
        return spec_from_graph(port.get_any_name(), shape, dtype, self._path.name)

    def _failure(self, action: str, error: RuntimeError) -> EngineError:
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        return EngineError(f"OpenVINO {self.version} cannot {action} {self._path}: {reason}")

    def compile(self, batch: int, threads: int) -> Any:
        """The model at one static batch: 29 ms where a free batch took 42 ms (30 convolutions)."""
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self._hint,
            # Pinning puts every one-thread model on the same core: two branches at once
            # then take twice the time each.
            "ENABLE_CPU_PINNING": False,
        }
        if self._cache:
            config["CACHE_DIR"] = str(cache_folder("openvino"))
        try:
            if batch in self._blobs:
                return openvino_core().import_model(self._blobs[batch].read_bytes(), "CPU", config)
            model = self._model.clone()
            model.reshape({name: list(spec.sized(batch)) for name, spec in self.inputs.items()})
            return openvino_core().compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise self._failure("compile", error) from error

    def _context(self, batch: int, threads: int) -> CpuContext:
        # Not shared: two requests of one compiled model take turns.
        return OpenVinoContext(self, self.compile(batch, threads), batch)


class OpenVinoContext(CpuContext):
    """An infer request whose tensors share the context's buffers."""

    def __init__(self, engine: OpenVinoEngine, compiled: Any, batch: int) -> None:
        super().__init__(engine.inputs, engine.outputs, batch)
        self._request = compiled.create_infer_request()

    def _attach(self) -> None:
        import openvino

        for name, buffer in self.buffers.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))

    def _run(self) -> None:
        self._request.infer(share_outputs=True)  # without it every output is copied

    def _detach(self) -> None:
        self._request = None


engine_from_graph = OpenVinoEngine


def target(backend: str, precision: Precision) -> Target:
    """What compiled models are bound to: this version of OpenVINO and this CPU."""
    openvino_core()
    import openvino

    instructions = hashlib.sha256(cpu_fingerprint().encode()).hexdigest()[:12]
    return Target(backend, openvino.__version__, cpu_model(), instructions, precision, {})


def build(
    target: Target,
    graph: Path,
    stage: Stage,
    batches: Sequence[int],
    timing_cache: bytes,
    progress: Progress,
) -> tuple[dict[str, bytes], bytes]:
    """(A compiled model a batch, nothing to remember). Raises: EngineError, MissingDependency."""
    engine = OpenVinoEngine(graph, precision=target.precision, cache=False)
    blobs = {}
    for done, batch in enumerate(batches):
        progress(f"batch {batch}", done / len(batches))
        blob = engine.compile(batch, engine.threads).export_model()
        blobs[f".b{batch}.blob"] = bytes(blob.getbuffer())
    return blobs, b""


def engine_from_built(
    built: Built, files: Sequence[Path], graph: Path, threads: int | None
) -> OpenVinoEngine:
    """The engine of a listing whose files are checked."""
    blobs = dict(zip(built.batches, files, strict=True))
    return OpenVinoEngine(graph, threads, built.target.precision, blobs=blobs)
