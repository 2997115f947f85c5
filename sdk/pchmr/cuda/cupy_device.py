"""The GPU through CuPy. Never executed on one so far; tests/sdk/cuda_recorder.py stands in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.backends.gpu import import_cupy, nothing_collected
from pchmr_engines.backends.torch_graph import TorchGraph
from pchmr_engines.cuda_driver import cuda_device
from pchmr_engines.engine import Context
from pchmr_engines.errors import EngineError
from pchmr_kernels.cuda_host import check_context, mapped_by_cupy

from .device import Arena, Buffer, Event, Form, Graph, Launch, Stream


class CupyDevice:
    """The first GPU. Raises: EngineError without one, or in another CUDA context than its primary
    one; MissingDependency without CuPy."""

    def __init__(self) -> None:
        cuda_device()
        self._cupy = import_cupy()
        try:
            check_context()
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        self._count = _counting_hook(self._cupy)
        self._pinned: dict[str, np.ndarray] = {}
        self._mapped: dict[str, np.ndarray] = {}
        self._frozen = False

    @property
    def allocations(self) -> int:
        return int(self._count.count)

    def alloc(self, name: str, form: Form, shared: bool = False) -> Buffer:
        self._expect_thawed(f"allocate {name!r}")
        if shared and self._integrated:
            return self._shared(name, form)
        try:
            with self._count:
                buffer = Buffer(name, self._cupy.zeros(*form))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise EngineError(
                f"no memory on the GPU for {name!r}, {form[0]} {form[1]}: close what else runs on "
                "it, or follow fewer people"
            ) from error
        self._cupy.cuda.get_current_stream().synchronize()  # our streams do not wait for that one
        return buffer

    @property
    def _integrated(self) -> bool:
        """Whether CPU and GPU share their memory, as on a Jetson."""
        runtime = self._cupy.cuda.runtime
        attribute = runtime.cudaDevAttrIntegrated
        return bool(runtime.deviceGetAttribute(attribute, runtime.getDevice()))

    def _shared(self, name: str, form: Form) -> Buffer:
        mapped, cuda = mapped_by_cupy(self._cupy, *form), self._cupy.cuda
        mapped.host[...] = 0
        device = cuda.runtime.getDevice()
        memory = cuda.UnownedMemory(mapped.address, mapped.host.nbytes, mapped, device)
        array = self._cupy.ndarray(*form, cuda.MemoryPointer(memory, 0))
        self._mapped[name] = mapped.host
        return Buffer(name, array)

    def view(self, name: str, whole: Buffer, offset: int, form: Form) -> Buffer:
        shape, dtype = form
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return Buffer(name, whole.array[offset : offset + size].view(dtype).reshape(shape))

    def bind(self, context: Context, name: str, buffer: Buffer) -> None:
        self._expect_thawed(f"bind {name!r}")
        context.bind(name, buffer.array)

    def freeze(self) -> None:
        self._cupy.cuda.Device().synchronize()
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False

    def stream(self) -> Stream:
        return self._cupy.cuda.Stream(non_blocking=True)

    def event(self) -> Event:
        return self._cupy.cuda.Event(disable_timing=True)

    def record(self, event: Event, stream: Stream) -> None:
        event.record(stream)

    def wait(self, stream: Stream, event: Event) -> None:
        stream.wait_event(event)

    def synchronize(self, stream: Stream) -> None:
        stream.synchronize()

    def upload(self, buffer: Buffer, host: np.ndarray, stream: Stream) -> None:
        if (mapped := self._mapped.get(buffer.name)) is not None:
            stream.synchronize()  # nobody reads it any more
            mapped[...] = host
            return
        # The last frame's copy is over: every run is waited for before the next frame.
        pinned = self._page_locked(f"up {buffer.name}", buffer)
        pinned[...] = host
        with self._count:
            buffer.array.set(pinned, stream=stream)

    def download(self, buffer: Buffer | Arena, stream: Stream) -> np.ndarray:
        buffer = buffer.whole if isinstance(buffer, Arena) else buffer
        pinned = self._page_locked(f"down {buffer.name}", buffer)
        with self._count:
            buffer.array.get(stream=stream, out=pinned, blocking=False)
        return pinned

    def launch(self, stream: Stream, launch: Launch) -> None:
        with self._count:
            launch.run()

    def capture(self, stream: Stream, queue: Callable[[], None], torch: bool) -> Graph:
        return captured(self._cupy, stream, queue, torch)

    def replay(self, graph: Graph, stream: Stream) -> None:
        with self._count:
            launch(graph, stream)

    def _page_locked(self, key: str, buffer: Buffer) -> np.ndarray:
        array = buffer.array
        if key not in self._pinned or self._pinned[key].shape != array.shape:
            self._pinned[key] = page_locked(self._cupy, array.shape, array.dtype)
        return self._pinned[key]

    def _expect_thawed(self, action: str) -> None:
        if self._frozen:
            raise EngineError(f"cannot {action}: the device's memory is frozen")


def captured(cupy: Any, stream: Stream, queue: Callable[[], None], torch: bool) -> Graph:
    """What `queue` puts on a stream; see `Device.capture`."""
    if torch:
        return TorchGraph(stream.ptr, queue)
    with nothing_collected():
        stream.begin_capture(mode=cupy.cuda.runtime.streamCaptureModeThreadLocal)
        try:
            queue()
        except BaseException:
            with suppress(Exception):  # it may be broken, which the first error tells of
                stream.end_capture()
            raise
        return stream.end_capture()


def launch(graph: Graph, stream: Stream) -> None:
    """Queue all of it."""
    if isinstance(graph, TorchGraph):
        graph.replay()  # on the stream that it was captured on
    else:
        graph.launch(stream)


def page_locked(cupy: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An array of the host's that the GPU copies from and to by itself."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = cupy.cuda.alloc_pinned_memory(max(size, 1))
    flat: np.ndarray = np.frombuffer(memory, np.uint8, size)
    return flat.view(dtype).reshape(shape)


def _counting_hook(cupy: Any) -> Any:
    """Counts what CuPy's pool is asked for in it, by this thread."""

    class Count(cupy.cuda.MemoryHook):
        name, count = "pchmr", 0

        def malloc_preprocess(self, **_: Any) -> None:
            self.count += 1

    return Count()
