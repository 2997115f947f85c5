"""A bundle's networks on a GPU and all between them on the CPU: whatever `frames` does not run.

    page-locked inputs -> up -> network, in one CUDA graph -> down -> page-locked outputs

Stages are the CPU's own, so that every topology, network, filter and lens works as there; every
network has a stream of its own, so that branches side by side overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from pchmr_engines.backends.gpu import import_cupy
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Array, Context, Engine, Stream
from pchmr_engines.errors import EngineError, PchmrError

from .cupy_device import captured, launch, page_locked
from .device import Graph
from .parts import BACKENDS_OF_THE_GPU, backend_of_the_gpu, in_graph


@dataclass(frozen=True, kw_only=True)
class BundleOnGpu(Bundle):
    """A bundle whose engines run on the GPU, between arrays of the CPU.

    graph: each in one CUDA graph; by default where it can be.
    """

    inner: Bundle
    graph: bool | None = None
    _chosen: list[str] = field(default_factory=list)  # what "auto" has come to

    @classmethod
    def of(cls, bundle: Bundle, graph: bool | None = None) -> BundleOnGpu:
        return cls(bundle.root, bundle.manifest, bundle.trust, inner=bundle, graph=graph)

    def engine(
        self,
        name: str,
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> Engine:
        """backend: of the GPU; "auto" takes the first that runs this stage, and for the others that
        same one. threads: of no effect."""
        if backend == "auto" and self._chosen:
            backend = self._chosen[0]
        if backend != "auto":
            backend = backend_of_the_gpu(backend)
            engine = self.inner.engine(name, backend, precision=precision)
            return HostSideEngine(engine, self.graph)
        reasons = []
        for each in BACKENDS_OF_THE_GPU:
            try:
                engine = self.inner.engine(name, each, precision=precision)
            except PchmrError as error:
                reasons.append(f"{each}: {error}")
                continue
            self._chosen.append(each)
            return HostSideEngine(engine, self.graph)
        raise EngineError(
            f"no backend runs stage {name!r} of {self.manifest.name!r} on the GPU: "
            f"{'; '.join(reasons)}"
        )


class HostSideEngine:
    """An engine of the GPU, as one of the CPU: its contexts' buffers are NumPy's.

    Contexts share a stream, and so may share weights: one of them runs at a time.
    """

    def __init__(self, engine: Engine, graph: bool | None = None) -> None:
        self._engine = engine
        self._graph = in_graph([engine], graph)
        self._stream = import_cupy().cuda.Stream(non_blocking=True)
        self.backend, self.precision = engine.backend, engine.precision
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.caps = replace(engine.caps, capturable=False)  # a run waits

    def context(
        self, batch: int, stream: Stream | None = None, threads: int | None = None
    ) -> Context:
        """stream, threads: of no effect."""
        return HostSideContext(self._engine, batch, self._stream, self._graph)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array.get() for name, array in self._engine.run(feed).items()}


class HostSideContext:
    """A context of the GPU behind page-locked buffers; `enqueue` waits for the outputs."""

    def __init__(self, engine: Engine, batch: int, stream: Stream, graph: bool) -> None:
        cupy, self._stream, self._engine = import_cupy(), stream, engine
        self._context, self._graphed = engine.context(batch, stream), graph
        self._run: Callable[[], None] = self._context.enqueue
        self._inputs, self._outputs = tuple(engine.inputs), tuple(engine.outputs)
        specs = {**engine.inputs, **engine.outputs}
        buffers = {
            name: page_locked(cupy, spec.sized(batch), spec.dtype) for name, spec in specs.items()
        }
        for buffer in buffers.values():
            buffer[...] = 0  # rows beyond the people are never written
        self._buffers: Mapping[str, np.ndarray] = MappingProxyType(buffers)

    @property
    def buffers(self) -> Mapping[str, Array]:
        return self._buffers

    def bind(self, name: str, array: Array) -> None:
        """Raises: EngineError, always: the buffers are page-locked."""
        raise EngineError(f"cannot bind {name!r}: write into the context's own buffer")

    def freeze(self) -> None:
        """Raises: EngineError where the engine cannot be captured."""
        self._context.freeze()
        if self._graphed:
            graph = self._captured()
            self._run = partial(launch, graph, self._stream)
        self.enqueue()

    def _captured(self) -> Graph:
        torch = self._engine.backend == "torch-cuda"
        try:
            return captured(import_cupy(), self._stream, self._context.enqueue, torch)
        except PchmrError:
            raise
        except Exception as error:  # of CUDA, CuPy or torch
            raise EngineError(
                f"an engine of {self._engine.backend} cannot be one CUDA graph ({error}): run it "
                "without, by cuda_graph=False"
            ) from error

    def enqueue(self) -> None:
        device, stream = self._context.buffers, self._stream
        for name in self._inputs:
            device[name].set(self._buffers[name], stream=stream)
        self._run()
        for name in self._outputs:
            device[name].get(stream=stream, out=self._buffers[name], blocking=False)
        stream.synchronize()

    def close(self) -> None:
        self._run = self._context.enqueue  # the graph goes: its memory does with the context
        self._context.close()
