"""Crops of a frame on a GPU, for image networks: `crops.RegionCrops` in one launch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from pchmr_kernels import cuda_runtime
from pchmr_kernels.cuda_runtime import (
    BLOCK,
    REALS,
    RealsStruct,
    Runtime,
    check_rows,
    refuse,
    shape_of,
    stream_address,
    view,
)

PIXELS_A_THREAD = 4
UINT8 = (np.uint8,)


class CropsStruct(ctypes.Structure):
    """pchmr_cuda_crops."""

    _fields_ = (
        ("frame", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        ("chroma_pitch", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("height", "width")),
        *((name, ctypes.c_int32) for name in ("crops", "crop_height", "crop_width", "extend")),
        ("affines", RealsStruct),
        ("out", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Nv12:
    """A frame as decoders and cameras give it: BT.601, limited range; width and height even.

    luma: (H, W) uint8; chroma: (H / 2, W / 2, 2) or (H / 2, W) uint8, U and V. Rows of each may lie
    apart (a pitch).
    """

    luma: Any
    chroma: Any


def crop(
    frame: Any,
    affines: Any,
    out: Any = None,
    size: int = 0,
    extend: bool = False,
    stream: Any = None,
) -> Any:
    """RGB crops (B, h, w, 3) uint8, bilinear; within 1 of OpenCV's `warpAffine`.

    Args:
        frame: (H, W, 3) uint8 BGR, whose rows may lie apart, or an `Nv12`.
        affines: (B, 2, 3) float32 or float64 on the GPU, from the pixels of a crop to the frame's
            (`pchmr.crops.crop_to_image`); read when the launch runs, not before. A row that is not
            finite gives a black crop.
        out: (B, h, w, 3) uint8; else crops of size x size are allocated.
        extend: beyond the frame's edge its last pixels go on; black otherwise.
        stream: see `cuda.blend`, and there for what is raised.
    """
    run = cuda_runtime.runtime()
    batch = shape_of("affines", affines, 3)[0]
    check_rows(batch)
    refuse(out is None and size < 1, "either out or size must be given")
    with run.on(stream_address(stream)):
        if out is None:
            out = run.empty((batch, size, size, 3), np.dtype(np.uint8))
        height, width = shape_of("out", out, 4)[1:3]
        job = CropsStruct(crops=batch, crop_height=height, crop_width=width, extend=extend)
        job.affines = view(run, "affines", affines, (batch, 2, 3), REALS).reals
        _fill_frame(run, job, frame)
        job.out = view(run, "out", out, (batch, height, width, 3), UINT8).pointer
        blocks = -(-height * width // (BLOCK * PIXELS_A_THREAD))
        if batch and blocks:
            run.launch("pchmr_crop", (blocks, batch), 0, job)
    return out


def _fill_frame(run: Runtime, job: CropsStruct, frame: Any) -> None:
    if isinstance(frame, Nv12):
        job.height, job.width = shape_of("luma", frame.luma, 2)
        refuse(
            job.height % 2 + job.width % 2 > 0,
            f"luma is {(job.height, job.width)}; NV12 has an even height and width",
        )
        half = job.height // 2
        pairs = len(tuple(frame.chroma.shape)) == 3
        shape = (half, job.width // 2, 2) if pairs else (half, job.width)
        luma = view(run, "luma", frame.luma, (job.height, job.width), UINT8, rows_apart=True)
        chroma = view(run, "chroma", frame.chroma, shape, UINT8, rows_apart=True)
        job.chroma, job.chroma_pitch = chroma.pointer, chroma.pitch
    else:
        job.height, job.width, channels = shape_of("frame", frame, 3)
        refuse(channels != 3, f"frame has {channels} channels; expected 3, BGR")
        luma = view(run, "frame", frame, None, UINT8, rows_apart=True)
    refuse(not job.height * job.width, "the frame is empty")
    job.frame, job.pitch = luma.pointer, luma.pitch
