"""One-euro filters (Casiez et al. 2012), by the native library."""

from __future__ import annotations

import ctypes
from functools import cache
from math import prod

import numpy as np
import numpy.typing as npt

from .native import address, library

Float64 = npt.NDArray[np.float64]
KINDS = ("points", "directions", "rotations")  # as native/pchmr_smooth.h numbers them


class OneEuroFilter:
    """Of arrays of one shape: points (..., D), unit vectors "directions" (..., D), or "rotations"
    (..., 3, 3) along the shortest turn; each has a cutoff of its own, least_hz + slope speed.

    value: the last answer. lag_ms: by how much it lags on a ramp, the mean over its elements by
    how fast they move.
    """

    def __init__(
        self, kind: str, first: Float64, least_hz: float, slope: float, speed_hz: float
    ) -> None:
        self.value = np.array(first, np.float64, order="C")
        size = 3 if kind == "rotations" else first.shape[-1]
        count = prod(first.shape[: -2 if kind == "rotations" else -1])
        self._velocity, self._lag = np.zeros((count, size)), np.zeros(1)
        self._what = KINDS.index(kind), count, size
        self._how = least_hz, slope, speed_hz
        self._state = tuple(map(address, (self.value, self._velocity, self._lag)))
        self._function = _library().pchmr_smooth_f64

    def step(self, seconds: float, given: Float64) -> bool:
        """Move `value` towards a float64 array of its shape, which comes `seconds` later.

        False, and nothing is moved, where a number of either is not finite.

        Raises: ValueError for another shape.
        """
        if given.shape != self.value.shape or given.dtype != np.float64:
            raise ValueError(f"given is {given.dtype} {given.shape}; expected {self.value.shape}")
        given = np.ascontiguousarray(given)
        return not self._function(*self._what, seconds, *self._how, address(given), *self._state)

    @property
    def lag_ms(self) -> float:
        return float(self._lag[0])


@cache
def _library() -> ctypes.CDLL:
    loaded = library()
    pointer, real, int32 = ctypes.c_void_p, ctypes.c_double, ctypes.c_int32
    loaded.pchmr_smooth_f64.argtypes = (
        *(int32, ctypes.c_int64, int32, real, real, real, real),
        *(pointer, pointer, pointer, pointer),
    )
    loaded.pchmr_smooth_f64.restype = ctypes.c_int32
    return loaded
