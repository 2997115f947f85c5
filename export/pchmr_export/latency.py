"""Times of a stage's engines, and of torch before the export, taking turns on this CPU."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pchmr_engines.backends.openvino import has_bf16
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context, Engine

from .budgets import Arrays
from .gates import installed_backends

SECONDS = 1.5  # of each stage
LEAST_ROUNDS = 7
COMPUTED = {"openvino": ("fp32", "bf16", "int8"), "onnxruntime": ("fp32", "int8")}
"""What a backend computes in on a CPU; other precisions it only stores."""


@dataclass(frozen=True)
class StageTime:
    """label: "torch", or backend and precision. ms: median of a run at batch 1; p95 likewise."""

    stage: str
    label: str
    ms: float
    p95: float


def stage_times(
    bundle: Bundle,
    modules: Mapping[str, Callable[[], nn.Module]] | None = None,
    threads: int = 1,
) -> tuple[StageTime, ...]:
    """Every stage on every backend in every precision it computes in, on its first parity row.

    modules: stage -> what makes the module that it was exported from, to be timed as "torch".
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        for stage in bundle.manifest.stages:
            data = bundle.parity_data(stage.name)
            row = {spec.name: data[f"inputs/{spec.name}"][:1] for spec in stage.inputs if data}
            if not row:
                continue
            runs: dict[str, Callable[[], Any]] = {}
            if module := (modules or {}).get(stage.name):
                runs["torch"] = _torch_run(module(), row)
            for backend in installed_backends():
                for graph in stage.graphs:
                    if graph.suffix == ".onnx" and _computes(backend, graph.precision):
                        engine = bundle.engine(stage.name, backend, threads, graph.precision)
                        runs[f"{backend} {graph.precision}"] = _fed(engine, row).enqueue
            for label, times in interleaved(runs, SECONDS).items():
                ms = float(np.median(times)), float(np.quantile(times, 0.95))
                found.append(StageTime(stage.name, label, *ms))
        return tuple(found)
    finally:
        torch.set_num_threads(before)


def _torch_run(module: nn.Module, row: Arrays) -> Callable[[], Any]:
    inputs = [torch.from_numpy(values) for values in row.values()]

    def run() -> None:
        with torch.inference_mode():
            module(*inputs)

    return run


def _computes(backend: str, precision: str) -> bool:
    return precision in COMPUTED[backend] and (precision != "bf16" or has_bf16())


def _fed(engine: Engine, row: Arrays) -> Context:
    """A context of one row with its inputs written."""
    context = engine.context(1)
    context.freeze()
    for name, values in row.items():
        np.copyto(context.buffers[name], values)
    return context


def interleaved(runs: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each run, the runs taking turns after one that is not counted."""
    for run in runs.values():
        run()
    samples: dict[str, list[float]] = {label: [] for label in runs}
    end = time.perf_counter() + seconds
    while runs and (time.perf_counter() < end or len(next(iter(samples.values()))) < LEAST_ROUNDS):
        for label, run in runs.items():
            begin = time.perf_counter()
            run()
            samples[label].append(1e3 * (time.perf_counter() - begin))
    return samples
