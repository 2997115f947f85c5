"""What the CPU backends share: specs of a graph, NumPy buffers, and `run`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from ..engine import (
    BATCH,
    UNBOUNDED,
    Engine,
    Stream,
    TensorSpec,
    check_array,
    check_batch,
    check_feed,
)
from ..errors import EngineError
from ..host import usable_cpus
from .context import FixedContext

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def spec_from_graph(
    name: str, shape: tuple[int | str | None, ...], dtype: str, where: str
) -> TensorSpec:
    """The spec of a graph's input or output. shape: anything but an integer is a free dimension.

    Raises: EngineError when a dimension other than the first is free.
    """
    if any(not isinstance(d, int) for d in shape[1:]):
        raise EngineError(
            f"{where}: {name!r} has shape {shape}; only the first dimension may be free: "
            "fix the others when exporting"
        )
    return TensorSpec(name, tuple(d if isinstance(d, int) else BATCH for d in shape), dtype)


def largest_batch(inputs: Mapping[str, TensorSpec]) -> int:
    """Any (UNBOUNDED), or the batch that a graph is fixed at."""
    if any(spec.batched for spec in inputs.values()):
        return UNBOUNDED
    return next((spec.sized(1)[0] for spec in inputs.values() if spec.shape), 1)


def aligned_zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros whose address is a multiple of ALIGNMENT."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class CpuContext(FixedContext):
    """Aligned NumPy buffers; a backend adds `_attach`, `_run` and `_detach`."""

    def _empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return aligned_zeros(shape, dtype)

    def _adopt(self, name: str, array: np.ndarray) -> np.ndarray:
        check_array(self._specs[name], array, self.batch)
        if not array.flags.c_contiguous or not array.flags.writeable:
            raise EngineError(
                f"the array for {name!r} is not a C-contiguous writable array, so it cannot be "
                "aliased: bind its owner, or copy into the context's own buffer"
            )
        return array


class CpuEngine(ABC, Engine):
    """Batch and feed checks, and `run`; a backend sets the specs and adds `_context`."""

    def __init__(self, precision: str, threads: int | None) -> None:
        self.precision = precision
        self.threads = threads or usable_cpus()
        self._lock = threading.Lock()
        self._contexts: dict[int, CpuContext] = {}

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> CpuContext:
        if stream is not None:
            raise EngineError(f"{self.backend} runs on the CPU: pass stream=None")
        check_batch(self.inputs, self.caps, batch)
        return self._context(batch, threads or self.threads)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = check_feed(self.inputs, self.caps, feed)
        with self._lock:  # contexts of `run` are kept, one a batch, and are not thread-safe
            if batch not in self._contexts:
                context = self.context(batch)
                context.freeze()
                self._contexts[batch] = context
            context = self._contexts[batch]
            for name, array in feed.items():
                np.copyto(context.buffers[name], array)
            context.enqueue()
            return {name: context.buffers[name].copy() for name in self.outputs}

    @abstractmethod
    def _context(self, batch: int, threads: int) -> CpuContext:
        """A context of the backend; batch and threads are checked."""
