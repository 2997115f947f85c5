"""Points refined by heat maps, by the native library."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, as_float32, library

Float32 = npt.NDArray[np.float32]


def refine_peaks(points: Float32, heatmaps: Float32, cell: float, radius: int) -> Float32:
    """Points (N, 2) moved to the centre of mass of their own map in a window about each.

    A point outside the maps, or whose window peaks below one half, stays.
    points: (N, 2) float32, x and y, `cell` units a cell. heatmaps: (H, W, N) float32 logits.
    radius: cells to each side.

    Raises: TypeError for another dtype, ValueError for another shape.
    """
    if heatmaps.ndim != 3 or not cell > 0 or radius < 0:
        raise ValueError(
            f"heatmaps are {heatmaps.shape}, cell {cell}, radius {radius}; expected (H, W, N), "
            "more than 0, and 0 or more"
        )
    height, width, count = heatmaps.shape
    heatmaps = as_float32("heatmaps", heatmaps, (height, width, count))
    points = as_float32("points", points, (count, 2))
    out = np.empty_like(points)
    _function()(
        *(address(heatmaps), height, width, count, address(points), cell, radius, address(out))
    )
    return out


@cache
def _function() -> Any:
    function = library().pchmr_refine_peaks
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    function.argtypes = (pointer, int32, int32, int32, pointer, ctypes.c_float, int32, pointer)
    function.restype = None
    return function
