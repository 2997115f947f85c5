"""Gradients of `cuda.blend` with dense weights, on the GPU: for training."""

from __future__ import annotations

import ctypes
from typing import Any

from pchmr_kernels import cuda_runtime
from pchmr_kernels.cuda_runtime import (
    BLOCK,
    FLOAT32,
    check_rows,
    refuse,
    shape_of,
    stream_address,
    view,
)
from pchmr_kernels.cuda_weights import DenseWeights

MOST_BLOCKS = 1 << 20
MOST_BONES = 128
SUMS = 15  # floats a thread adds up, see native/gradients.cu
WANTED = ("vertices", "transforms", "delta", "values", "offsets")


class GradientsStruct(ctypes.Structure):
    """pchmr_cuda_gradients."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("vertices_count", ctypes.c_int64),
        ("bones", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in WANTED),
        ("gradient", ctypes.c_void_p),
        *((f"grad_{name}", ctypes.c_void_p) for name in WANTED),
    )


def blend_gradients(
    gradient: Any,
    vertices: Any,
    transforms: Any,
    weights: DenseWeights,
    delta: Any = None,
    out: dict[str, Any] | None = None,
    stream: Any = None,
) -> None:
    """Writes the gradients that `out` names, from that of the result; the same ones every time.

    Args:
        gradient: (B, V, 3) of the result; vertices, transforms, weights and delta: as `cuda.blend`
            got them, without a centre. All float32.
        out: arrays to write to, each of its input's shape, among "vertices", "transforms", "delta",
            "values" (A) and "offsets" (A * W).
        stream: see `cuda.blend`, and there for what is raised.
    """
    run = cuda_runtime.runtime()
    out = out or {}
    batch, V, _ = shape_of("vertices", vertices, 3)
    K = shape_of("transforms", transforms, 4)[1]
    refuse(K > MOST_BONES, f"{K} bones; at most {MOST_BONES}")
    check_rows(batch)
    refuse((delta is None) != (weights.offsets is None), "delta needs weights.offsets, and they it")
    mesh, bones, dense = (batch, V, 3), (batch, K, 3, 4), (V, K)
    shapes = dict(zip(WANTED, (mesh, bones, (batch, K, 3), dense, dense), strict=True))
    arrays = (vertices, transforms, delta, weights.values, weights.offsets)
    job = GradientsStruct(batch, V, K)
    with run.on(stream_address(stream)):
        for name, array in zip(WANTED, arrays, strict=True):
            setattr(job, name, view(run, name, array, shapes[name], FLOAT32).pointer)
        for name, array in out.items():
            written = view(run, f"out {name}", array, shapes[name], FLOAT32)
            setattr(job, f"grad_{name}", written.pointer)
        job.gradient = view(run, "gradient", gradient, mesh, FLOAT32).pointer

        def blocks(threads: int) -> int:
            return min(-(-threads // BLOCK), MOST_BLOCKS)

        if "vertices" in out and batch * V:
            grid = (blocks(V), batch)
            run.launch("pchmr_blend_grad_vertices", grid, 48 * K, job)
        if out.keys() & {"transforms", "delta"} and batch * K:
            run.launch("pchmr_blend_grad_bones", (K, batch), 4 * SUMS * BLOCK, job)
        if out.keys() & {"values", "offsets"} and V * K:
            run.launch("pchmr_blend_grad_weights", (blocks(V * K), 1), 0, job)
