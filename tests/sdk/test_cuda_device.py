"""The device through CuPy: its calls, on a CuPy that is none."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pchmr.cuda import cupy_device, ranges
from pchmr.cuda.cupy_device import CupyDevice
from pchmr.cuda.device import Launch, pack
from pchmr_engines.errors import EngineError

FORM = ((2, 3), "float32")


class Array(np.ndarray):
    """As much of a CuPy array as the device uses; copies are made at once."""

    def set(self, host: np.ndarray, stream: Any) -> None:
        self[...] = host

    def get(self, stream: Any, out: np.ndarray, blocking: bool) -> np.ndarray:
        assert not blocking
        out[...] = self
        return out


class FakeCupy:
    """Every call that is not a copy is written down."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.hooks: list[Any] = []
        call, hooks = self.calls.append, self.hooks

        class Hook:
            def __enter__(self) -> None:
                assert self not in hooks  # CuPy refuses one twice
                hooks.append(self)

            def __exit__(self, *error: object) -> None:
                hooks.remove(self)

        class Stream:
            ptr = 7

            def __init__(self, non_blocking: bool) -> None:
                assert non_blocking

            def begin_capture(self, mode: int) -> None:
                call(("begin", mode))

            def end_capture(self) -> Any:
                call("end")
                return SimpleNamespace(launch=lambda stream: call(("launch", stream)))

            def wait_event(self, event: Any) -> None:
                call(("wait", event))

            def synchronize(self) -> None:
                call("synchronize")

        class Event:
            def __init__(self, disable_timing: bool) -> None:
                assert disable_timing

            def record(self, stream: Any) -> None:
                call(("record", stream))

        self.cuda = SimpleNamespace(
            MemoryHook=Hook,
            Stream=Stream,
            Event=Event,
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: call("zeroed")),
            Device=lambda: SimpleNamespace(synchronize=lambda: call("all")),
            alloc_pinned_memory=self._pinned,
            runtime=SimpleNamespace(streamCaptureModeThreadLocal=1),
        )

    def _pinned(self, size: int) -> bytearray:
        self.calls.append(("pinned", size))
        return bytearray(size)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        for hook in self.hooks:
            hook.malloc_preprocess(device_id=0, size=0, mem_size=0)
        return np.zeros(shape, dtype).view(Array)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setattr(cupy_device, "cuda_device", lambda: None)
    monkeypatch.setattr(cupy_device, "import_cupy", lambda: fake)
    return fake


def test_copies_go_through_page_locked_memory_that_is_kept(cupy: FakeCupy) -> None:
    device = CupyDevice()
    arena = pack(device, "results", {"a": FORM, "b": ((1,), "float64")})
    stream = device.stream()
    for value in (3.0, 4.0):
        device.upload(arena.parts["a"], np.full((2, 3), value, np.float32), stream)
        device.upload(arena.parts["b"], np.array([value]), stream)
        found = arena.split(device.download(arena, stream))
        assert (found["a"] == value).all()
        assert found["b"] == value
    assert cupy.calls == ["zeroed", ("pinned", 24), ("pinned", 8), ("pinned", 512)]


def test_allocations_of_a_launch_are_counted_and_none_is_made_once_frozen(cupy: FakeCupy) -> None:
    device = CupyDevice()
    buffer = device.alloc("image", FORM)
    assert device.allocations == 1
    device.freeze()
    nothing: frozenset[Any] = frozenset()
    device.launch(device.stream(), Launch("sly", nothing, nothing, lambda: cupy.zeros(*FORM)))
    assert device.allocations == 2
    cupy.zeros(*FORM)  # of the host's own, outside
    assert device.allocations == 2
    with pytest.raises(EngineError, match="cannot allocate 'more': the device's memory is frozen"):
        device.alloc("more", FORM)
    with pytest.raises(EngineError, match="cannot bind 'image'"):
        device.bind(None, "image", buffer)  # type: ignore[arg-type]  # it does not get so far
    device.thaw()
    device.alloc("more", FORM)


def test_a_capture_is_thread_local_and_ends_after_an_error(cupy: FakeCupy) -> None:
    device = CupyDevice()
    stream, event = device.stream(), device.event()

    def queue() -> None:
        device.record(event, stream)
        device.wait(stream, event)

    graph = device.capture(stream, queue, torch=False)
    device.replay(graph, stream)
    device.synchronize(stream)
    expected = [("begin", 1), ("record", stream), ("wait", event), "end", ("launch", stream)]
    assert cupy.calls == [*expected, "synchronize"]
    cupy.calls.clear()

    def fails() -> None:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        device.capture(stream, fails, torch=False)
    assert cupy.calls == [("begin", 1), "end"]


@pytest.mark.parametrize("integrated", [True, False])
def test_a_frame_goes_up_without_a_copy_where_memory_is_shared(
    integrated: bool, cupy: FakeCupy
) -> None:
    """On a Jetson the GPU reads the frame where the host wrote it; elsewhere it is copied."""
    made = []

    def host_alloc(size: int, flags: int) -> int:
        made.append(np.full(size, 7, np.uint8))
        assert flags == 2
        return int(made[-1].ctypes.data)

    runtime, calls = cupy.cuda.runtime, cupy.calls
    runtime.cudaDevAttrIntegrated, runtime.hostAllocMapped = 18, 2
    runtime.getDevice = lambda: 0
    runtime.deviceGetAttribute = lambda attribute, device: int(integrated and attribute == 18)
    runtime.hostAlloc, runtime.freeHost = host_alloc, lambda pointer: None
    runtime.pointerGetAttributes = lambda pointer: SimpleNamespace(devicePointer=pointer)
    cupy.cuda.UnownedMemory = lambda address, size, owner, device: made[-1]
    cupy.cuda.MemoryPointer = lambda memory, offset: memory
    cupy.ndarray = lambda shape, dtype, memory: memory.view(dtype).reshape(shape).view(Array)
    device = CupyDevice()
    stream, buffer = device.stream(), device.alloc("frame", ((2, 4), "uint8"), shared=True)
    assert not buffer.array.any()
    calls.clear()
    device.upload(buffer, np.arange(8, dtype=np.uint8).reshape(2, 4), stream)
    assert (buffer.array.ravel() == range(8)).all()
    assert calls == (["synchronize"] if integrated else [("pinned", 8)])
    assert len(made) == integrated


def test_another_context_than_the_primary_one_is_said(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other() -> None:
        raise RuntimeError("the current CUDA context is not the primary one of device 0")

    monkeypatch.setattr(cupy_device, "check_context", other)
    with pytest.raises(EngineError, match="context is not the primary one of device 0"):
        CupyDevice()


def test_no_memory_is_said_by_name(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(MemoryError): ...

    def none_left(*form: Any) -> None:
        raise OutOfMemoryError

    cupy.cuda.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    monkeypatch.setattr(cupy, "zeros", none_left)
    with pytest.raises(
        EngineError, match=r"no memory on the GPU for 'basis', \(2, 3\) float32: close"
    ):
        CupyDevice().alloc("basis", FORM)


def test_nothing_is_collected_during_a_capture(cupy: FakeCupy) -> None:
    device, seen = CupyDevice(), []
    device.capture(device.stream(), lambda: seen.append(gc.isenabled()), torch=False)
    assert seen == [False]
    assert gc.isenabled()


def test_torch_captures_where_it_allocates(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class CudaGraph:
        def capture_begin(self, capture_error_mode: str) -> None:
            calls.append(("begin", capture_error_mode))

        def capture_end(self) -> None:
            calls.append("end")

        def replay(self) -> None:
            calls.append("replay")

    torch = SimpleNamespace(
        cuda=SimpleNamespace(
            ExternalStream=lambda pointer: calls.append(pointer),
            stream=lambda stream: nullcontext(),
            CUDAGraph=CudaGraph,
        )
    )
    monkeypatch.setattr("pchmr_engines.backends.torch_graph.import_torch", lambda backend: torch)
    device = CupyDevice()
    stream = device.stream()
    graph = device.capture(stream, lambda: calls.append("work"), torch=True)
    device.replay(graph, stream)
    assert calls == [7, ("begin", "thread_local"), "work", "end", "replay"]
    calls.clear()

    def fails() -> None:
        raise EngineError("no")

    monkeypatch.setattr(CudaGraph, "capture_end", lambda self: calls.append("end") or 1 / 0)
    with pytest.raises(EngineError, match="no"):  # and not what became of the capture
        device.capture(stream, fails, torch=True)
    assert calls == [7, ("begin", "thread_local"), "end"]


def test_ranges_are_shown_where_nvtx_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    def annotate(name: str, domain: str) -> Any:
        shown.append((domain, name))
        return nullcontext()

    monkeypatch.setattr(ranges, "_nvtx", lambda: SimpleNamespace(annotate=annotate))
    with ranges.span("upload"):
        pass
    monkeypatch.setattr(ranges, "_nvtx", lambda: None)
    with ranges.span("nothing"):
        pass
    assert shown == [("pchmr", "upload")]
