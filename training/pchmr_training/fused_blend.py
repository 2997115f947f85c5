"""`smpl.blend` with the deltas of the calibration, by the fused CUDA kernels: for fine-tuning.

    calibrated = fused_blend(vertices, transforms, A, delta, A * W)

Forward and backward are kernels of `pchmr_kernels`, on torch's current stream. Never executed on a
GPU so far: their text is tested on the host.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pchmr_kernels import cuda, cuda_gradients
from pchmr_kernels.cuda_weights import DenseWeights


def fused_blend(
    vertices: Tensor,
    transforms: Tensor,
    A: Tensor,
    delta: Tensor | None = None,
    AW: Tensor | None = None,
) -> Tensor:
    """sum_k A_vk (R_k v + t_k) + (A W)_vk delta_k: (B, V, 3), differentiable once in all of them.

    Args:
        vertices: (B, V, 3); transforms: (B, K, 3, 4), R beside t; A: (V, K), rows sum to 1.
        delta: (B, K, 3) and AW: (V, K), both or neither. All float32, on one GPU.
    Raises: TypeError for a tensor on the CPU (`smpl.blend` is for those) or of another dtype,
        ValueError for another shape, ImportError where CuPy is not installed.
    """
    if delta is None and AW is not None:
        raise ValueError("AW needs delta: give both or neither")
    moved: Tensor = _FusedBlend.apply(vertices, transforms, A, delta, AW)
    return moved


class _FusedBlend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> Tensor:
        # A tensor that requires a gradient does not give its address to others.
        given = [None if x is None else x.detach().contiguous() for x in inputs]
        ctx.save_for_backward(*given)
        vertices, transforms, A, delta, AW = given
        assert vertices is not None
        out = torch.empty_like(vertices)
        with torch.cuda.device_of(vertices):
            weights = DenseWeights(A, AW)
            cuda.blend(vertices, transforms, weights, delta, out, stream=_stream(vertices))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vertices, transforms, A, delta, AW = inputs = ctx.saved_tensors
        gradients = [
            torch.empty_like(x) if needed else None
            for x, needed in zip(inputs, ctx.needs_input_grad, strict=True)
        ]
        names = ("vertices", "transforms", "values", "delta", "offsets")
        out = {n: x for n, x in zip(names, gradients, strict=True) if x is not None}
        with torch.cuda.device_of(vertices):
            cuda_gradients.blend_gradients(
                *(gradient.detach().contiguous(), vertices, transforms, DenseWeights(A, AW), delta),
                out=out,
                stream=_stream(vertices),
            )
        return tuple(gradients)


def _stream(tensor: Tensor) -> int | None:
    """Torch's current one, of the tensor's device; none on the CPU, where the kernels refuse it."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None
