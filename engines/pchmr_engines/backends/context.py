"""A context's life, on any device: open, frozen, closed; buffers at fixed addresses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from ..engine import Array, Context, TensorSpec
from ..errors import EngineError

WARM_UP_RUNS = 2  # the first run may still allocate and pack weights, the second runs steadily


class FixedContext(ABC, Context):
    """Buffers, binding and freezing; a device adds `_empty` and `_adopt`, a backend the rest."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], batch: int
    ) -> None:
        self.batch = batch
        self._specs = {**inputs, **outputs}
        self._outputs = frozenset(outputs)
        self._buffers = {n: self._empty(s.sized(batch), s.dtype) for n, s in self._specs.items()}
        self._state = "open"

    @property
    def buffers(self) -> Mapping[str, Array]:
        return MappingProxyType(self._buffers)

    def bind(self, name: str, array: Array) -> None:
        self._expect("open", f"bind {name!r}")
        if name not in self._specs:
            raise EngineError(f"{name!r} is no buffer; expected one of {sorted(self._specs)}")
        self._buffers[name] = self._adopt(name, array)

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
    def _empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A buffer of zeros on the device."""

    @abstractmethod
    def _adopt(self, name: str, array: Array) -> Array:
        """`array` as the device's array, without a copy.

        Raises: InputError, EngineError where it is not what the buffer must be.
        """

    @abstractmethod
    def _attach(self) -> None:
        """Give the runtime the buffers' addresses."""

    @abstractmethod
    def _run(self) -> None:
        """Compute, or queue the computation."""

    @abstractmethod
    def _detach(self) -> None:
        """Drop the runtime's objects."""
