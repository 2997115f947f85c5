"""The protocol of every backend: an `Engine` holds weights, a `Context` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .errors import EngineError, InputError

BATCH = "B"  # the only symbolic dimension; always the first
UNBOUNDED = 2**31 - 1  # Caps.max_batch of an engine that takes any batch

Array = Any  # numpy.ndarray on the CPU, cupy.ndarray on the GPU; both speak DLPack
Stream = Any  # a CUDA stream; None on the CPU


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    shape: "B" (the batch) or an integer first, then integers. dtype: NumPy's name of it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    @property
    def batched(self) -> bool:
        """Whether the first dimension is the free batch."""
        return bool(self.shape) and self.shape[0] == BATCH

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape at one batch."""
        return tuple(batch if isinstance(d, str) else d for d in self.shape)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.shape))}) {self.dtype}"


@dataclass(frozen=True)
class Caps:
    """What an engine can do. max_batch: largest batch of a context; a fixed graph takes only that.

    capturable: whether `enqueue` may be recorded in a CUDA graph.
    """

    device: str
    max_batch: int
    capturable: bool


class Context(Protocol):
    """Runs an engine at one batch: one a branch and batch bucket. Not thread-safe.

    buffers: every input and output by name, at addresses that stay fixed until `close`. Write
    inputs into them, read outputs from them; `enqueue` overwrites the outputs.
    """

    @property
    def buffers(self) -> Mapping[str, Array]: ...

    def bind(self, name: str, array: Array) -> None:
        """Use `array` (an upstream output, say) as the buffer `name`; only before `freeze`."""

    def freeze(self) -> None:
        """Fix the buffers and warm up; from here on nothing is allocated or rebound."""

    def enqueue(self) -> None:
        """Compute outputs from inputs. CPU: done on return. GPU: queued, never synchronised."""

    def close(self) -> None:
        """Give the runtime's memory back; arrays taken from `buffers` stay valid."""


class Engine(Protocol):
    """Weights on one device, shareable between contexts and threads.

    backend: the name in the table of backends. precision: of the graph; "bf16" also of an
    fp32 graph that runs so.
    """

    backend: str
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    caps: Caps

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> Context:
        """A new context. threads: of the CPU, the engine's own number where None."""

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one feed, as copies: a convenience that checks the feed strictly."""


def check_batch(inputs: Mapping[str, TensorSpec], caps: Caps, batch: int) -> None:
    """Raises: EngineError when an engine cannot make a context of `batch` rows."""
    if not 1 <= batch <= caps.max_batch:
        raise EngineError(
            f"batch {batch} was asked for; this engine takes 1 to {caps.max_batch}: "
            "split the rows over several runs"
        )
    if batch != caps.max_batch and not any(spec.batched for spec in inputs.values()):
        raise EngineError(
            f"batch {batch} was asked for; the graph is fixed at batch {caps.max_batch}: "
            "export it with a symbolic first dimension"
        )


def check_feed(inputs: Mapping[str, TensorSpec], caps: Caps, feed: Mapping[str, Array]) -> int:
    """The batch of a feed whose names, dtypes and shapes are exactly the engine's.

    Raises: InputError, which says what came, what was expected and how to mend it.
    """
    if feed.keys() != inputs.keys():
        missing, extra = sorted(inputs.keys() - feed.keys()), sorted(feed.keys() - inputs.keys())
        raise InputError(
            f"the feed names {sorted(feed)}; expected {sorted(inputs)}: "
            f"add {missing}, leave out {extra}"
        )
    sizes = (len(feed[n]) for n, spec in inputs.items() if spec.batched and np.ndim(feed[n]))
    batch = next(sizes, caps.max_batch)
    for name, spec in inputs.items():
        check_array(spec, feed[name], batch)
    return batch


def check_array(spec: TensorSpec, array: Array, batch: int) -> None:
    """Raises: InputError when `array` is not `spec` at this batch."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise InputError(
            f"{spec.name!r} is a {type(array).__name__}; expected an array: use numpy.asarray"
        )
    if str(array.dtype) != spec.dtype:
        raise InputError(
            f"{spec.name!r} is {array.dtype}; expected {spec.dtype}: "
            f"convert it with .astype({spec.dtype!r})"
        )
    if tuple(array.shape) != spec.sized(batch):
        raise InputError(
            f"{spec.name!r} has shape {tuple(array.shape)}; expected "
            f"({', '.join(map(str, spec.shape))}) with B = {batch}: all inputs of a run share one "
            "batch and the other dimensions are fixed"
        )
