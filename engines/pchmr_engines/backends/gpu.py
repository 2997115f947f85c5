"""What the CUDA backends share: CuPy buffers, the caller's stream, and `run`.

Written against the interfaces of CuPy; no GPU has executed it yet.
"""

from __future__ import annotations

import gc
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..engine import Array, Engine, Stream, TensorSpec, check_array, check_batch, check_feed
from ..errors import EngineError, InputError, MissingDependency
from .context import FixedContext


def import_cupy() -> ModuleType:
    """The package. Raises: MissingDependency."""
    try:
        import cupy
    except ImportError as error:
        raise MissingDependency("cupy", "cuda13", "running an engine on a GPU") from error
    return cupy


def stream_pointer(stream: Stream) -> int:
    """The cudaStream_t of a CuPy or torch stream, or of an integer that is one."""
    for attribute in ("ptr", "cuda_stream"):
        if hasattr(stream, attribute):
            return int(getattr(stream, attribute))
    if isinstance(stream, int):
        return stream
    raise EngineError(f"stream is a {type(stream).__name__}; expected a CuPy or torch CUDA stream")


@dataclass(frozen=True)
class _Foreign:
    """A stream as `Stream.from_external` wants it. owner: may free it when nothing refers to it."""

    address: int
    owner: Stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def cupy_stream(stream: Stream) -> Any:
    """The same stream as CuPy's; its owner's it stays."""
    cuda = import_cupy().cuda
    if isinstance(stream, cuda.Stream):
        return stream
    address = stream_pointer(stream)
    if not hasattr(cuda.Stream, "from_external"):  # before CuPy 14
        return cuda.ExternalStream(address)
    return cuda.Stream.from_external(_Foreign(address, stream))


@contextmanager
def nothing_collected() -> Iterator[None]:
    """No garbage is collected in it: what frees memory while a stream is captured breaks that."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class GpuContext(FixedContext):
    """Device buffers and a stream; a backend adds `_attach`, `_run` and `_detach`.

    Buffers are zeroed on the stream. `freeze` waits for the warm-up; `enqueue` never waits.
    """

    def __init__(
        self,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        batch: int,
        stream: Stream,
    ) -> None:
        self.stream = cupy_stream(stream)
        self._kept = stream  # its owner may free it when nothing refers to it
        with self.stream:
            super().__init__(inputs, outputs, batch)

    def freeze(self) -> None:
        super().freeze()
        self.stream.synchronize()

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return import_cupy().zeros(shape, dtype)

    def _adopt(self, name: str, array: Array) -> Array:
        if not hasattr(array, "__cuda_array_interface__"):
            raise InputError(
                f"{name!r} is a {type(array).__module__}.{type(array).__name__}; expected an array "
                "on the GPU: use cupy.asarray"
            )
        adopted = import_cupy().asarray(array)
        check_array(self._specs[name], adopted, self.batch)
        if not adopted.flags.c_contiguous:
            raise EngineError(
                f"the array for {name!r} is not C-contiguous, so it cannot be aliased: bind its "
                "owner, or copy into the context's own buffer"
            )
        return adopted


class GpuEngine(ABC, Engine):
    """Batch and feed checks, and `run`; a backend sets the specs and adds `_context`."""

    def __init__(self, backend: str, precision: str) -> None:
        self.backend, self.precision = backend, precision
        self._lock = threading.Lock()
        self._contexts: dict[int, GpuContext] = {}

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> GpuContext:
        """A context on `stream`, or on a non-blocking one of its own. threads: of no effect."""
        check_batch(self.inputs, self.caps, batch)
        if stream is None:
            stream = import_cupy().cuda.Stream(non_blocking=True)
        return self._context(batch, stream)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs as CuPy arrays, ready; the feed may be NumPy or CuPy."""
        cupy = import_cupy()
        batch = check_feed(self.inputs, self.caps, feed)
        with self._lock:  # contexts of `run` are kept, one a batch, and are not thread-safe
            if batch not in self._contexts:
                self._contexts[batch] = self.context(batch)
                self._contexts[batch].freeze()
            context = self._contexts[batch]
            cupy.cuda.get_current_stream().synchronize()  # the feed may still be being computed
            with context.stream:
                for name, array in feed.items():
                    context.buffers[name][...] = cupy.asarray(array)
                context.enqueue()
                outputs = {name: context.buffers[name].copy() for name in self.outputs}
            context.stream.synchronize()
            return outputs

    @abstractmethod
    def _context(self, batch: int, stream: Stream) -> GpuContext:
        """A context of the backend; the batch is checked."""
