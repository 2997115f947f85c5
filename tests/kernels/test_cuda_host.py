"""Contexts and page-locked frames, with stand-ins for PyCUDA, CuPy and the driver."""

import ctypes
import gc
import subprocess
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda, find_compiler

from pchmr_kernels import cuda_crops, cuda_host, cuda_runtime


@pytest.fixture
def pycuda(monkeypatch):
    """A stand-in for pycuda.driver that writes down what is done with it."""
    done = []

    class Allocation:
        def __init__(self, size):
            self.memory = (ctypes.c_uint8 * size)()
            self.__array_interface__ = {
                "shape": (size,),
                "typestr": "|u1",
                "data": (ctypes.addressof(self.memory), False),
                "version": 3,
            }

        def get_device_pointer(self):
            return ctypes.addressof(self.memory)

    class Pinned(np.ndarray):
        base = None

    def pagelocked_empty(shape, dtype, mem_flags=0):
        done.append(("alloc", mem_flags))
        allocation = Allocation(int(np.prod(shape)) * dtype.itemsize)
        array = np.asarray(allocation).view(dtype).reshape(shape).view(Pinned)
        array.base = allocation
        return array

    context = SimpleNamespace(push=lambda: done.append("push"), pop=lambda: done.append("pop"))
    driver = ModuleType("pycuda.driver")
    driver.init = lambda: done.append("init")
    driver.Device = lambda i: SimpleNamespace(retain_primary_context=lambda: context)
    driver.host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    driver.pagelocked_empty = pagelocked_empty
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return done


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's calls on the host's own memory; PyCUDA is absent."""
    done, memory = [], {}

    def host_alloc(size, flags):
        block = (ctypes.c_uint8 * size)()
        memory[ctypes.addressof(block)] = block
        done.append(("alloc", size, flags))
        return ctypes.addressof(block)

    def free_host(pointer):
        done.append("free")
        del memory[pointer]

    runtime = SimpleNamespace(
        hostAlloc=host_alloc,
        hostAllocMapped=2,
        freeHost=free_host,
        pointerGetAttributes=lambda pointer: SimpleNamespace(devicePointer=pointer),
        setDevice=lambda device: done.append(("device", device)),
    )
    module = ModuleType("cupy")
    module.cuda = SimpleNamespace(runtime=runtime, Device=lambda device: nullcontext())
    contexts = ModuleType("cupy_backends.cuda.api.driver")
    contexts.ctxGetCurrent = lambda: 77
    contexts.ctxSetCurrent = lambda context: done.append(("context", context))
    for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, contexts.__name__, contexts)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    return done


@pytest.mark.parametrize("library", ["pycuda", "cupy"])
def test_a_kernel_reads_what_the_cpu_writes_without_a_copy(library, request, shim):
    done = request.getfixturevalue(library)
    frame = cuda_host.mapped_array((8, 6, 3))
    assert done[0][0] == "alloc"
    assert done[0][-1] == 2  # mapped into the device's addresses
    crops = []
    for value in (5, 9):
        frame.host[:] = value
        same = FakeCuda(np.eye(2, 3)[None])
        crops.append(cuda_crops.crop(frame, same, size=4).array)
    assert [np.unique(crop).tolist() for crop in crops] == [[5], [9]]
    assert shim.uploads == 0


@pytest.mark.parametrize("library", ["pycuda", "cupy"])
def test_a_part_of_a_frame_lies_in_the_same_memory(library, request, shim, rng):
    request.getfixturevalue(library)
    frame = cuda_host.mapped_array((12, 8))  # NV12 of 8 rows, whose middle columns are wanted
    frame.host[:] = rng.integers(0, 256, frame.shape, np.uint8)
    nv12 = cuda_crops.Nv12(frame[:8, 2:6], frame[8:, 2:6])
    crops = cuda_crops.crop(nv12, FakeCuda(np.eye(2, 3)[None]), size=4).array
    whole = cv2.cvtColor(np.ascontiguousarray(frame.host), cv2.COLOR_YUV2RGB_NV12)
    np.testing.assert_array_equal(crops[0], whole[:4, 2:6])


def test_memory_lives_as_long_as_anything_sees_it(cupy):
    array = cuda_host.mapped_array((4, 2), np.float32)
    assert array.shape == (4, 2)
    assert array.__cuda_array_interface__["typestr"] == "<f4"
    assert cupy == [("alloc", 32, 2)]
    rows = array.host[1:]
    del array
    gc.collect()
    assert cupy[1:] == []
    rows[:] = 1
    del rows
    gc.collect()
    assert cupy[1:] == ["free"]


def test_the_primary_context_is_current_within_and_the_hosts_own_after(pycuda):
    with cuda_host.primary_context():
        assert pycuda == ["init", "push"]
    assert pycuda == ["init", "push", "pop"]


def test_without_pycuda_cupy_does_it(cupy):
    with cuda_host.primary_context(1):
        assert cupy == [("device", 1)]
    assert cupy == [("device", 1), ("context", 77)]


def test_without_either_the_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"neither can be imported .* 'pchmr\[cuda13\]', or 'pch"):
        cuda_host.mapped_array((1,))


@pytest.mark.skipif(find_compiler() is None, reason="not tested: contexts (no g++ here)")
@pytest.mark.parametrize(("current", "refused"), [(0, False), (1, False), (2, True)])
def test_another_context_than_the_primary_one_is_refused(current, refused, tmp_path, monkeypatch):
    """With a driver of a few functions; 1 is the primary context."""
    (tmp_path / "driver.cpp").write_text(
        f"""extern "C" {{
int cuCtxGetCurrent(void **context) {{ *context = (void *){current}; return 0; }}
int cuCtxGetDevice(int *device) {{ *device = 3; return 0; }}
int cuDevicePrimaryCtxRetain(void **context, int) {{ *context = (void *)1; return 0; }}
int cuDevicePrimaryCtxRelease_v2(int) {{ return 0; }}
}}"""
    )
    library = tmp_path / "libcuda.so"
    command = [find_compiler(), "-shared", "-fPIC", tmp_path / "driver.cpp", "-o", library]
    subprocess.run(command, check=True)
    monkeypatch.setattr(cuda_host, "DRIVER", str(library))
    if refused:
        with pytest.raises(
            RuntimeError, match=r"not the primary one of device 3, .*autoprimaryctx"
        ):
            cuda_host.check_context()
    else:
        cuda_host.check_context()


def test_streams_and_arrays_of_pycuda_are_taken(shim):
    stream = SimpleNamespace(handle=41)
    assert cuda_runtime.stream_address(stream) == 41

    class GpuArray:  # of PyCUDA: no DLPack
        shape = (3, 4, 3)

        def __init__(self):
            self.array = np.full(self.shape, 3, np.uint8)
            self.__cuda_array_interface__ = self.array.__array_interface__

    crops = cuda_crops.crop(GpuArray(), FakeCuda(np.eye(2, 3)[None]), size=3, stream=stream)
    assert (crops.array == 3).all()
    assert shim.streams == [41]
