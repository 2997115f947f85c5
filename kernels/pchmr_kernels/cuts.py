"""Cuts from one picture of a video to another, by the native library."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, library

UInt8 = npt.NDArray[np.uint8]
_UINT8 = np.dtype(np.uint8)


class PointComparison:
    """Says of frames of one shape whether each is another picture than the one before.

    shape: (H, W, 3). step: pixels from one point that is compared to the next. alike, recoloured:
    correlation of the points with those before, and share that changed its sixteenth of a colour's
    range; another picture has no more of the first and more of the second.
    points: (3, rows, columns) uint8 of the last frame, 0 before the first; may be written to.

    Raises: ValueError for another shape or no step.
    """

    def __init__(self, shape: tuple[int, ...], step: int, alike: float, recoloured: float) -> None:
        if len(shape) != 3 or shape[2] != 3 or step < 1:
            raise ValueError(f"shape is {shape}, step {step}; expected (H, W, 3), 1 or more")
        self.shape = shape
        rows, columns = (len(range(step // 2, size, step)) for size in shape[:2])
        points = np.zeros((2, 3, rows, columns), np.uint8)
        self.points = points[0]
        self._grid = (step, rows, columns, alike, recoloured, address(points))
        self._function = _function()

    def __call__(self, image: UInt8) -> bool:
        """image: (H, W, 3) uint8, of any strides.

        Raises: ValueError for another dtype or shape.
        """
        if image.shape != self.shape or image.dtype != _UINT8:
            raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 {self.shape}")
        along = image[0]
        start = address(along) if along.flags.c_contiguous else image.ctypes.data
        return self._function(start, *image.strides, *self._grid) == 1


@cache
def _function() -> Any:
    function = library().pchmr_cut_u8
    pointer, int64, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    function.argtypes = (pointer, *[int64] * 6, real, real, pointer)
    function.restype = ctypes.c_int32
    return function
