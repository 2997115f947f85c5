"""A followed frame on the GPU: eager torch modules, engines, and engines in one CUDA graph.

Of gpu.py's part `pipeline`. A frame goes up, its people are followed, results come down; meshes
stay. Beside that the graph alone, against the kernels of its longest path and the same steps
on one stream. Never executed on a GPU so far: tests/sdk/test_gpu_frames.py runs it on stand-ins.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_budget import Budget, Report, percentiles

from pchmr import Camera
from pchmr.assets import cached
from pchmr.cuda.executor import load_frames
from pchmr.cuda.frames import Frames
from pchmr.cuda.plan import Plan
from pchmr.cuda.schedule import Step, dependencies
from pchmr_engines.backends.cpu import largest_batch
from pchmr_engines.backends.gpu import GpuContext, GpuEngine
from pchmr_engines.backends.torch import TorchCudaContext, import_torch
from pchmr_engines.build import build_engines
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Caps, Engine, Stream
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import Stage

TOPOLOGIES = ("serial", "parallel")
ROLES = {
    "detector": "detector",
    "tracker": "tracker",
    "mesh-generator": "generator",
    "lifter": "lifter",
}
REPEATS = 20  # of a step in its graph, and of a graph in a row: the host keeps ahead of the device
ROUNDS = 9
SECONDS = 3.0  # of frames
COMPILING = 0.6  # of the time there is; the last stage is begun before


@dataclass(frozen=True)
class Networks:
    """What is measured. modules: of torch, by stage. image: a frame. why: it is not what was asked
    for."""

    bundle: Bundle | None
    modules: Mapping[str, Any] = field(default_factory=dict)
    image: np.ndarray = field(default_factory=lambda: np.zeros((90, 160, 3), np.uint8))
    why: str = ""

    @property
    def name(self) -> str:
        return self.bundle.manifest.name if self.bundle else "none"

    @classmethod
    def of(cls, name: str, folder: Path, budget: Budget) -> Networks:
        """A bundle's, or made-up ones in `folder` where `open` cannot be had here."""
        if name != "open":
            found = budget.tried(lambda: cls(Bundle.load(name, trust=True), image=frame()))
            return cls(None, why=found) if isinstance(found, str) else found
        from pchmr_export.open_bundle import open_bundle
        from pchmr_export.torch_programs import open_modules

        def there() -> Networks:
            return cls(Bundle.load(open_bundle(), trust=True), open_modules(), frame())

        if not isinstance(found := budget.tried(there), str):
            return found
        import made_up

        why = f"open cannot be had: {found}"
        made = budget.tried(lambda: made_up.made_up_bundle(folder / "made-up"))
        if isinstance(made, str):
            return cls(None, why=f"{made}; and {why}")
        return cls(made, made_up.modules(), made_up.picture(), why)


def frame() -> np.ndarray:
    """The demo video's first, where it is in the cache; nobody is in the other one."""
    import cv2

    path = cached("demo_video")
    read, image = cv2.VideoCapture(str(path)).read() if path else (False, None)
    if not read:
        raise EngineError("the demo video is not in the cache, or OpenCV cannot read it")
    return np.asarray(image)


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


def eager_engines(networks: Networks) -> dict[str, Engine]:
    """By role. Raises: EngineError where stages have no modules."""
    assert networks.bundle is not None
    if others := networks.bundle.stages.keys() - networks.modules.keys():
        raise EngineError(f"no torch modules of the stages {', '.join(sorted(others))}")
    return {
        ROLES[stage.role]: EagerEngine(stage, networks.modules[stage.name])
        for stage in networks.bundle.manifest.stages
    }


def compiled(networks: Networks, folder: Path, budget: Budget) -> Bundle:
    """A copy of the bundle with its engines of torch-cuda, compiled here: minutes.

    Raises: EngineError, also where that takes too long.
    """
    from pchmr_export.torch_programs import add_programs

    least = (1 - COMPILING) * budget.left
    assert networks.bundle is not None
    bundle = add_programs(networks.bundle, networks.modules, folder)
    for stage in bundle.manifest.stages:
        if budget.left < least:
            raise EngineError(f"torch compiles too slowly here: {stage.name} was not begun")
        list(build_engines(bundle, "torch-cuda", "fp32", [stage.name]))
    return bundle


class Follower:
    """One person of a frame, followed in it again and again."""

    def __init__(self, frames: Frames, image: np.ndarray) -> None:
        self._frames, self._image = frames, image
        self._camera = Camera.from_size(*image.shape[1::-1])
        frames.begin(image, self._camera)
        self._rois = [(frames.detect() or frames.look_closer())[0].roi]

    def __call__(self) -> None:
        self._frames.begin(self._image, self._camera)
        self._rois = [person.next_roi for person in self._frames.follow(self._rois)]


def whole_frames(
    networks: Networks,
    bundles: Mapping[str, Bundle],
    cuda: bool,
    budget: Budget,
    eager: bool = True,
) -> Iterator[Report]:
    """By topology and form, after each of them. bundles: by backend. eager: torch's modules too."""
    forms: dict[str, Report | str] = {}
    if networks.bundle is None:
        return
    if eager:
        engines = budget.tried(lambda: eager_engines(networks))
        for graph in (False, True):
            given = {"bundle": networks.bundle, "engines": engines, "graph": graph}
            forms["eager + graph" if graph else "eager"] = (
                engines if isinstance(engines, str) else given
            )
    for backend, bundle in bundles.items():
        forms[backend] = {"bundle": bundle, "backend": backend, "graph": False}
        forms[f"{backend} + graph"] = {"bundle": bundle, "backend": backend, "graph": True}
    report: Report = {topology: {} for topology in TOPOLOGIES}
    for topology in TOPOLOGIES:
        for name, form in forms.items():
            report[topology][name] = form
            if not isinstance(form, str):
                given = {**form, "topology": topology}
                call = partial(one_form, given, networks.image, cuda, SECONDS)
                report[topology][name] = budget.tried(call)
            yield report


def one_form(given: Report, image: np.ndarray, cuda: bool, seconds: float) -> Report:
    """given: of `load_frames`."""
    frames = load_frames(**given)
    report: Report = dict(percentiles(Follower(frames, image), seconds))
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


def show(part: str, report: Report) -> None:
    for topology, forms in report.items():
        for form, row in forms.items():
            line = row if isinstance(row, str) else in_words(row)
            print(f"{part}, {topology} frame, {form}: {line}")


def in_words(row: Report) -> str:
    parts = [f"p{q} {row[f'p{q}_ms']:.3f}" for q in (50, 95, 99)]
    if "graph_ms" in row:
        ratio = row["graph_by_critical_path"]
        parts.append(f"graph {row['graph_ms']:.3f} = {ratio:.2f} x critical path")
    if "overlap" in row:
        parts.append(f"overlap {row['overlap']:.2f}")
    return f"{', '.join(parts)}; ms"
