"""A bundle's engines on streams of their own: each alone, in a CUDA graph, and two at once; then
whole frames.

Part `pipeline` of gpu.py. Never executed on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gpu_frames
from gpu_frames import Report, compiled, percentiles, tried, whole_frames

from pchmr_engines.backends.torch_graph import TorchGraph
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context
from pchmr_engines.errors import PchmrError

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "torch-cuda")
CALLS = 300
BRANCHES = (("mesh-generator",), ("lifter", "pose3d"))  # roles, one of each runs beside the other


class Branch:
    """An engine's context on a stream of its own; on the CPU without one."""

    def __init__(self, bundle: Bundle, stage: str, backend: str, cuda: bool) -> None:
        self.stream: Any = None
        if cuda:
            import cupy

            self.cupy, self.stream = cupy, cupy.cuda.Stream(non_blocking=True)
        self.engine = bundle.engine(stage, backend, threads=1)
        self.context: Context = self.engine.context(1, self.stream, 1)
        self.context.freeze()

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def run(self) -> None:
        self.context.enqueue()
        self.wait()

    def graph(self) -> Callable[[], None] | None:
        """One launch of the recorded engine; None where it cannot be recorded."""
        if self.stream is None or not self.engine.caps.capturable:
            return None
        if self.engine.backend == "torch-cuda":
            replay = TorchGraph(self.stream.ptr, self.context.enqueue).replay
        else:
            with self.stream:
                mode = self.cupy.cuda.runtime.streamCaptureModeThreadLocal
                self.stream.begin_capture(mode=mode)
                self.context.enqueue()
                graph = self.stream.end_capture()
            replay = partial(graph.launch, self.stream)

        def launch() -> None:
            replay()
            self.wait()

        return launch


def pipeline(device: Any, options: Any) -> Report:
    """p50, p95 and p99 of every stage by backend, and how far two branches overlap."""
    try:
        bundle = Bundle.load(options.bundle, trust=True)
    except PchmrError as error:
        return {"not_tested": str(error)}
    backends = BACKENDS if device.cuda else ("onnxruntime",)
    calls = CALLS if device.cuda else 3
    report: Report = {"bundle": options.bundle}
    bundles = dict.fromkeys(backends, bundle)
    with TemporaryDirectory() as scratch:
        if device.cuda and bundle.manifest.name == "open":
            made = tried(lambda: compiled(bundle, Path(scratch) / "open"))
            if isinstance(made, str):
                report["compiled"] = made
            else:
                bundles["torch-cuda"] = made
        report["backends"] = {
            name: by_backend(each, name, device.cuda, calls) for name, each in bundles.items()
        }
        report["whole_frame"] = tried(lambda: whole_frames(bundles, device.cuda, calls))
    return report


def by_backend(bundle: Bundle, backend: str, cuda: bool, calls: int) -> Report:
    stages: Report = {}
    branches: dict[str, Branch] = {}
    for stage in bundle.manifest.stages:
        branch = tried(lambda name=stage.name: Branch(bundle, name, backend, cuda))
        if isinstance(branch, str):
            stages[stage.name] = branch
            continue
        branches[stage.name] = branch
        stages[stage.name] = {"enqueued": percentiles(branch.run, calls)}
        if (graph := branch.graph()) is not None:
            stages[stage.name]["in_graph"] = percentiles(graph, calls)
    pair = [
        next((branches[s.name] for s in bundle.manifest.stages if usable(s, roles, branches)), None)
        for roles in BRANCHES
    ]
    report: Report = {"stages": stages}
    if all(pair):
        report["overlap"] = overlap([branch for branch in pair if branch], calls)
    return report


def usable(stage: Any, roles: Sequence[str], branches: dict[str, Branch]) -> bool:
    return stage.role in roles and stage.name in branches


def overlap(pair: Sequence[Branch], calls: int) -> Report:
    """(sum - both at once) / (sum - the slower): 1 where the other costs nothing."""

    def both() -> None:
        for branch in pair:
            branch.context.enqueue()
        for branch in pair:
            branch.wait()

    alone = [percentiles(branch.run, calls)["p50_ms"] for branch in pair]
    at_once = percentiles(both, calls)["p50_ms"]
    return {
        "alone_ms": alone,
        "at_once_ms": at_once,
        "overlap": (sum(alone) - at_once) / (sum(alone) - max(alone)),
    }


def show(report: Report) -> None:
    for backend, found in report.get("backends", {}).items():
        for stage, times in found["stages"].items():
            if isinstance(times, str):
                print(f"pipeline, {backend}, {stage}: {times}")
                continue
            for how, row in times.items():
                figures = ", ".join(f"{name} {value:.3f}" for name, value in row.items())
                print(f"pipeline, {backend}, {stage}, {how}: {figures}")
        if "overlap" in found:
            print(f"pipeline, {backend}: overlap {found['overlap']['overlap']:.2f}")
    frames = report.get("whole_frame", {})
    if "compiled" in report:
        print(f"pipeline, engines of torch-cuda: {report['compiled']}")
    if isinstance(frames, str):
        print(f"pipeline, whole frame: {frames}")
    else:
        gpu_frames.show(frames)
    if "not_tested" in report:
        print(f"pipeline: not tested: {report['not_tested']}")


def failures(report: Report) -> list[str]:
    """What was tried and failed, by name."""
    found: dict[str, Any] = {"whole frame": report.get("whole_frame", {})}
    found["engines of torch-cuda"] = report.get("compiled", "")
    for backend, tables in report.get("backends", {}).items():
        found |= {f"{backend}, {stage}": row for stage, row in tables["stages"].items()}
    if not isinstance(found["whole frame"], str):
        for topology, forms in found["whole frame"].items():
            found |= {f"{topology} frame, {form}": row for form, row in forms.items()}
    return [
        name for name, row in found.items() if isinstance(row, str) and row.startswith("failed")
    ]
