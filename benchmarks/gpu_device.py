"""Torch's device, and how work on it is timed: forms in turn, many launches in one CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from gpu_budget import Budget, Report

Forms = dict[str, Callable[[], Any]]

LAUNCHES = 100  # in a graph


class Device:
    """Torch's device and how its work is timed. "cpu" is for the test of this file."""

    def __init__(self, name: str) -> None:
        import torch

        self.torch, self.name, self.cuda = torch, name, name == "cuda"

    def tensor(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(array).to(self.name)

    def stream(self) -> int | None:
        return self.torch.cuda.current_stream().cuda_stream if self.cuda else None

    def time(self, call: Callable[[], Any], calls: int = 1) -> float:
        """Milliseconds a call, of `calls` in a row, on the device."""
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return 1e3 * (time.perf_counter() - start) / calls
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / calls

    def in_turn(self, forms: Forms, seconds: float, budget: Budget) -> Report:
        """Median and p95 of each form, ms; None where it runs out of memory, else what failed."""
        times: dict[str, list[float]] = {}
        report: Report = {}

        def begun(form: Callable[[], Any]) -> Callable[[], Any] | None:
            try:
                form()
                # Short ones in a row, so that the host keeps ahead of the device.
                return _repeated(form, max(1, min(50, int(1 / max(self.time(form), 1e-3)))))
            except self.torch.OutOfMemoryError:
                self.torch.cuda.empty_cache()
                return None

        for name, form in forms.items():
            found = report[name] = budget.tried(partial(begun, form))
            if callable(found):
                forms[name], times[name] = found, []
        end = time.perf_counter() + seconds
        while times and (time.perf_counter() < end or not all(times.values())):
            for name, samples in times.items():
                samples.append(self.time(forms[name]) / forms[name].calls)  # type: ignore[attr-defined]
        return {n: summary(times[n]) if n in times else why for n, why in report.items()}

    def in_graph(self, call: Callable[[], Any]) -> float:
        """Microseconds a launch, of many in one CUDA graph."""
        if not self.cuda:
            return 1e3 * self.time(call, LAUNCHES)
        stream = self.torch.cuda.Stream()
        with self.torch.cuda.stream(stream):
            call()
            stream.synchronize()
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                for _ in range(LAUNCHES):
                    call()
            graph.replay()
            return 1e3 * statistics.median(self.time(graph.replay) for _ in range(20)) / LAUNCHES

    def copy_bandwidth(self, size: int = 1 << 30) -> float:
        """Bytes read and written a second, by a copy of `size` bytes."""
        source = self.torch.zeros(size, dtype=self.torch.uint8, device=self.name)
        target = self.torch.empty_like(source)
        target.copy_(source)
        return 2e3 * size / min(self.time(lambda: target.copy_(source)) for _ in range(20))


def _repeated(form: Callable[[], Any], calls: int) -> Callable[[], Any]:
    def run() -> None:
        for _ in range(calls):
            form()

    run.calls = calls  # type: ignore[attr-defined]
    return run


def summary(samples: Iterable[float]) -> dict[str, float]:
    values = np.array(list(samples))
    p50, p95, p99 = (float(np.quantile(values, q)) for q in (0.5, 0.95, 0.99))
    return {"median_ms": p50, "p95_ms": p95, "p99_ms": p99, "samples": len(values)}
