"""Steps made ready for one batch: buffers, engines' contexts, and one graph of all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pchmr_engines.errors import EngineError, PchmrError

from .device import Arena, Buffer, Device, Form, Graph, Launch, Stream, pack
from .ranges import span
from .schedule import BEGIN, Placed, Step, schedule


class Plan:
    """Runs its steps on two streams, or as one graph of them.

    given: buffers that no step makes. results: those that go down after each run, in one copy.
    work: the steps in the order in which they are queued. graph: of all of them, once captured.
    """

    def __init__(
        self,
        device: Device,
        name: str,
        steps: Sequence[Step],
        given: Mapping[str, Buffer],
        results: Collection[str],
        streams: Sequence[Stream],
    ) -> None:
        self.name, self._device, self._streams = name, device, streams
        forms: dict[str, Form] = {}
        for step in steps:
            forms.update(step.gives)
        own = {n: device.alloc(f"{name}.{n}", f) for n, f in forms.items() if n not in results}
        self._results: Arena = pack(device, name, {n: forms[n] for n in forms if n in results})
        self.buffers: Mapping[str, Buffer] = {**given, **own, **self._results.parts}
        self.schedule = schedule(steps, len(streams))
        self._events = {n: device.event() for n in sorted(self.schedule.awaited | {BEGIN})}
        self.work = [(each, self._made(each)) for each in self.schedule.placed]
        self.graph: Graph = None

    def _made(self, placed: Placed) -> Launch:
        step, stream = placed.step, self._streams[placed.stream]
        reads = frozenset(self.buffers[name] for name in step.needs)
        writes = frozenset(self.buffers[name] for name in step.gives)
        run = step.make(self._device, self.buffers, stream)
        return Launch(f"{self.name}.{step.name}", reads, writes, run)

    def warm_up(self, meshes: Collection[str] = ()) -> None:
        """Run once and bring everything down that ever comes down, so that nothing is compiled or
        allocated later. meshes: what `download` will be asked for."""
        self._queue()
        self._device.download(self._results, self._streams[0])
        for name in meshes:
            self._device.download(self.buffers[name], self._streams[0])
        self._device.synchronize(self._streams[0])

    def capture(self, torch: bool = False) -> None:
        """From now on a run is one launch. torch: see `Device.capture`.

        Raises: EngineError where something in it cannot be captured.
        """
        try:
            self.graph = self._device.capture(self._streams[0], self._queue, torch)
        except (PchmrError, AssertionError):
            raise
        except Exception as error:  # of CUDA, CuPy or torch
            raise EngineError(
                f"the steps {self.name!r} cannot be one CUDA graph ({error}): run them without, by "
                "cuda_graph=False"
            ) from error

    def run(self) -> dict[str, np.ndarray]:
        """Queue everything and wait; the results, overwritten by the next run."""
        device, first = self._device, self._streams[0]
        with span(self.name):
            if self.graph is None:
                self._queue()
            else:
                device.replay(self.graph, first)
            host = device.download(self._results, first)
            device.synchronize(first)
        return self._results.split(host)

    def download(self, name: str) -> np.ndarray:
        """Another buffer as the last run left it, overwritten by the next such call."""
        host = self._device.download(self.buffers[name], self._streams[0])
        self._device.synchronize(self._streams[0])
        return host

    def _queue(self) -> None:
        """Fork, run, join: each stream waits for events of the others where a step needs them."""
        device, events = self._device, self._events
        awaited = self.schedule.awaited
        if BEGIN in awaited:
            device.record(events[BEGIN], self._streams[0])
        for placed, launch in self.work:
            stream = self._streams[placed.stream]
            for name in placed.waits:
                device.wait(stream, events[name])
            with span(placed.step.name):
                device.launch(stream, launch)
            if placed.step.name in awaited:
                device.record(events[placed.step.name], stream)
        for name in self.schedule.joins:
            device.wait(self._streams[0], events[name])
