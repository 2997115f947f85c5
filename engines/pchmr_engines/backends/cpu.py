"""What the CPU backends share: NumPy buffers at fixed addresses, and a context's life."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ..engine import (
    BATCH,
    UNBOUNDED,
    Caps,
    Context,
    Engine,
    Stream,
    TensorSpec,
    check_array,
    check_batch,
    check_feed,
)
from ..errors import EngineError
from ..host import usable_cpus

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
WARM_UP_RUNS = 2  # the first run may still allocate and pack weights, the second runs steadily


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


def caps_from_specs(inputs: Mapping[str, TensorSpec]) -> Caps:
    """Caps of a CPU engine: any batch, or the one its graph is fixed at."""
    if any(spec.batched for spec in inputs.values()):
        return Caps("cpu", UNBOUNDED, False)
    first = next((spec for spec in inputs.values() if spec.shape), None)
    return Caps("cpu", first.sized(1)[0] if first else 1, False)


def aligned_zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros whose address is a multiple of ALIGNMENT."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class CpuContext(ABC, Context):
    """Buffers, binding and freezing; a backend adds `_attach` and `_run`."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], batch: int
    ) -> None:
        self.batch = batch
        self._specs = {**inputs, **outputs}
        self._outputs = frozenset(outputs)
        self._buffers = {n: aligned_zeros(s.sized(batch), s.dtype) for n, s in self._specs.items()}
        self._state = "open"

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        return MappingProxyType(self._buffers)

    def bind(self, name: str, array: np.ndarray) -> None:
        self._expect("open", f"bind {name!r}")
        if name not in self._specs:
            raise EngineError(f"{name!r} is no buffer; expected one of {sorted(self._specs)}")
        check_array(self._specs[name], array, self.batch)
        if not array.flags.c_contiguous or not array.flags.writeable:
            raise EngineError(
                f"the array for {name!r} is not a C-contiguous writable array, so it cannot be "
                "aliased: bind its owner, or copy into the context's own buffer"
            )
        self._buffers[name] = array

    def freeze(self) -> None:
        self._expect("open", "freeze")
        self._attach()
        self._state = "frozen"
        for _ in range(WARM_UP_RUNS):
            self._run()

    def enqueue(self) -> None:
        if self._state != "frozen":
            self._expect("frozen", "enqueue")
        self._run()

    def close(self) -> None:
        self._state = "closed"
        self._detach()

    def _expect(self, state: str, action: str) -> None:
        if self._state != state:
            raise EngineError(
                f"cannot {action}: the context is {self._state}, expected {state} "
                "(the order is bind, freeze, enqueue, close; make a new context to bind anew)"
            )

    @abstractmethod
    def _attach(self) -> None:
        """Give the runtime the buffers' addresses."""

    @abstractmethod
    def _run(self) -> None:
        """Compute."""

    @abstractmethod
    def _detach(self) -> None:
        """Drop the runtime's objects."""


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
