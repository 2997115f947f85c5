"""A GPU that is none: memory is NumPy's, and the order of work is proven, not timed.

Every launch and copy says what it reads and writes. Two of them that touch the same buffer, one of
them writing, must be ordered by their stream or by events, else they race: `Fault`. So is a
branch that does not join its graph, and memory or a binding after `freeze`. A captured graph is
replayed in another order each time, one that its streams and events allow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np
from cuda_shim.shim_runtime import FakeCuda

from pchmr.cuda.device import Arena, Buffer, Form, Launch


class Fault(AssertionError):
    """An order of work that a GPU may not follow."""


@dataclass(eq=False)
class Work:
    """Something on a stream, after the work it was queued behind and what that waited for."""

    name: str
    parents: frozenset[Work]
    run: Callable[[], None] | None = None

    def before(self, other: Work) -> bool:
        """Whether `other` cannot begin until this is over."""
        seen, left = set(), [other]
        while left:
            work = left.pop()
            if work is self:
                return True
            left += work.parents - seen
            seen |= work.parents
        return False


@dataclass(eq=False)
class Stream:
    """tail: what the next work follows. capture: the graph that is being recorded on it."""

    ptr: int = 0
    tail: frozenset[Work] = frozenset()
    capture: Capture | None = None


@dataclass(eq=False)
class Event:
    work: frozenset[Work] = frozenset()
    capture: Capture | None = None


@dataclass(eq=False)
class Capture:
    """A graph: its work in the order it was queued, and the streams that took part."""

    work: list[Work] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    accesses: list[tuple[Work, frozenset[Buffer], frozenset[Buffer]]] = field(default_factory=list)


class Recorder:
    """A `pchmr.cuda.device.Device`. poison: run each step with what it does not name made NaN."""

    def __init__(self, seed: int = 0, poison: bool = False) -> None:
        self.allocations, self.replays, self.frozen = 0, 0, False
        self._streams = 0
        self.log: list[str] = []
        self.buffers: list[Buffer] = []
        self.poison = poison
        self._random = random.Random(seed)
        self._reads: dict[Buffer, list[Work]] = {}
        self._written: dict[Buffer, Work] = {}

    # Memory

    def alloc(self, name: str, form: Form, shared: bool = False) -> Buffer:
        if self.frozen:
            raise Fault(f"{name} is allocated after freeze")
        self.allocations += 1
        return self._kept(Buffer(name, FakeCuda(np.zeros(*form))))

    def view(self, name: str, whole: Buffer, offset: int, form: Form) -> Buffer:
        shape, dtype = form
        size = prod(shape) * np.dtype(dtype).itemsize
        part = whole.array.array[offset : offset + size].view(dtype).reshape(shape)
        return self._kept(Buffer(name, FakeCuda(part)))

    def _kept(self, buffer: Buffer) -> Buffer:
        buffer.array.dtype = buffer.array.array.dtype
        self.buffers.append(buffer)
        return buffer

    def bind(self, context, name: str, buffer: Buffer) -> None:
        if self.frozen:
            raise Fault(f"{name} is bound to {buffer.name} after freeze")
        context.bind(name, buffer.array.array)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False

    # Order

    def stream(self) -> Stream:
        self._streams += 1
        return Stream(self._streams)

    def event(self) -> Event:
        return Event()

    def record(self, event: Event, stream: Stream) -> None:
        event.work, event.capture = stream.tail, stream.capture

    def wait(self, stream: Stream, event: Event) -> None:
        if event.capture is not stream.capture:
            if event.capture is None:
                raise Fault("a stream that is captured waits for an event from before")
            stream.capture = event.capture
            event.capture.streams.append(stream)
            stream.tail = frozenset()
        stream.tail |= event.work

    def synchronize(self, stream: Stream) -> None:
        if stream.capture is not None:
            raise Fault("a stream is waited for while it is captured")
        self.log.append("synchronize")

    def upload(self, buffer: Buffer, host: np.ndarray, stream: Stream) -> None:
        def copy() -> None:
            buffer.array.array[...] = host

        assert host.shape == buffer.array.shape, buffer.name
        self._queue(stream, f"upload {buffer.name}", (), (buffer,), copy)

    def download(self, buffer: Buffer | Arena, stream: Stream) -> np.ndarray:
        whole = buffer.whole if isinstance(buffer, Arena) else buffer
        reads = buffer.parts.values() if isinstance(buffer, Arena) else (buffer,)
        found = np.empty_like(whole.array.array)

        def copy() -> None:
            found[...] = whole.array.array

        self._queue(stream, f"download {whole.name}", reads, (), copy)
        return found

    def launch(self, stream: Stream, launch: Launch) -> None:
        run = (lambda: self._poisoned(launch)) if self.poison else launch.run
        self._queue(stream, launch.name, launch.reads, launch.writes, run)

    def _queue(
        self,
        stream: Stream,
        name: str,
        reads: Iterable[Buffer],
        writes: Iterable[Buffer],
        run: Callable[[], None],
    ) -> None:
        work = Work(name, stream.tail, run)
        reads, writes = frozenset(reads), frozenset(writes)
        stream.tail = frozenset({work})
        if stream.capture is not None:
            stream.capture.work.append(work)
            stream.capture.accesses.append((work, reads, writes))
            return
        self._check(work, reads, writes)
        self.log.append(name)
        run()

    def _check(self, work: Work, reads: Iterable[Buffer], writes: Iterable[Buffer]) -> None:
        """Raises: Fault where a buffer's last use is not over before this one."""
        for buffer in (*reads, *writes):
            last = self._written.get(buffer)
            if last is not None and last is not work and not last.before(work):
                raise Fault(f"{work.name} and {last.name}, which writes {buffer.name}, race")
        for buffer in writes:
            for read in self._reads.get(buffer, ()):
                if read is not work and not read.before(work):
                    raise Fault(f"{work.name} writes {buffer.name}, and {read.name} reads it: race")
        for buffer in reads:
            self._reads.setdefault(buffer, []).append(work)
        for buffer in writes:
            self._written[buffer], self._reads[buffer] = work, []

    # Graphs

    def capture(self, stream: Stream, queue: Callable[[], None], torch: bool) -> Capture:
        graph = stream.capture = Capture(streams=[stream])
        before, stream.tail = stream.tail, frozenset()
        queue()
        ends = stream.tail
        for work in graph.work:
            if not any(work.before(end) for end in ends):
                raise Fault(f"{work.name} is on a branch that does not join its graph")
        for each in graph.streams:
            each.capture, each.tail = None, frozenset()
        stream.tail = before
        return graph

    def replay(self, graph: Capture, stream: Stream) -> None:
        """In an order that is allowed, and checked against everything before."""
        self.replays += 1
        done: set[Work] = set()
        again: dict[Work, Work] = {}
        left, named = list(graph.work), {work: (r, w) for work, r, w in graph.accesses}
        while left:
            work = self._random.choice([w for w in left if w.parents <= done])
            left.remove(work)
            done.add(work)
            parents = frozenset(again[parent] for parent in work.parents) or stream.tail
            again[work] = Work(work.name, parents)
            self._check(again[work], *named[work])
            self.log.append(work.name)
            work.run()
        stream.tail = frozenset(again.values())

    def _poisoned(self, launch: Launch) -> None:
        """Run it with all else made NaN, which must stay so: does it use what it says, no more?"""
        used = launch.reads | launch.writes
        inside = [b for b in self.buffers if any(_overlap(b, u) for u in used)]
        others = [b for b in self.buffers if b not in inside]
        kept = [(b.array.array, b.array.array.copy()) for b in others]
        read = [(b, b.array.array.copy()) for b in launch.reads - launch.writes]
        for array, _ in kept:
            array.view(np.uint8)[...] = 255
        launch.run()
        for b, before in read:
            if not np.array_equal(b.array.array.view(np.uint8), before.view(np.uint8)):
                raise Fault(f"{launch.name} writes {b.name}, which it only reads")
        for b, (array, _) in zip(others, kept, strict=True):
            if not (array.view(np.uint8) == 255).all():
                raise Fault(f"{launch.name} writes {b.name}, of which it says nothing")
        for array, before in kept:
            array[...] = before


def _overlap(a: Buffer, b: Buffer) -> bool:
    return bool(np.shares_memory(a.array.array, b.array.array))
