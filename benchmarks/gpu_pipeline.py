"""A bundle's engines on streams of their own: each alone, in a CUDA graph, and two at once.

Part `pipeline` of gpu.py. Never executed on a GPU so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context
from pchmr_engines.errors import PchmrError

Report = dict[str, Any]

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
        mode = self.cupy.cuda.runtime.streamCaptureModeThreadLocal
        with self.stream:
            self.stream.begin_capture(mode=mode)
            self.context.enqueue()
            graph = self.stream.end_capture()

        def launch() -> None:
            graph.launch(self.stream)
            self.wait()

        return launch


def pipeline(device: Any, options: Any) -> Report:
    """p50, p95 and p99 of every stage by backend, and how far two branches overlap."""
    bundle = Bundle.load(options.bundle, trust=True)
    backends = BACKENDS if device.cuda else ("onnxruntime",)
    calls = CALLS if device.cuda else 3
    found = {backend: by_backend(bundle, backend, device.cuda, calls) for backend in backends}
    frame = "not tested: there is no CUDA executor yet"
    return {"bundle": options.bundle, "backends": found, "whole_frame": frame}


def by_backend(bundle: Bundle, backend: str, cuda: bool, calls: int) -> Report:
    stages: Report = {}
    branches: dict[str, Branch] = {}
    for stage in bundle.manifest.stages:
        try:
            branch = branches[stage.name] = Branch(bundle, stage.name, backend, cuda)
        except (PchmrError, ImportError) as error:
            stages[stage.name] = f"not tested: {error}"
            continue
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


def percentiles(call: Callable[[], None], calls: int) -> dict[str, float]:
    """Of wall time, each call waited for; the first few do not count."""
    for _ in range(3):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return {f"p{q}_ms": float(np.percentile(times, q)) for q in (50, 95, 99)}


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
    if report:
        print(f"pipeline, whole frame: {report['whole_frame']}")
