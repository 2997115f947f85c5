"""TensorRT 10.3 to 11.4 and TensorRT for RTX: one API under two import names.

`make check` type-checks this file against the oldest and the newest TensorRT. Building for RTX
needs no GPU and is tested; running an engine was never executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsInt

from ..cuda_driver import cuda_device
from ..device_engines import Built, Progress, Target
from ..engine import BATCH, Caps, Stream, TensorSpec
from ..errors import EngineError, MissingDependency
from ..manifest import Precision, Stage
from . import BACKENDS
from .cpu import largest_batch
from .gpu import GpuContext, GpuEngine, stream_pointer
from .tensorrt_rtx import KernelCache

if TYPE_CHECKING:
    import tensorrt as trt

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
LEAST_SM = {"fp32": 0, "fp16": 53, "int8": 61, "bf16": 80, "fp8": 89}
RTX_DEVICE, RTX_ARCH = "RTX GPUs", "sm_80, 86, 89, 120"  # what RTX builds for when not told
FLAGS: Mapping[str, Any] = {"tf32": False, "aux_streams": 0}
RTX_FLAGS: Mapping[str, Any] = {**FLAGS, "user_allocation": True}
DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}  # others: NumPy's in capitals


def _import(backend: str) -> Any:
    """The backend's package. Raises: MissingDependency."""
    try:
        return import_module(MODULES[backend])
    except ImportError as error:
        extra = BACKENDS[backend].extra
        raise MissingDependency(MODULES[backend], extra, f"the backend {backend}") from error


def target(backend: str, precision: Precision) -> Target:
    """What engines of this backend are bound to here.

    Full TensorRT: this GPU. For RTX: a family of GPUs, so that none is asked for.
    Raises: EngineError where the GPU cannot do the precision; MissingDependency.
    """
    version = _import(backend).__version__
    if backend == "tensorrt-rtx":
        return Target(backend, version, RTX_DEVICE, RTX_ARCH, precision, RTX_FLAGS)
    device = cuda_device()
    _check_precision(device.sm, str(device), precision)
    return Target(backend, version, device.name, f"sm_{device.sm}", precision, FLAGS)


def _check_precision(sm: int, device: str, precision: str) -> None:
    if sm < LEAST_SM[precision]:
        able = [name for name, least in LEAST_SM.items() if sm >= least]
        raise EngineError(
            f"{device} does not compute in {precision}, which needs sm_{LEAST_SM[precision]}: "
            f"choose one of {able}"
        )


def build(
    target: Target,
    graph: Path,
    stage: Stage,
    batches: Sequence[int],
    timing_cache: bytes,
    progress: Progress,
) -> tuple[dict[str, bytes], bytes]:
    """({".plan": the engine}, the timing cache) of a stage's ONNX graph, strongly typed.

    batches: rising; there is an optimisation profile for each, which also takes the batches between
    the one before it and itself. Raises: EngineError with what TensorRT said.
    """
    backend = target.backend
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = _import(backend)
    logger = _logger(backend)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        reasons = [f"{e.node_operator()} {e.node_name()!r}: {e.desc()}" for e in errors]
        raise _failure(backend, "read", graph, [*reasons, *logger.errors])
    found_in = [network.get_input(i) for i in range(network.num_inputs)]
    found_out = [network.get_output(i) for i in range(network.num_outputs)]
    _check_tensors("inputs", graph, stage.inputs, found_in)
    _check_tensors("outputs", graph, stage.outputs, found_out)

    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    config.max_aux_streams = FLAGS["aux_streams"]
    if backend == "tensorrt-rtx":  # a run that allocates could be in no CUDA graph
        config.set_flag(_import(backend).BuilderFlag.REQUIRE_USER_ALLOCATION)
    monitor = _monitor(backend, progress)
    config.progress_monitor = monitor
    cache: trt.ITimingCache | None = None
    if backend == "tensorrt":  # for RTX measures on the user's GPU, when an engine first runs
        cache = config.create_timing_cache(timing_cache)
        if not config.set_timing_cache(cache, False):  # of another driver, say: measure anew
            cache = config.create_timing_cache(b"")
            _check(config.set_timing_cache(cache, False), backend, "set_timing_cache", logger)
    if any(spec.batched for spec in stage.inputs):
        for least, most in zip((1, *(b + 1 for b in batches)), batches, strict=False):
            profile = builder.create_optimization_profile()
            for spec in stage.inputs:
                least_shape, shape = (trt.Dims(list(spec.sized(n))) for n in (least, most))
                profile.set_shape(spec.name, least_shape, shape, shape)
            index = config.add_optimization_profile(profile)
            _check(index >= 0, backend, "add_optimization_profile", logger)
    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise _failure(backend, "build", graph, logger.errors)
    return {".plan": _bytes(plan)}, b"" if cache is None else _bytes(cache.serialize())


def _bytes(memory: Any) -> bytes:
    """A copy of an IHostMemory, which is a buffer, although its types do not say so."""
    return bytes(memory)


def _logger(backend: str) -> Any:
    """An ILogger that keeps what TensorRT calls an error, for the message of ours."""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = _import(backend)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)

    return Logger()


def _monitor(backend: str, progress: Progress) -> Any:
    """An IProgressMonitor that tells of the outermost phase; Ctrl-C ends the build at a step."""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = _import(backend)

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.interrupted = False

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt
        ) -> None:
            if parent_phase is None:
                self.steps[phase_name] = int(num_steps)

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            try:
                if phase_name in self.steps:
                    progress(phase_name, (int(step) + 1) / self.steps[phase_name])
            except KeyboardInterrupt:  # it would be lost on its way through TensorRT
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _failure(backend: str, action: str, graph: Path, reasons: Sequence[str]) -> EngineError:
    lines = [line.strip() for reason in reasons for line in reason.splitlines() if line.strip()]
    # Without a GPU every message is followed by one about the driver, which building does not need.
    lines = [line for line in lines if "catchCudaError" not in line] or lines
    version = _import(backend).__version__
    return EngineError(
        f"{backend} {version} cannot {action} {graph}: {(lines or ['no reason'])[0]}"
    )


def _check(good: bool, backend: str, call: str, logger: Any) -> None:
    if not good:
        reason = logger.errors[-1].splitlines()[0] if logger.errors else "it gives no reason"
        raise EngineError(f"{backend}: {call} failed: {reason}")


def _check_tensors(
    kind: str, where: Path, specs: Sequence[TensorSpec], found: Sequence[trt.ITensor]
) -> None:
    """Raises: EngineError when a network's tensors are not those the bundle lists."""
    listed = {spec.name: (spec.dtype, spec.shape) for spec in specs}
    came = {tensor.name: _described(tensor.dtype, tensor.shape) for tensor in found}
    if came != listed:
        raise EngineError(
            f"{where}: TensorRT finds the {kind} {came}; the bundle says {listed}: "
            "export the bundle again"
        )


def _described(dtype: trt.DataType, dims: trt.Dims) -> tuple[str, tuple[int | str, ...]]:
    """(dtype, shape) as a TensorSpec has them."""
    name = DTYPES.get(dtype.name, dtype.name.lower())
    shape = [dims[i] for i in range(len(dims))]
    return name, tuple(BATCH if i == 0 and n == -1 else n for i, n in enumerate(shape))


def engine_from_built(
    built: Built, files: Sequence[Path], graph: Path, threads: int | None
) -> TensorRtEngine:
    """The engine of a listing whose files are checked. Raises: EngineError, MissingDependency."""
    return TensorRtEngine(built, files[0])


class TensorRtEngine(GpuEngine):
    """A plan on this GPU. Its contexts share weights and nothing else."""

    def __init__(self, built: Built, plan: Path) -> None:
        super().__init__(built.target.backend, built.target.precision)
        device = cuda_device()  # Runtime() without a driver crashes later
        _check_precision(device.sm, str(device), built.target.precision)
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = _import(self.backend)
        self.version = trt.__version__
        self.inputs = {spec.name: spec for spec in built.inputs}
        self.outputs = {spec.name: spec for spec in built.outputs}
        self.batches = built.batches
        self._logger = _logger(self.backend)
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise _failure(self.backend, f"load on {device} the engine", plan, self._logger.errors)
        self._engine = engine
        self._check_io(plan)
        self.kernels: KernelCache | None = None
        if self.backend == "tensorrt-rtx":
            name = f"{plan.stem}-sm_{device.sm}"
            self.kernels = KernelCache(_import(self.backend), engine, name)
        self.caps = Caps("cuda", min(largest_batch(self.inputs), max(self.batches)), True)

    def _check_io(self, plan: Path) -> None:
        """Raises: EngineError when the plan's tensors are not those of its listing."""
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = _import(self.backend)
        engine = self._engine
        found: dict[bool, dict[str, tuple[str, tuple[int | str, ...]]]] = {True: {}, False: {}}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            dtype, shape = engine.get_tensor_dtype(name), engine.get_tensor_shape(name)
            found[is_input][name] = _described(dtype, shape)
        for came, listed in ((found[True], self.inputs), (found[False], self.outputs)):
            wanted = {name: (spec.dtype, spec.shape) for name, spec in listed.items()}
            if came != wanted:
                raise EngineError(f"{plan} has {came}; its listing says {wanted}: build it again")

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> GpuContext:
        if batch > self.caps.max_batch:
            raise EngineError(
                f"batch {batch} was asked for; this engine was built for 1 to "
                f"{self.caps.max_batch}: build it with  --batch {batch}"
            )
        return super().context(batch, stream, threads)

    def _context(self, batch: int, stream: Stream) -> TensorRtContext:
        return TensorRtContext(self, batch, stream)


class TensorRtContext(GpuContext):
    """An execution context with its own scratch memory, at one batch."""

    def __init__(self, engine: TensorRtEngine, batch: int, stream: Stream) -> None:
        super().__init__(engine.inputs, engine.outputs, batch, stream)
        self._engine = engine
        kernels, make = engine.kernels, engine._engine.create_execution_context
        context = make() if kernels is None else make(kernels.config)
        if context is None:
            raise EngineError(
                f"{engine.backend}: no memory on the GPU for a context at batch {batch}: close "
                "others, or use smaller batches"
            )
        self._context: trt.IExecutionContext | None = context
        if any(spec.batched for spec in engine.inputs.values()):
            profile = next(i for i, most in enumerate(engine.batches) if batch <= most)
            self._do(context.set_optimization_profile_async(profile, self._pointer), "profile")
            self.stream.synchronize()  # the switch must be over before the first run
            for name, spec in engine.inputs.items():
                self._do(context.set_input_shape(name, spec.sized(batch)), f"shape of {name!r}")

    def freeze(self) -> None:
        super().freeze()
        if self._engine.kernels is not None:
            self._engine.kernels.keep()

    @property
    def _pointer(self) -> int:
        return stream_pointer(self.stream)

    def _attach(self) -> None:
        context = self._context
        assert context is not None
        for name, array in self.buffers.items():
            self._do(context.set_tensor_address(name, array.data.ptr), f"address of {name!r}")
        if missing := context.infer_shapes():
            raise EngineError(f"{self._engine.backend} has no shape or address of {missing}")

    def _run(self) -> None:
        assert self._context is not None
        self._do(self._context.execute_async_v3(self._pointer), "execution")

    def _detach(self) -> None:
        self._context = None

    def _do(self, good: bool, what: str) -> None:
        """Raises: EngineError when TensorRT answered no."""
        if not good:
            _check(good, self._engine.backend, what, self._engine._logger)
