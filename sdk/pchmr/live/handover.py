"""A place for one thing between two threads, in which the newest wins."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Neither side ever waits for the other: `put` replaces what was not taken."""

    def __init__(self) -> None:
        self.replaced = 0
        self._things: SimpleQueue[T] = SimpleQueue()  # of one; an interrupt leaves it whole

    def put(self, thing: T) -> None:
        """Offer the newest; what still lay there is counted in `replaced`. For one thread."""
        try:
            self._things.get_nowait()
            self.replaced += 1
        except Empty:
            pass
        self._things.put(thing)

    def take(self, timeout_s: float) -> T | None:
        """What lies there; None if nothing came in time."""
        try:
            return self._things.get(timeout=timeout_s)
        except Empty:
            return None
