"""What the executor asks of a GPU: memory, streams, events, launches and graphs, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from pchmr_engines.engine import Array, Context

Stream = Any
Event = Any
Graph = Any
Form = tuple[tuple[int, ...], str]
"""Shape and dtype of an array."""

ALIGNMENT = 256  # bytes, what TensorRT wants of a tensor's address


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of the device under a name; its address never changes."""

    name: str
    array: Array


@dataclass(frozen=True, eq=False)
class Arena:
    """Buffers that lie in one piece of memory, to go down in one copy. offsets: bytes, of each."""

    whole: Buffer
    parts: Mapping[str, Buffer]
    offsets: Mapping[str, int]

    def split(self, host: np.ndarray) -> dict[str, np.ndarray]:
        """The parts in a downloaded copy, (bytes,) uint8."""
        found = {}
        for name, offset in self.offsets.items():
            array = self.parts[name].array
            size = prod(array.shape) * np.dtype(array.dtype).itemsize
            found[name] = host[offset : offset + size].view(array.dtype).reshape(array.shape)
        return found


@dataclass(frozen=True)
class Launch:
    """Work for a stream, and all that it reads and writes."""

    name: str
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]
    run: Callable[[], None]


class Device(Protocol):
    """A GPU, or a stand-in that proves an order of work. Not thread-safe.

    allocations: how often memory was asked for so far; `freeze` says that no more will be.
    """

    @property
    def allocations(self) -> int: ...
    def alloc(self, name: str, form: Form, shared: bool = False) -> Buffer:
        """Zeros. shared: where the host reaches it too, on a GPU that has no memory of its own."""

    def view(self, name: str, whole: Buffer, offset: int, form: Form) -> Buffer:
        """A part of a buffer of bytes."""

    def bind(self, context: Context, name: str, buffer: Buffer) -> None:
        """Let an engine's context read or write a buffer; before `freeze` only."""

    def freeze(self) -> None: ...
    def thaw(self) -> None:
        """Allow memory again, as for frames of another size."""

    def stream(self) -> Stream:
        """A new one, that waits for no other."""

    def event(self) -> Event: ...
    def record(self, event: Event, stream: Stream) -> None: ...
    def wait(self, stream: Stream, event: Event) -> None: ...
    def synchronize(self, stream: Stream) -> None: ...
    def upload(self, buffer: Buffer, host: np.ndarray, stream: Stream) -> None:
        """Queue a copy of the host's array, which may change at once."""

    def download(self, buffer: Buffer | Arena, stream: Stream) -> np.ndarray:
        """Queue a copy to page-locked memory, whole once `synchronize`d; the next overwrites it."""

    def launch(self, stream: Stream, launch: Launch) -> None: ...
    def capture(self, stream: Stream, queue: Callable[[], None], torch: bool) -> Graph:
        """What `queue` puts on `stream`, and on those that fork from it and join it again.

        torch: whether torch runs in it, which allocates from a pool of the graph's then.
        """

    def replay(self, graph: Graph, stream: Stream) -> None: ...


def pack(device: Device, name: str, forms: Mapping[str, Form]) -> Arena:
    """Buffers side by side, called `name` and their own."""
    offsets, size = {}, 0
    for part, (shape, dtype) in forms.items():
        offsets[part] = size
        size += -(-prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
    whole = device.alloc(name, ((size,), "uint8"))
    parts = {p: device.view(f"{name}.{p}", whole, offsets[p], forms[p]) for p in forms}
    return Arena(whole, parts, offsets)
