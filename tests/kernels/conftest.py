"""The CUDA kernels on the host, in place of CuPy."""

import pytest
from cuda_shim.shim_runtime import ShimRuntime, build, find_compiler

from pchmr_kernels import cuda_runtime


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
