"""One-euro filters (Casiez et al. 2012), by the native library."""

from __future__ import annotations

import ctypes
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, library

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
KINDS = ("points", "directions", "rotations")  # as native/pchmr_smooth.h numbers them

Steps = dict[np.dtype[Any], tuple[str, tuple[int, ...]]]
"""By dtype, the native function that smooths an array in place, and the addresses it takes before
those of the array's time in nanoseconds and of its data."""


class OneEuroFilter(ctypes.Structure):
    """Of arrays of one shape: points (..., D), unit vectors "directions" (..., D), or "rotations"
    (..., 3, 3) along the shortest turn; each has a cutoff of its own, least_hz + slope speed.

    pchmr_filter of native/pchmr_smooth.h. lag_ms: by how much the last answer lags on a ramp, the
    mean over its elements by how fast they move.
    """

    _fields_ = (
        *(("kind", ctypes.c_int32), ("size", ctypes.c_int32), ("count", ctypes.c_int64)),
        *((name, ctypes.c_double) for name in ("least_hz", "slope", "speed_hz")),
        *(("value", ctypes.c_void_p), ("velocity", ctypes.c_void_p)),
        *(("t_ns", ctypes.c_int64), ("lag_ms", ctypes.c_double)),
    )
    lag_ms: float

    def __init__(
        self, kind: str, shape: tuple[int, ...], least_hz: float, slope: float, speed_hz: float
    ) -> None:
        size = 3 if kind == "rotations" else shape[-1]
        count = prod(shape[: -2 if kind == "rotations" else -1])
        self._state = np.full(shape, np.nan), np.zeros((count, size))
        value, velocity = (array.ctypes.data for array in self._state)
        how = least_hz, slope, speed_hz
        super().__init__(KINDS.index(kind), size, count, *how, value, velocity)


class Filter:
    """Smooths arrays of one shape in place, whatever their layout.

    steps: by dtype, see `Steps`. kept: what lies at their addresses; the first says the lag.
    """

    def __init__(self, shape: tuple[int, ...], steps: Steps, *kept: Any) -> None:
        self.shape, self.steps, self._kept = shape, steps, kept
        loaded = functions()
        self._calls = {
            dtype: partial(getattr(loaded, f"pchmr_{name}"), *addresses)
            for dtype, (name, addresses) in steps.items()
        }

    @property
    def lag_ms(self) -> float:
        lag_ms: float = self._kept[0].lag_ms
        return lag_ms

    def __call__(self, t_ns: int, value: npt.NDArray[Any]) -> None:
        """Smooth the array that comes at t_ns. Raises: ValueError for another shape."""
        if value.shape != self.shape:
            raise ValueError(f"value is {value.shape}; expected {self.shape}")
        time = ctypes.byref(ctypes.c_int64(t_ns))
        if value.flags.carray and (call := self._calls.get(value.dtype)):
            call(time, address(value))
        else:
            own = np.array(value, FLOAT64, order="C")
            self._calls[FLOAT64](time, address(own))
            value[...] = own


def smooth(values: OneEuroFilter) -> Steps:
    """Of arrays of the filter's own shape."""
    known = (ctypes.addressof(values),)
    return {FLOAT32: ("smooth_f32", known), FLOAT64: ("smooth_f64", known)}


def smooth_place(seen: OneEuroFilter, depth: OneEuroFilter) -> Steps:
    """Of places (3,), by filters of points (2,), which are x/z and y/z, and (1,), z."""
    return {FLOAT64: ("smooth_place_f64", (ctypes.addressof(seen), ctypes.addressof(depth)))}


def smooth_bones(
    directions: OneEuroFilter,
    lengths: OneEuroFilter,
    bones: npt.NDArray[np.int32],
    room: npt.NDArray[np.float64],
) -> Steps:
    """Of joints (K + 1, 3), by filters of directions (K, 3) and of points (K, 1), the lengths.

    bones: (K, 2), parent and child, each after the bone that ends in its parent. room: (K, 4), to
    work in.
    """
    known = ctypes.addressof(directions), ctypes.addressof(lengths)
    return {FLOAT64: ("smooth_bones_f64", (*known, bones.ctypes.data, room.ctypes.data))}


@cache
def functions() -> ctypes.CDLL:
    """The library, its functions of this module declared."""
    loaded = library()
    pointer = ctypes.c_void_p
    pointers = {"smooth_f32": 1, "smooth_f64": 1, "smooth_place_f64": 2, "smooth_bones_f64": 4}
    for name, count in pointers.items():
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = [pointer] * (count + 2), None
    return loaded
