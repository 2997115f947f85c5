"""A place for one thing between two threads, in which the newest wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Neither side ever waits for the other: `put` replaces what was not taken."""

    def __init__(self) -> None:
        self.replaced = 0
        self._change = threading.Condition()
        self._thing: T | None = None

    def put(self, thing: T) -> None:
        """Offer the newest; what still lay there is counted in `replaced`."""
        with self._change:
            self.replaced += self._thing is not None
            self._thing = thing
            self._change.notify()

    def take(self, timeout_s: float) -> T | None:
        """What lies there; None if nothing came in time."""
        with self._change:
            if self._thing is None:
                self._change.wait(timeout_s)
            thing, self._thing = self._thing, None
            return thing
