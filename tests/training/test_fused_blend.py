"""The fused blend's gradients: its CUDA text on the host, in float64, against torch."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pchmr_kernels import cuda, cuda_gradients, cuda_runtime, cuda_weights
from pchmr_training.fused_blend import fused_blend
from pchmr_training.smpl import blend

SHIM = Path(__file__).parents[1] / "kernels"
B, V, K = 2, 37, 5


@pytest.fixture(scope="module")
def shim_runtime() -> Iterator[Any]:
    """tests/kernels/cuda_shim, which is on pytest's path only where those tests are collected."""
    if shutil.which("g++") is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    sys.path.insert(0, str(SHIM))
    from cuda_shim import shim_runtime

    yield shim_runtime
    sys.path.remove(str(SHIM))


@pytest.fixture(scope="module")
def in_float32(shim_runtime: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim_runtime.build(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def in_float64(shim_runtime: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim_runtime.build(tmp_path_factory.getbasetemp(), "-DPCHMR_REAL=double")


@pytest.fixture
def host(shim_runtime: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """host(library): tensors of the CPU pass for the GPU's, and the kernels run there."""

    def start(library: Path) -> Any:
        class Runtime(shim_runtime.ShimRuntime):
            def import_dlpack(self, array: Tensor) -> Any:
                # As torch has it: none gives its address on a GPU while it requires a gradient.
                assert not array.requires_grad
                return shim_runtime.FakeCuda(array.numpy())

        runtime = Runtime(library)
        monkeypatch.setattr(cuda_runtime, "runtime", lambda: runtime)
        monkeypatch.setattr(cuda_runtime, "_device", lambda name, array: (cuda_runtime.CUDA, 0))
        return runtime

    return start


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrappers take float64 for float32, as the kernels built in float64 do."""
    for module in (cuda, cuda_gradients, cuda_weights):
        monkeypatch.setattr(module, "FLOAT32", (cuda_runtime.np.float64,))
    monkeypatch.setattr(cuda, "MESHES", (cuda_runtime.np.float64,))


def inputs(dtype: torch.dtype, V: int = V, B: int = B) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (B, V, 3), (B, K, 3, 4), (V, K), (B, K, 3), (V, K)
    tensors = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]
    tensors[2] = torch.where(torch.rand(V, K, generator=generator) < 0.5, 0, tensors[2])
    return [tensor.requires_grad_() for tensor in tensors]


def plain(vertices: Tensor, transforms: Tensor, A: Tensor, delta: Tensor, AW: Tensor) -> Tensor:
    return blend(vertices, transforms, A) + AW @ delta


@pytest.mark.usefixtures("doubles")
def test_gradcheck_of_forward_and_backward(host: Any, in_float64: Path) -> None:
    host(in_float64)
    assert torch.autograd.gradcheck(fused_blend, inputs(torch.float64, V=3, B=2))
    assert torch.autograd.gradcheck(fused_blend, inputs(torch.float64, V=3, B=2)[:3])


@pytest.mark.usefixtures("doubles")
def test_in_float64_values_and_gradients_are_torchs(host: Any, in_float64: Path) -> None:
    host(in_float64)
    given, same = inputs(torch.float64, V=301, B=3), inputs(torch.float64, V=301, B=3)
    moved, expected = fused_blend(*given), plain(*same)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(moved)
    (moved * weight).sum().backward()
    (expected * weight).sum().backward()
    for got, wanted in zip(given, same, strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-12, atol=1e-11)


def test_in_float32_they_are_within_its_roundings(host: Any, in_float32: Path) -> None:
    host(in_float32)
    given, same = inputs(torch.float32, V=301), inputs(torch.float64, V=301)
    for tensor, single in zip(same, given, strict=True):
        tensor.data = single.data.double()
    moved, expected = fused_blend(*given), plain(*same)
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=2e-5)
    moved.square().sum().backward()
    expected.square().sum().backward()
    for got, wanted in zip(given, same, strict=True):
        assert got.grad is not None
        assert wanted.grad is not None
        error = (got.grad.double() - wanted.grad).abs().max() / wanted.grad.abs().max()
        assert error < 2e-6


def test_only_what_is_wanted_is_computed(host: Any, in_float32: Path) -> None:
    runtime = host(in_float32)
    given = [tensor.detach() for tensor in inputs(torch.float32)]
    given[1].requires_grad_()
    fused_blend(*given).sum().backward()
    kernels = [kernel for kernel, _ in runtime.launches]
    assert kernels == ["pchmr_blend", "pchmr_blend_grad_bones"]
    assert all((x.grad is None) == (x is not given[1]) for x in given)


def test_a_gradient_is_the_same_every_time_and_may_be_expanded(host: Any, in_float32: Path) -> None:
    host(in_float32)
    gradients = []
    for _ in range(2):
        given = inputs(torch.float32, V=301)
        fused_blend(*given).sum().backward()  # an expanded gradient: strides of 0
        gradients.append([x.grad for x in given])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_tensors_on_the_cpu_and_other_dtypes_are_refused(
    shim_runtime: Any, in_float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = shim_runtime.ShimRuntime(in_float32)
    monkeypatch.setattr(cuda_runtime, "runtime", lambda: runtime)
    tensors = [tensor.detach() for tensor in inputs(torch.float32)]
    with pytest.raises(TypeError, match=r"is a torch\.Tensor on the CPU; expected a CUDA array"):
        fused_blend(*tensors)


@pytest.mark.gpu
def test_on_a_gpu_values_and_gradients_are_torchs() -> None:
    if not torch.cuda.is_available():
        pytest.skip("not tested: the fused blend on a GPU (torch sees none)")
    given = [x.detach().cuda().requires_grad_() for x in inputs(torch.float32, V=1001, B=9)]
    same = [x.detach().double().requires_grad_() for x in given]
    moved, expected = fused_blend(*given), plain(*same)
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=2e-5)
    moved.square().sum().backward()
    expected.square().sum().backward()
    for got, wanted in zip(given, same, strict=True):
        assert got.grad is not None
        assert wanted.grad is not None
        error = (got.grad.double() - wanted.grad).abs().max() / wanted.grad.abs().max()
        assert error < 1e-5


def test_delta_and_its_weights_come_together(host: Any, in_float32: Path) -> None:
    host(in_float32)
    vertices, transforms, A, delta, AW = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"weights\.offsets, A \* W, is missing"):
        fused_blend(vertices, transforms, A, delta)
    with pytest.raises(ValueError, match="AW needs delta"):
        fused_blend(vertices, transforms, A, None, AW)
