"""Left and right of followed people, by the native library."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, library


class ExchangeDistance:
    """By how many pixels a part of somebody is nearer to before with its sides exchanged.

    partners: (N,) int32, the point of the other side, or itself. part: of the points.

    Raises: ValueError for partners or a part that are not among them.
    """

    def __init__(self, partners: npt.NDArray[np.int32], part: slice) -> None:
        partners = np.array(partners, np.int32)
        count = len(partners)
        if partners.ndim != 1 or (partners < 0).any() or (partners >= count).any():
            raise ValueError(
                f"partners are {partners.tolist()}; expected (N,), each from 0 below N"
            )
        first, end, _ = part.indices(count)
        self._length = 12 * count
        self._arguments = (address(partners), first, end)
        self._function = _function()

    def __call__(self, points: bytes, before: bytes) -> float:
        """In the mean by visibility; 0 where nothing of the part is visible.

        points, before: of (N, 3) float32: x px, y px, visibility, of which that of `points` counts.
        As `tobytes` gives them: where nothing is in the processor's caches, the address of an array
        takes twice as long.

        Raises: ValueError for another length.
        """
        if not len(points) == len(before) == self._length:
            raise ValueError(
                f"points are {len(points)} bytes, before {len(before)}; expected {self._length}: "
                "float32 (N, 3)"
            )
        nearer: float = self._function(points, before, *self._arguments)
        return nearer


@cache
def _function() -> Any:
    function = library().pchmr_exchanged_nearer_f32
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    function.argtypes = (pointer, pointer, pointer, int32, int32)
    function.restype = ctypes.c_double
    return function
