"""A followed frame on the GPU: eager torch modules, engines, and engines in one CUDA graph.

Of gpu.py's part `pipeline`. A frame goes up, its people are followed, results come down; meshes
stay. Beside that the graph alone, against the kernels of its longest path and the same steps
on one stream. Never executed on a GPU so far: tests/sdk/test_gpu_frames.py runs it on stand-ins.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pchmr import Camera
from pchmr.assets import fetch
from pchmr.cuda.executor import load_frames
from pchmr.cuda.frames import Frames
from pchmr.cuda.plan import Plan
from pchmr.cuda.schedule import Step, dependencies
from pchmr.media import open_source
from pchmr_engines.backends.cpu import largest_batch
from pchmr_engines.backends.gpu import GpuContext, GpuEngine
from pchmr_engines.backends.torch import TorchCudaContext, import_torch
from pchmr_engines.build import build_engines
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Caps, Engine, Stream
from pchmr_engines.errors import EngineError, PchmrError
from pchmr_engines.manifest import Stage

Report = dict[str, Any]

TOPOLOGIES = ("serial", "parallel")
ROLES = {
    "detector": "detector",
    "tracker": "tracker",
    "mesh-generator": "generator",
    "lifter": "lifter",
}
REPEATS = 20  # of a step in its graph, and of a graph in a row: the host keeps ahead of the device
ROUNDS = 9
WARM_UP = 3  # calls that do not count
BUILD_S = 200.0  # the last stage is begun before


class EagerEngine(GpuEngine):
    """A torch module as it is, in place of what is compiled from it."""

    def __init__(self, stage: Stage, module: Any) -> None:
        super().__init__("torch-cuda", "fp32")  # captured with torch's graph pool, as that is
        self._torch: Any = import_torch("torch-cuda")
        self.inputs = {spec.name: spec for spec in stage.inputs}
        self.outputs = {spec.name: spec for spec in stage.outputs}
        self.caps = Caps("cuda", largest_batch(self.inputs), True)
        self._module = module.to("cuda")
        self._torch.cuda.synchronize()  # the contexts' streams wait for no other

    def _context(self, batch: int, stream: Stream) -> GpuContext:
        return TorchCudaContext(self, self._module, batch, stream)  # type: ignore[arg-type]


def eager_engines(bundle: Bundle) -> dict[str, Engine]:
    """By role. Raises: EngineError where the bundle's networks are not those of `open`."""
    from pchmr_export.torch_programs import open_modules

    modules = open_modules()
    if others := bundle.stages.keys() - modules.keys():
        raise EngineError(f"no torch modules of the stages {', '.join(sorted(others))}")
    return {
        ROLES[stage.role]: EagerEngine(stage, modules[stage.name])
        for stage in bundle.manifest.stages
    }


def compiled(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of the bundle `open` with its engines of torch-cuda, compiled here: minutes.

    Raises: EngineError, also where that takes too long.
    """
    from pchmr_export.torch_programs import add_programs, open_modules

    end = time.monotonic() + BUILD_S
    bundle = add_programs(bundle, open_modules(), folder)
    for stage in bundle.manifest.stages:
        if time.monotonic() > end:
            raise EngineError(f"torch compiles too slowly here: {stage.name} was not begun")
        list(build_engines(bundle, "torch-cuda", "fp32", [stage.name]))
    return bundle


class Follower:
    """One person of the demo video's first frame, followed in it again and again."""

    def __init__(self, frames: Frames, image: np.ndarray) -> None:
        self._frames, self._image = frames, image
        self._camera = Camera.from_size(*image.shape[1::-1])
        frames.begin(image, self._camera)
        self._rois = [(frames.detect() or frames.look_closer())[0].roi]

    def __call__(self) -> None:
        self._frames.begin(self._image, self._camera)
        self._rois = [person.next_roi for person in self._frames.follow(self._rois)]


def whole_frames(bundles: Mapping[str, Bundle], cuda: bool, calls: int) -> Report:
    """By topology and form, eager first. bundles: by backend; the first one's is the eager form's.

    What cannot run here is "not tested: why"; any other error "failed: why". Raises: AssetError.
    """
    with open_source(str(fetch("demo_video"))) as source:
        image = next(iter(source)).image
    first = next(iter(bundles.values()))
    eager = tried(lambda: eager_engines(first))
    forms: dict[str, Report | str] = {"eager": eager if isinstance(eager, str) else {}}
    if not isinstance(eager, str):
        forms["eager"] = {"bundle": first, "engines": eager, "graph": False}
    for backend, bundle in bundles.items():
        forms[backend] = {"bundle": bundle, "backend": backend, "graph": False}
        forms[f"{backend} + graph"] = {"bundle": bundle, "backend": backend, "graph": True}
    if not isinstance(eager, str):
        forms["eager + graph"] = {"bundle": first, "engines": eager, "graph": True}

    def measured(given: Report | str, topology: str) -> Report | str:
        if isinstance(given, str):
            return given
        return tried(lambda: one_form({**given, "topology": topology}, image, cuda, calls))

    return {
        topology: {form: measured(given, topology) for form, given in forms.items()}
        for topology in TOPOLOGIES
    }


def tried(call: Callable[[], Any]) -> Any:
    """What `call` gives, or why it does not: the rest is worth having."""
    try:
        return call()
    except (PchmrError, ImportError) as error:
        return f"not tested: {error}"
    except Exception as error:  # of CUDA, CuPy or torch
        return f"failed: {type(error).__name__}: {error}"


def one_form(given: Report, image: np.ndarray, cuda: bool, calls: int) -> Report:
    """given: of `load_frames`."""
    frames = load_frames(**given)
    report: Report = dict(percentiles(Follower(frames, image), calls))
    if given["graph"]:
        one = load_frames(**given, streams=1)
        Follower(one, image)()
        report |= of_the_graph(frames, one, cuda)
    return report


def of_the_graph(frames: Frames, one_stream: Frames, cuda: bool) -> Report:
    """On the device's clock: the graph, its longest path, and how far its branches overlap.

    overlap: (one stream - graph) / (one stream - longest path), 1 where all but that path is free;
    absent where it is all there is.
    """
    plan, timer = frames.plans[1], Timer(frames, cuda)
    steps = {
        placed.step.name: timer.step(plan, number) for number, (placed, _) in enumerate(plan.work)
    }
    longest = critical_path([placed.step for placed, _ in plan.work], steps)
    path = sum(steps[name] for name in longest)
    graph, single = timer.graph(plan), Timer(one_stream, cuda).graph(one_stream.plans[1])
    report: Report = {
        "graph_ms": graph,
        "critical_path_ms": path,
        "graph_by_critical_path": graph / path,
        "critical_path": longest,
        "one_stream_ms": single,
        "steps_us": {name: 1e3 * value for name, value in steps.items()},
    }
    if len(longest) < len(steps) and single > path:
        report["overlap"] = (single - graph) / (single - path)
    return report


class Timer:
    """Times what lies on the streams of `frames`; by the host's clock where there is no GPU."""

    def __init__(self, frames: Frames, cuda: bool) -> None:
        self._frames, self._device, self._cuda = frames, frames.device, cuda

    def step(self, plan: Plan, number: int) -> float:
        """Milliseconds of a step, of many in a graph of their own: no launches from the host."""
        placed, launch = plan.work[number]
        first, stream = self._frames.streams[0], self._frames.streams[placed.stream]

        def queue() -> None:
            for _ in range(REPEATS):
                self._device.launch(stream, launch)

        self._behind(stream, first)
        graph = self._device.capture(stream, queue, self._frames.torch)
        found = self._ms(stream, lambda: self._device.replay(graph, stream)) / REPEATS
        self._behind(first, stream)
        return found

    def graph(self, plan: Plan) -> float:
        """Milliseconds of a frame's graph, without the frame's way up and the results' way down."""
        first = self._frames.streams[0]
        return self._ms(first, lambda: self._device.replay(plan.graph, first))

    def _behind(self, stream: Any, other: Any) -> None:
        if stream is not other:
            event = self._device.event()
            self._device.record(event, other)
            self._device.wait(stream, event)

    def _ms(self, stream: Any, call: Callable[[], None]) -> float:
        call()
        return statistics.median(self._in_a_row(stream, call) for _ in range(ROUNDS))

    def _in_a_row(self, stream: Any, call: Callable[[], None]) -> float:
        if not self._cuda:
            start = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - start)
        import cupy

        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(stream)
        for _ in range(REPEATS):
            call()
        end.record(stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end)) / REPEATS


def critical_path(steps: Sequence[Step], times: Mapping[str, float]) -> list[str]:
    """The steps, each needing the one before, that take the longest together."""
    ways: dict[str, list[str]] = {}

    def length(way: Sequence[str]) -> float:
        return sum(times[name] for name in way)

    for name, needs in dependencies(steps).items():
        ways[name] = [*max((ways[need] for need in needs), key=length, default=[]), name]
    return max(ways.values(), key=length)


def percentiles(call: Callable[[], None], calls: int) -> dict[str, float]:
    """Of wall time, each call waited for."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return {f"p{q}_ms": float(np.percentile(times, q)) for q in (50, 95, 99)}


def show(report: Report) -> None:
    for topology, forms in report.items():
        for form, row in forms.items():
            line = row if isinstance(row, str) else in_words(row)
            print(f"pipeline, {topology} frame, {form}: {line}")


def in_words(row: Report) -> str:
    parts = [f"p{q} {row[f'p{q}_ms']:.3f}" for q in (50, 95, 99)]
    if "graph_ms" in row:
        ratio = row["graph_by_critical_path"]
        parts.append(f"graph {row['graph_ms']:.3f} = {ratio:.2f} x critical path")
    if "overlap" in row:
        parts.append(f"overlap {row['overlap']:.2f}")
    return f"{', '.join(parts)}; ms"
