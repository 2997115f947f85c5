"""Work for another thread, handed over so that Ctrl-C at any moment leaves both sides whole.

`queue.Queue` does not: an interrupt inside its `put` can lose the other side's wake-up, and with it
everything up to the end that is put next.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class WorkQueue(Generic[T]):
    """One thread puts, another iterates until the end. ahead: things that wait at most."""

    def __init__(self, ahead: int) -> None:
        self._things: SimpleQueue[T | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)

    def put(self, thing: T, timeout_s: float) -> bool:
        """Whether there was room for it in time."""
        try:
            self._room.get(timeout=timeout_s)
        except Empty:
            return False
        self._things.put(thing)
        return True

    def end(self) -> None:
        """Nothing more will be put; never waits."""
        self._things.put(None)

    def __iter__(self) -> Iterator[T]:
        while (thing := self._things.get()) is not None:
            self._room.put(None)
            yield thing
