"""The CUDA kernels on the host, in place of CuPy; the native ones under each instruction set."""

import pytest
from cuda_shim.shim_runtime import ShimRuntime, build, find_compiler

from pchmr_kernels import cuda_runtime, native


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory):
    if find_compiler() is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    return build(tmp_path_factory.getbasetemp())


@pytest.fixture
def shim(shim_library, monkeypatch):
    """A ShimRuntime that the kernels launch on."""
    runtime = ShimRuntime(shim_library)
    monkeypatch.setattr(cuda_runtime, "runtime", lambda: runtime)
    return runtime


@pytest.fixture
def each_isa():
    """Calls a function under every instruction set of this machine."""
    before = native.instruction_set()

    def call(function):
        results = {}
        for isa in native.instruction_sets():
            native.use_instruction_set(isa)
            results[isa] = function()
        return results

    yield call
    native.use_instruction_set(before)
