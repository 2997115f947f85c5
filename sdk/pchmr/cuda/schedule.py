"""Which step runs on which stream, and what waits for what; derived from needs and gives alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .device import Buffer, Device, Form, Stream

BEGIN = "begin"  # the event of a frame's begin on the first stream

Make = Callable[[Device, Mapping[str, Buffer], Stream], Callable[[], None]]


@dataclass(frozen=True)
class Step:
    """One launch, or an engine's run.

    needs: buffers it reads. gives: those it writes, and their forms. make: what queues it on a
    stream, made once, before anything is frozen. cost: about how long it takes, of any unit; it
    decides on streams, never on what is right.
    """

    name: str
    needs: frozenset[str]
    gives: Mapping[str, Form]
    make: Make
    cost: float = 1.0


@dataclass(frozen=True)
class Placed:
    """A step on a stream. waits: steps of other streams, or BEGIN, whose events it waits for."""

    step: Step
    stream: int
    waits: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """Steps in the order in which they are queued. joins: what the first stream waits for last."""

    placed: tuple[Placed, ...]
    joins: tuple[str, ...]

    @property
    def awaited(self) -> frozenset[str]:
        """Steps that leave an event."""
        return frozenset(self.joins).union(*(placed.waits for placed in self.placed))


def dependencies(steps: Sequence[Step]) -> dict[str, set[str]]:
    """The earlier steps that each must follow: who writes what it reads or writes, and who reads
    what it writes."""
    found: dict[str, set[str]] = {}
    for number, step in enumerate(steps):
        found[step.name] = {
            earlier.name
            for earlier in steps[:number]
            if earlier.gives.keys() & (step.needs | step.gives.keys())
            or earlier.needs & step.gives.keys()
        }
    return found


def schedule(steps: Sequence[Step], streams: int = 2) -> Schedule:
    """Steps, in an order in which they could run alone, spread over streams.

    The longest way to the end goes first, each step where it can begin the soonest.
    """
    follows = dependencies(steps)
    rank: dict[str, float] = {}
    for step in reversed(steps):
        after = [rank[later] for later, deps in follows.items() if step.name in deps]
        rank[step.name] = step.cost + max(after, default=0.0)
    free, ends, homes = [0.0] * streams, {BEGIN: 0.0}, {BEGIN: 0}
    order = sorted(steps, key=lambda step: -rank[step.name])
    for step in order:
        ready = max((ends[name] for name in follows[step.name]), default=0.0)
        last = max(follows[step.name], key=lambda name: ends[name], default=BEGIN)
        home = min(range(streams), key=lambda s: (max(free[s], ready), s != homes[last], s))
        homes[step.name] = home
        ends[step.name] = free[home] = max(free[home], ready) + step.cost
    return _with_waits(order, follows, homes, streams)


def _with_waits(
    order: Sequence[Step], follows: Mapping[str, set[str]], homes: Mapping[str, int], streams: int
) -> Schedule:
    """The fewest waits: none for what a stream has waited for already, through others too."""
    known: list[set[str]] = [{BEGIN}, *(set() for _ in range(streams - 1))]
    before: dict[str, set[str]] = {BEGIN: {BEGIN}}  # and itself
    place = {step.name: number for number, step in enumerate(order)}
    placed = []
    for step in order:
        own, waits = known[homes[step.name]], []
        for name in sorted(follows[step.name], key=lambda name: -place[name]):
            if name not in own:
                waits.append(name)
                own |= before[name]
        if BEGIN not in own:  # a stream has to fork from the first before it can be captured
            waits.append(BEGIN)
            own.add(BEGIN)
        own.add(step.name)
        before[step.name] = set(own)
        placed.append(Placed(step, homes[step.name], tuple(waits)))
    joins = []
    for stream in range(1, streams):
        last = next((p.step.name for p in reversed(placed) if p.stream == stream), None)
        if last is not None and last not in known[0]:
            joins.append(last)
    return Schedule(tuple(placed), tuple(joins))
