"""A torch.export program, compiled on the device by AOTInductor: for PyTorch without TensorRT.

`pchmr build` makes the package from the stage's `.pt2` program; both can run code, so the bundle
must be trusted. The program takes the stage's inputs in their order and gives its outputs in
theirs. On the CPU this is tested; the GPU form was never executed.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..cuda_driver import cuda_device
from ..device_engines import Built, Progress, Target
from ..engine import Caps, Stream, TensorSpec
from ..errors import EngineError, MissingDependency
from ..host import cpu_model
from ..manifest import Precision, Stage
from .cpu import CpuContext, CpuEngine, largest_batch
from .gpu import GpuContext, GpuEngine, stream_pointer

_FLAGS = threading.Lock()  # cuDNN's are of the whole process: a thread would undo another's
Model = Callable[..., Any]  # an AOTInductor package: torch tensors in, torch tensors out


def import_torch(backend: str) -> ModuleType:
    """The package. Raises: MissingDependency; EngineError where it cannot use the GPU."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch", "torch", f"the backend {backend}") from error
    if backend == "torch-cuda":
        device = cuda_device()
        if not torch.cuda.is_available():
            raise EngineError(
                f"torch {torch.__version__} cannot use {device}: install a build of it for CUDA "
                f"{device.driver} or older"
            )
    return torch


def target(backend: str, precision: Precision) -> Target:
    """What compiled packages are bound to: this torch, and this GPU or CPU."""
    torch = import_torch(backend)
    if backend == "torch-cuda":
        device = cuda_device()
        return Target(backend, torch.__version__, device.name, f"sm_{device.sm}", precision, {})
    instructions = torch.backends.cpu.get_cpu_capability()
    return Target(backend, torch.__version__, cpu_model(), instructions, precision, {})


def build(
    target: Target,
    graph: Path,
    stage: Stage,
    batches: Sequence[int],
    timing_cache: bytes,
    progress: Progress,
) -> tuple[dict[str, bytes], bytes]:
    """({".pt2": the compiled package}, nothing to remember); it takes the program's batches.

    Raises: EngineError when the program is not the stage's, or does not compile.
    """
    torch = import_torch(target.backend)
    progress("compiling", 0.0)
    program = torch.export.load(graph)
    _check_program(program, graph, stage)
    if target.backend == "torch-cuda":
        program = torch.export.passes.move_to_device_pass(program, "cuda")
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "package.pt2"
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        except Exception as error:  # whatever the compilers below it raise
            raise EngineError(
                f"torch {torch.__version__} cannot compile {graph}: {str(error).splitlines()[0]}"
            ) from error
        return {".pt2": package.read_bytes()}, b""


def _check_program(program: Any, graph: Path, stage: Stage) -> None:
    """Raises: EngineError when a program's inputs or outputs are not the stage's."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    kinds = (
        ("inputs", signature.user_inputs, stage.inputs),
        ("outputs", signature.user_outputs, stage.outputs),
    )
    for kind, names, specs in kinds:
        found = [values[name] for name in names]
        if list(map(_form, found)) != [(spec.dtype, spec.shape[1:]) for spec in specs]:
            came = "; ".join(f"{tuple(value.shape)} {value.dtype}" for value in found)
            raise EngineError(
                f"{graph} has the {kind} {came}; the bundle says {'; '.join(map(str, specs))}: "
                "export the bundle again"
            )


def _form(value: Any) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape without the batch) of a program's tensor."""
    return str(value.dtype).removeprefix("torch."), tuple(map(int, value.shape[1:]))


def engine_from_built(
    built: Built, files: Sequence[Path], graph: Path, threads: int | None
) -> TorchEngine | TorchCudaEngine:
    """The engine of a listing whose files are checked and trusted."""
    if built.target.backend == "torch-cuda":
        return TorchCudaEngine(built, files[0])
    return TorchEngine(built, files[0], threads)


def _tensors(found: Any) -> list[Any]:
    """What a package gave, in order: it may be a tensor, a sequence or a mapping."""
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _specs(built: Built) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    return {s.name: s for s in built.inputs}, {s.name: s for s in built.outputs}


class TorchEngine(CpuEngine):
    """A package on the CPU. Every context loads its own, weights included: they may run at once."""

    backend = "torch"

    def __init__(self, built: Built, package: Path, threads: int | None) -> None:
        super().__init__(built.target.precision, threads)
        self._torch = import_torch(self.backend)
        self.version = self._torch.__version__
        self.inputs, self.outputs = _specs(built)
        self.caps = Caps("cpu", largest_batch(self.inputs), False)
        self._package = package

    def _context(self, batch: int, threads: int) -> CpuContext:
        model = self._torch._inductor.aoti_load_package(str(self._package))
        return TorchContext(self, model, batch, threads)


class TorchContext(CpuContext):
    """A package with its tensors over the context's buffers; outputs are copied into them."""

    def __init__(self, engine: TorchEngine, model: Model, batch: int, threads: int) -> None:
        super().__init__(engine.inputs, engine.outputs, batch)
        self._torch = engine._torch
        self._model: Model | None = model
        self._threads = threads
        self._taken: list[Any] = []
        self._given: list[np.ndarray] = []

    def _attach(self) -> None:
        names = [name for name in self.buffers if name not in self._outputs]
        self._taken = [self._torch.from_numpy(self.buffers[name]) for name in names]
        self._given = [self.buffers[n] for n in self.buffers if n in self._outputs]

    def _run(self) -> None:
        assert self._model is not None
        if self._torch.get_num_threads() != self._threads:  # of this thread of the host
            self._torch.set_num_threads(self._threads)
        with self._torch.no_grad():
            found = _tensors(self._model(*self._taken))
        for buffer, tensor in zip(self._given, found, strict=True):
            np.copyto(buffer, tensor.numpy())

    def _detach(self) -> None:
        self._model = None


class TorchCudaEngine(GpuEngine):
    """A package on the GPU. Every context loads its own, weights included.

    torch allocates during a run: a CUDA graph must be captured with torch's graph pool.
    """

    def __init__(self, built: Built, package: Path) -> None:
        super().__init__("torch-cuda", built.target.precision)
        self._torch = import_torch(self.backend)
        self.version = self._torch.__version__
        self.inputs, self.outputs = _specs(built)
        self.caps = Caps("cuda", largest_batch(self.inputs), True)
        self._package = package

    def _context(self, batch: int, stream: Stream) -> GpuContext:
        # Without torch's own locks, which a capture would trip over.
        load = self._torch._inductor.aoti_load_package
        model = load(str(self._package), run_single_threaded=True, device_index=0)
        return TorchCudaContext(self, model, batch, stream)


class TorchCudaContext(GpuContext):
    """A package on the caller's stream; outputs are copied into the context's buffers."""

    def __init__(self, engine: TorchCudaEngine, model: Model, batch: int, stream: Stream) -> None:
        super().__init__(engine.inputs, engine.outputs, batch, stream)
        self._torch = engine._torch
        self._model: Model | None = model
        self._queue = self._torch.cuda.ExternalStream(stream_pointer(stream))
        self._taken: list[Any] = []
        self._given: list[Any] = []

    def _attach(self) -> None:
        tensors = {n: self._torch.from_dlpack(array) for n, array in self.buffers.items()}
        self._taken = [tensor for n, tensor in tensors.items() if n not in self._outputs]
        self._given = [tensor for n, tensor in tensors.items() if n in self._outputs]

    def _run(self) -> None:
        assert self._model is not None
        torch = self._torch
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # fp32 means fp32
        with _FLAGS, torch.cuda.stream(self._queue), torch.no_grad(), exact:
            found = _tensors(self._model(*self._taken))
            for buffer, tensor in zip(self._given, found, strict=True):
                buffer.copy_(tensor, non_blocking=True)

    def _detach(self) -> None:
        self._model = None
