"""ONNX Runtime on a GPU: what is refused, and how it is bound, without one.

No session with the CUDA provider was ever run.
"""

import sys

import numpy as np
import pytest
from fake_gpu import Calls, DeviceArray, fake_cupy
from tiny_graphs import expected_outputs, make_feed

from pchmr_engines import engine_from_onnx
from pchmr_engines.backends import onnxruntime_cuda
from pchmr_engines.cuda_driver import CudaDevice
from pchmr_engines.errors import EngineError

onnxruntime = pytest.importorskip("onnxruntime")
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def gpu_build(monkeypatch):
    """onnxruntime says that it is built for GPUs, and there is one."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setattr(onnxruntime_cuda, "cuda_device", lambda: CudaDevice("L4", 89, "13.0"))


def test_a_cpu_build_says_what_to_install(graph):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime is built for GPUs: its refusal elsewhere was not tested")
    with pytest.raises(EngineError, match=r"is a build for the CPU: run  pip uninstall .*ort-cuda"):
        engine_from_onnx(graph, "onnxruntime-cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_that_fell_back_to_the_cpu_is_refused(graph, gpu_build):
    with pytest.raises(
        EngineError, match=r"would run tiny.onnx on \['CPUExec.*; expected CUDAExec"
    ):
        engine_from_onnx(graph, "onnxruntime-cuda")


class Session:
    """A session that says it is on a GPU, and computes on the CPU at the addresses bound to it."""

    def __init__(self, path, options, providers):
        self.real = REAL(path, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        ((_, self.settings),) = providers

    def get_providers(self):
        return PROVIDERS

    def io_binding(self):
        real = self.real.io_binding()

        class Binding:
            session = self
            of = real

            def bind_input(self, name, device, index, dtype, shape, address):
                assert (device, index) == ("cuda", 0)
                real.bind_input(name, "cpu", 0, dtype, shape, address)

            def bind_output(self, name, device, index, dtype, shape, address):
                assert (device, index) == ("cuda", 0)
                real.bind_output(name, "cpu", 0, dtype, shape, address)

        return Binding()

    def run_with_iobinding(self, binding, options):
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        self.real.run_with_iobinding(binding.of)


REAL = onnxruntime.InferenceSession


def test_buffers_are_bound_by_address_on_the_callers_stream(graph, gpu_build, monkeypatch):
    calls = Calls()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(calls))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    engine = engine_from_onnx(graph, "onnxruntime-cuda")
    feed = make_feed(3)

    class Stream:
        cuda_stream = 21

    context = engine.context(3, Stream())
    for name, array in feed.items():
        context.bind(name, DeviceArray(array))
    context.freeze()
    for name, expected in expected_outputs(feed).items():
        np.testing.assert_allclose(context.buffers[name].get(), expected, atol=1e-5)
    settings = context._session.settings
    assert (settings["user_compute_stream"], settings["use_tf32"]) == ("21", "0")
    found = engine.run(feed)
    np.testing.assert_allclose(found["y"].get(), expected_outputs(feed)["y"], atol=1e-5)
    del calls[:]
    context.enqueue()
    assert calls == []  # never waits


def test_what_is_no_stream_is_refused(graph, gpu_build, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(Calls()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(EngineError, match="stream is a str; expected a CuPy or torch CUDA stream"):
        engine_from_onnx(graph, "onnxruntime-cuda").context(1, "stream")


def test_the_default_stream_is_refused(graph, gpu_build, monkeypatch):
    """ONNX Runtime takes it for none, and nobody would wait for what it takes instead."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(Calls()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(EngineError, match="does not run on the default stream: give another"):
        engine_from_onnx(graph, "onnxruntime-cuda").context(1, 0)
