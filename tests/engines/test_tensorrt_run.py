"""How the TensorRT backend runs an engine, against a GPU that writes down what it is told.

That TensorRT does what it is told is not shown by this: no engine was ever executed.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
from fake_gpu import Calls, DeviceArray, fake_cupy, fake_tensorrt

from pchmr_engines import cuda_driver
from pchmr_engines.backends import gpu, tensorrt
from pchmr_engines.cuda_driver import CudaDevice, cuda_device
from pchmr_engines.device_engines import Built
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import EngineError, InputError
from pchmr_engines.manifest import FileRef

L4 = CudaDevice("NVIDIA L4", 89, "12.6")


@pytest.fixture
def calls(monkeypatch):
    """What the fake GPU was told; also put in place of the real packages and driver."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(calls))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(calls))
    monkeypatch.setattr(tensorrt, "cuda_device", lambda: L4)
    return calls


@pytest.fixture
def make(calls, tmp_path):
    """`make(**changes)`: an engine of x (B, 3) -> y (B, 3), built for batches 1 and 4."""
    (tmp_path / "x.plan").write_bytes(b"plan")

    built = Built(
        "doubler",
        tensorrt.target("tensorrt", "fp32"),
        "0" * 64,
        (1, 4),
        (TensorSpec("x", ("B", 3), "float32"),),
        (TensorSpec("y", ("B", 3), "float32"),),
        (FileRef("x.plan", "0" * 64),),
    )

    def engine(**changes):
        changed = replace(built, **changes)
        return tensorrt.engine_from_built(changed, [tmp_path / "x.plan"], tmp_path, None)

    return engine


@pytest.mark.parametrize(("batch", "profile"), [(1, 0), (2, 1), (4, 1)])
def test_outputs_come_from_the_addresses_and_the_profile_of_the_batch(make, calls, batch, profile):
    x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
    engine = make()
    for _ in range(2):
        y = engine.run({"x": x})["y"]
        np.testing.assert_array_equal(y.get(), 2 * x)
    assert ("profile", profile, 7) in calls
    assert ("shape", "x", (batch, 3)) in calls
    assert calls.names().count("context") == 1


def test_a_frozen_context_only_executes_and_never_waits(make, calls):
    class Stream:
        ptr = 21

    context = make().context(4, Stream())
    context.freeze()
    del calls[:]
    context.buffers["x"][...] = DeviceArray(np.ones((4, 3), np.float32))
    context.enqueue()
    assert calls == [("execute", 21)]
    assert (context.buffers["y"].get() == 2).all()
    with pytest.raises(EngineError, match="the context is frozen, expected open"):
        context.bind("x", context.buffers["x"])


def test_a_bound_array_is_read_where_it_is(make):
    context = make().context(2)
    upstream = DeviceArray(np.full((2, 3), 5, np.float32))
    context.bind("x", upstream)
    context.freeze()
    assert (context.buffers["y"].get() == 10).all()
    upstream.host[:] = 1
    context.enqueue()
    assert (context.buffers["y"].get() == 2).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), "'x' is a numpy.ndarray; expected an array on the GPU"),
        (DeviceArray(np.zeros((2, 3))), "'x' is float64; expected float32"),
        (DeviceArray(np.zeros((2, 4), np.float32)), r"'x' has shape \(2, 4\)"),
        (DeviceArray(np.zeros((3, 2), np.float32).T), "is not C-contiguous, so it cannot be"),
    ],
)
def test_what_cannot_be_bound_is_named(make, array, message):
    with pytest.raises((InputError, EngineError), match=message):
        make().context(2).bind("x", array)


@pytest.mark.parametrize("call", ["profile", "shape", "address", "infer", "execute", "context"])
def test_every_no_of_tensorrt_is_an_error(make, calls, call):
    calls.failing.add(call)
    with pytest.raises(EngineError, match=r"tensorrt(: | has no)"):
        make().run({"x": np.zeros((1, 3), np.float32)})


def test_kernels_of_rtx_are_compiled_at_once_and_kept_for_the_next_time(
    make, calls, monkeypatch, tmp_path
):
    """In the user's cache, for a bundle brings no code; a cache of another driver is made anew."""
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", sys.modules["tensorrt"])
    target = tensorrt.target("tensorrt-rtx", "fp32")
    assert target.flags["user_allocation"]
    make(target=target).context(1).freeze()
    (config,) = (call[1] for call in calls if call[0] == "context")
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
    kept = tmp_path / "tensorrt-rtx/x-sm_89.cache"
    assert kept.read_bytes() == b"compiled"
    assert "deserialize kernels" not in calls.names()
    before = kept.stat().st_mtime_ns
    make(target=target).context(1).freeze()
    assert ("deserialize kernels", b"compiled") in calls
    assert kept.stat().st_mtime_ns == before  # nothing new was compiled
    kept.write_bytes(b"of another driver")
    calls.failing.add("deserialize kernels")
    make(target=target).context(1).freeze()
    assert kept.read_bytes() == b"compiled"
    calls.failing.add("set_runtime_cache")
    with pytest.raises(EngineError, match="tensorrt-rtx: set_runtime_cache failed"):
        make(target=target)


def test_tensorrt_itself_has_no_such_cache(make, calls):
    make().context(1).freeze()
    assert ("context",) in calls


def test_streams_of_others_stay_theirs(calls):
    """CuPy 14 takes them by a protocol, earlier ones by their address; its own are taken as is."""
    cuda = sys.modules["cupy"].cuda
    own = cuda.Stream(5)
    assert gpu.cupy_stream(own) is own
    assert gpu.cupy_stream(9).ptr == 9

    class New:
        @staticmethod
        def from_external(stream):
            return stream.__cuda_stream__(), stream.owner

    cuda.Stream = New
    assert gpu.cupy_stream(9) == ((0, 9), 9)


def test_a_plan_that_does_not_load_gives_tensorrts_reason(make, calls):
    calls.failing.add("deserialize")
    with pytest.raises(EngineError, match=r"load on NVIDIA L4 .*x.plan: the plan is of version 9$"):
        make()


def test_a_plan_of_other_tensors_is_refused(make):
    with pytest.raises(EngineError, match=r"x.plan has .*'x'.*; its listing says .*'z'"):
        make(inputs=(TensorSpec("z", ("B", 3), "float32"),))


def test_a_batch_that_was_not_built_says_how(make):
    with pytest.raises(EngineError, match="was built for 1 to 4: build it with  --batch 5"):
        make().context(5)


def test_a_precision_beyond_the_gpu_is_refused(monkeypatch, make):
    monkeypatch.setattr(tensorrt, "cuda_device", lambda: CudaDevice("T4", 75, "12.6"))
    with pytest.raises(
        EngineError, match=r"T4 \(sm_75, .*\) does not compute in fp8, which needs s"
    ):
        tensorrt.target("tensorrt", "fp8")


def test_without_a_driver_no_runtime_is_made(make, calls, monkeypatch):
    monkeypatch.setattr(tensorrt, "cuda_device", cuda_device)
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", no_driver)
    cuda_device.cache_clear()
    with pytest.raises(EngineError, match="this machine has no NVIDIA driver: install one, or use"):
        make()
    assert calls == []


def no_driver(name):
    raise OSError(name)


class Driver:
    """libcuda of one H200, or one that fails at a call."""

    def __init__(self, failing=""):
        self.failing = failing

    def __getattr__(self, function):
        def call(*arguments):
            if function == self.failing:
                return 100
            if function == "cuDriverGetVersion":
                arguments[0]._obj.value = 13020
            if function == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H200"
            if function == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 9, 76: 0}[arguments[1]]
            return 0

        return call


def test_the_driver_tells_of_its_gpu(monkeypatch):
    cuda_device.cache_clear()
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: Driver())
    assert cuda_device() == CudaDevice("NVIDIA H200", 90, "13.2")
    cuda_device.cache_clear()
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: Driver("cuInit"))
    with pytest.raises(
        EngineError, match=r"gives no GPU \(cuInit failed with code 100\): see that"
    ):
        cuda_device()
    cuda_device.cache_clear()
