"""Spans of a run. A pipeline that is given no `Recorder` runs none of this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from time import perf_counter_ns
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Array, Caps, Context, Engine, Stream, TensorSpec

from ..stages.base import Board, Stage

T = TypeVar("T")


class Span(NamedTuple):
    """One piece of work on a frame; nanoseconds of `time.perf_counter_ns`.

    kind: capture, queue, frame (the pipeline's whole call), find, prepare, enqueue, collect (of a
    stage), engine (one network's run), sync (wait for a GPU) or draw. thread: its identifier.
    """

    kind: str
    name: str
    begin_ns: int
    end_ns: int
    frame: int
    thread: int

    @property
    def ms(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e6


class Recorder:
    """Collects spans, some 25 a frame. Threads of one frame may add together.

    frame: the number that new spans get. on: whether there are any. Where a GPU and CuPy are there,
    spans that it opens are NVTX ranges too (never executed).
    """

    def __init__(self) -> None:
        self._taken: list[tuple[Sequence[tuple[str, str]], Sequence[int], int, int]] = []
        self.frame, self.on = 0, True
        self._nvtx = _nvtx_ranges()

    def span(self, kind: str, name: str) -> _Open:
        """A context manager that records what runs in it, as often as it is used."""
        return _Open(self, kind, name)

    def add(self, kind: str, name: str, begin_ns: int, end_ns: int) -> None:
        """A span whose times are known."""
        self.add_parts(((name, kind),), (begin_ns, end_ns))

    def add_parts(self, parts: Sequence[tuple[str, str]], times_ns: Sequence[int]) -> None:
        """Spans that follow one another. parts: name and kind. times_ns: one more."""
        self._taken.append((parts, times_ns, self.frame, get_ident()))

    @property
    def spans(self) -> list[Span]:
        """A new list of them, which is not made while a frame runs."""
        return [
            Span(kind, name, begin, end, frame, thread)
            for parts, times, frame, thread in self._taken
            for (name, kind), begin, end in zip(parts, times, times[1:], strict=False)
        ]

    def clear(self) -> None:
        """Forget all spans."""
        self._taken.clear()

    def run_stage(self, stage: Stage, board: Board) -> None:
        """What an executor does with a stage."""
        with self.span("prepare", stage.name):
            stage.prepare(board)
        with self.span("enqueue", stage.name):
            stage.enqueue()
        with self.span("collect", stage.name):
            stage.collect(board)

    def watch(self, kind: str, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """The same function, recorded."""

        span = self.span(kind, name)

        def watched(*arguments: Any) -> T:
            with span:
                return function(*arguments)

        return watched

    def bundle(self, bundle: Bundle) -> Bundle:
        """The same bundle, whose engines are recorded."""
        return _RecordedBundle(
            bundle.root, bundle.manifest, bundle.trust, inner=bundle, recorder=self
        )


class _Open:
    """A span, once it has begun."""

    __slots__ = ("_begin", "_kind", "_name", "_recorder")

    def __init__(self, recorder: Recorder, kind: str, name: str) -> None:
        self._recorder, self._kind, self._name = recorder, kind, name

    def __enter__(self) -> None:
        if not self._recorder.on:
            return
        if self._recorder._nvtx is not None:
            self._recorder._nvtx.RangePush(f"{self._kind} {self._name}")
        self._begin = perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        if not self._recorder.on:
            return
        self._recorder.add(self._kind, self._name, self._begin, perf_counter_ns())
        if self._recorder._nvtx is not None:
            self._recorder._nvtx.RangePop()


@dataclass(frozen=True, kw_only=True)
class _RecordedBundle(Bundle):
    """A bundle that gives the engines of another, recorded."""

    inner: Bundle
    recorder: Recorder

    def engine(
        self,
        name: str,
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> Engine:
        engine = self.inner.engine(name, backend, threads, precision)
        return _RecordedEngine(engine, name, self.recorder)


class _RecordedEngine:
    """An engine whose contexts record each run, under the name of their stage."""

    def __init__(self, engine: Engine, name: str, recorder: Recorder) -> None:
        self._engine, self._name, self._recorder = engine, name, recorder
        self.backend, self.precision = engine.backend, engine.precision
        self.inputs: Mapping[str, TensorSpec] = engine.inputs
        self.outputs: Mapping[str, TensorSpec] = engine.outputs
        self.caps: Caps = engine.caps

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> Context:
        context = self._engine.context(batch, stream, threads)
        return _RecordedContext(context, self._name, self._recorder)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        with self._recorder.span("engine", self._name):
            return self._engine.run(feed)


class _RecordedContext:
    def __init__(self, context: Context, name: str, recorder: Recorder) -> None:
        self._context = context
        self._span, self._sync = recorder.span("engine", name), recorder.span("sync", name)
        self._stream = getattr(context, "stream", None)  # of a GPU, where the host runs ahead
        self.bind, self.freeze, self.close = context.bind, context.freeze, context.close

    @property
    def buffers(self) -> Mapping[str, Array]:
        return self._context.buffers

    def enqueue(self) -> None:
        with self._span:
            self._context.enqueue()
        if self._stream is not None:
            with self._sync:
                self._stream.synchronize()


def _nvtx_ranges() -> ModuleType | None:
    """CuPy's NVTX module, where there is a GPU to look at with Nsight."""
    try:
        import cupy
        from cupy.cuda import nvtx
    except ImportError:
        return None
    return nvtx if cupy.cuda.is_available() else None
