"""A bundle's engines on streams of their own: each alone, in a CUDA graph, and two at once; then
whole frames.

Parts `frames` and `pipeline` of gpu.py. Never executed on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gpu_frames
from gpu_budget import Budget, Report, percentiles
from gpu_frames import Networks, compiled, whole_frames

from pchmr.cuda.cupy_device import captured, launch
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "torch-cuda")
SECONDS = 2.0  # of one engine's calls
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
        torch = self.engine.backend == "torch-cuda"
        graph = captured(self.cupy, self.stream, self.context.enqueue, torch)

        def run() -> None:
            launch(graph, self.stream)
            self.wait()

        return run


def frames(device: Any, options: Any, budget: Budget) -> Iterator[Report]:
    """Whole frames of torch's modules as they are: nothing is compiled before."""
    with TemporaryDirectory() as scratch:
        networks = Networks.of(options.bundle, Path(scratch), budget)
        report: Report = {"bundle": networks.name, "why": networks.why}
        yield report
        for found in whole_frames(networks, {}, device.cuda, budget):
            report["whole_frame"] = found
            yield report


def pipeline(device: Any, options: Any, budget: Budget) -> Iterator[Report]:
    """p50, p95 and p99 of every stage by backend, how far two branches overlap, and whole frames
    of each backend."""
    backends = BACKENDS if device.cuda else ("onnxruntime",)
    with TemporaryDirectory() as scratch:
        networks = Networks.of(options.bundle, Path(scratch), budget)
        report: Report = {"bundle": networks.name, "why": networks.why, "backends": {}}
        yield report
        if networks.bundle is None:
            return
        bundles = dict.fromkeys(backends, networks.bundle)
        if device.cuda and networks.modules:
            folder = Path(scratch) / "compiled"
            made = budget.tried(lambda: compiled(networks, folder, budget))
            if isinstance(made, str):
                report["compiled"] = made
                yield report
            else:
                bundles["torch-cuda"] = made
        seconds = SECONDS if device.cuda else 0.0
        for name, each in bundles.items():
            for found in by_backend(each, name, device.cuda, seconds, budget):
                report["backends"][name] = found
                yield report
        for found in whole_frames(networks, bundles, device.cuda, budget, False):
            report["whole_frame"] = found
            yield report


def by_backend(
    bundle: Bundle, backend: str, cuda: bool, seconds: float, budget: Budget
) -> Iterator[Report]:
    stages: Report = {}
    report: Report = {"stages": stages}
    branches: dict[str, Branch] = {}

    def alone(stage: str) -> Report:
        branch = branches[stage] = Branch(bundle, stage, backend, cuda)
        return {"enqueued": percentiles(branch.run, seconds)}

    def in_graph(branch: Branch) -> Report | None:
        graph = branch.graph()
        return None if graph is None else percentiles(graph, seconds)

    for stage in bundle.manifest.stages:
        stages[stage.name] = budget.tried(partial(alone, stage.name))
        if not isinstance(stages[stage.name], str):
            found = budget.tried(partial(in_graph, branches[stage.name]))
            stages[stage.name] |= {} if found is None else {"in_graph": found}
        yield report
    pair = [
        next((branches[s.name] for s in bundle.manifest.stages if usable(s, roles, branches)), None)
        for roles in BRANCHES
    ]
    if all(pair):
        two = [branch for branch in pair if branch]
        report["overlap"] = budget.tried(lambda: overlap(two, seconds))
        yield report


def usable(stage: Any, roles: Sequence[str], branches: dict[str, Branch]) -> bool:
    return stage.role in roles and stage.name in branches


def overlap(pair: Sequence[Branch], seconds: float) -> Report:
    """(sum - both at once) / (sum - the slower): 1 where the other costs nothing."""

    def both() -> None:
        for branch in pair:
            branch.context.enqueue()
        for branch in pair:
            branch.wait()

    alone = [percentiles(branch.run, seconds)["p50_ms"] for branch in pair]
    at_once = percentiles(both, seconds)["p50_ms"]
    return {
        "alone_ms": alone,
        "at_once_ms": at_once,
        "overlap": (sum(alone) - at_once) / (sum(alone) - max(alone)),
    }


def show(part: str, report: Report) -> None:
    if "bundle" in report:
        why = f", since {report['why']}" if report["why"] else ""
        print(f"{part}: networks and body of {report['bundle']}{why}")
    for backend, found in report.get("backends", {}).items():
        for stage, times in found["stages"].items():
            if isinstance(times, str):
                print(f"{part}, {backend}, {stage}: {times}")
                continue
            for how, row in times.items():
                print(f"{part}, {backend}, {stage}, {how}: {in_words(row)}")
        if "overlap" in found:
            both = found["overlap"]
            print(
                f"{part}, {backend}: overlap "
                + (both if isinstance(both, str) else f"{both['overlap']:.2f}")
            )
    if "compiled" in report:
        print(f"{part}, engines of torch-cuda: {report['compiled']}")
    gpu_frames.show(part, report.get("whole_frame", {}))


def in_words(row: Report | str) -> str:
    if isinstance(row, str):
        return row
    return ", ".join(f"{name} {value:.3f}" for name, value in row.items() if name != "samples")
