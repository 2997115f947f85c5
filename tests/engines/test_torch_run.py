"""How the torch backend runs a compiled package on a GPU, against streams that are none.

The CPU form is run for real in tests/export/test_torch_programs.py; the GPU form never was.
"""

import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import Calls, DeviceArray, fake_cupy

from pchmr_engines.backends import torch as backend
from pchmr_engines.device_engines import Built, Target
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import FileRef

torch = pytest.importorskip("torch")
BUILT = Built(
    "doubler",
    Target("torch-cuda", "2.13.0", "NVIDIA L4", "sm_89", "fp32", {}),
    "0" * 64,
    (1,),
    (TensorSpec("x", ("B", 3), "float32"),),
    (TensorSpec("y", ("B", 3), "float32"), TensorSpec("z", ("B",), "float32")),
    (FileRef("x.pt2", "0" * 64),),
)


@pytest.fixture
def calls(monkeypatch):
    """What was called; torch's CUDA streams only say that they are entered."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(calls))

    @contextmanager
    def entered(stream):
        calls.append(("stream", stream))
        yield

    def load(package, **options):
        calls.append(("load", options))
        return lambda x: {"y": 2 * x, "z": x.sum(1)}

    fake = SimpleNamespace(
        __version__="2.13.0",
        from_dlpack=torch.from_dlpack,
        no_grad=torch.no_grad,
        backends=torch.backends,
        cuda=SimpleNamespace(ExternalStream=lambda pointer: pointer, stream=entered),
        _inductor=SimpleNamespace(aoti_load_package=load),
    )
    monkeypatch.setattr(backend, "import_torch", lambda name: fake)
    return calls


@pytest.mark.parametrize("name", ["torch", "torch-cuda"])
def test_a_program_of_a_fixed_batch_takes_that_one_alone(name, calls, tmp_path):
    specs = (TensorSpec("x", (2, 3), "float32"),)
    target = replace(BUILT.target, backend=name)
    built = replace(BUILT, target=target, inputs=specs, outputs=specs)
    engine = backend.engine_from_built(built, [tmp_path / "x.pt2"], tmp_path, 1)
    assert engine.caps.max_batch == 2
    assert engine.context(2).batch == 2
    with pytest.raises(EngineError, match="takes 1 to 2"):
        engine.context(3)


def test_outputs_are_copied_into_the_contexts_buffers_on_its_stream(calls, tmp_path):
    engine = backend.engine_from_built(BUILT, [tmp_path / "x.pt2"], tmp_path, None)

    class Stream:
        ptr = 21

    context = engine.context(2, Stream())
    x = DeviceArray(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    context.bind("x", x)
    context.freeze()
    assert ("load", {"run_single_threaded": True, "device_index": 0}) in calls
    y, z = context.buffers["y"], context.buffers["z"]
    x.host[:] += 1
    del calls[:]
    context.enqueue()
    np.testing.assert_array_equal(y.get(), 2 * x.host)
    np.testing.assert_array_equal(z.get(), x.host.sum(1))
    assert calls == [("stream", 21)]  # and never waits
    context.close()
    with pytest.raises(EngineError, match="the context is closed, expected frozen"):
        context.enqueue()


def test_a_torch_without_cuda_is_said(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this torch has a GPU: its refusal elsewhere was not tested")
    monkeypatch.setattr(backend, "cuda_device", lambda: SimpleNamespace(driver="13.0"))
    with pytest.raises(
        EngineError, match=r"cannot use .*: install a build of it for CUDA 13.0 or o"
    ):
        backend.target("torch-cuda", "fp32")
