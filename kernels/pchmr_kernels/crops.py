"""Crops of pictures, by the native library."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, as_float64, library

UInt8 = npt.NDArray[np.uint8]
MOST_BYTES = 2**31 - 1


def crop(image: UInt8, affine: npt.NDArray[np.float64], out: UInt8, extend: bool = False) -> None:
    """A bilinear crop of a BGR picture as RGB: `cv2.warpAffine`, to one level in 256.

    image: (H, W, 3) uint8; rows may be apart. affine: (2, 3) float64, the crop's pixels to the
    picture's. out: (n, n, 3) uint8, C-contiguous, to write to. extend: beyond the picture's edge
    its last pixels go on; black otherwise.

    Raises: ValueError for another dtype or shape.
    """
    if affine.dtype != np.float64 or affine.shape != (2, 3) or not affine.flags.c_contiguous:
        raise ValueError(f"affine is {affine.dtype} {affine.shape}; expected float64 (2, 3)")
    image, n = _picture(image), _side(out[None])
    _functions().pchmr_crop_u8(*_of(image), address(affine), extend, n, address(out))


class RegionCrops:
    """The same of turned squares of a picture.

    out: (N, n, n, 3) uint8, C-contiguous, to write to. extend: as for `crop`.

    Raises: ValueError for another dtype or shape.
    """

    def __init__(self, out: UInt8, extend: bool = False) -> None:
        self._out, self._most = out, len(out)
        self._arguments = extend, _side(out), address(out)
        self._function = _functions().pchmr_crop_regions_u8

    def __call__(self, image: UInt8, regions: npt.NDArray[np.float64]) -> None:
        """Fill the first rows of `out`.

        image: (H, W, 3) uint8; rows may be apart. regions: (B, 4) float64: middle and side, pixels,
        and turn, radians.

        Raises: ValueError for another dtype or shape.
        """
        batch = len(regions)
        if batch > self._most:
            raise ValueError(f"{batch} regions, but out has {self._most} rows")
        given = address(as_float64("regions", regions, (batch, 4)))
        image = _picture(image)
        self._function(*_of(image), batch, given, *self._arguments)


def _of(image: UInt8) -> tuple[Any, int, int, int]:
    """What the functions take of a picture; its rows may be apart, but each is contiguous."""
    height, width, _ = image.shape
    return address(image[0]), height, width, image.strides[0]


def _picture(image: UInt8) -> UInt8:
    """The same, copied where its pixels lie otherwise. Raises: ValueError."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    if image.strides[1:] != (3, 1) or image.strides[0] < 3 * image.shape[1]:
        image = np.ascontiguousarray(image)
    if image.shape[0] * image.strides[0] > MOST_BYTES:
        raise ValueError(f"image is {image.shape}; expected less than 2 GB")
    return image


def _side(out: UInt8) -> int:
    n = out.shape[1]
    if out.dtype != np.uint8 or out.shape[1:] != (n, n, 3) or not out.flags.carray:
        raise ValueError(f"out is {out.dtype} {out.shape}; expected a C-contiguous uint8 (n, n, 3)")
    return n


@cache
def _functions() -> ctypes.CDLL:
    loaded = library()
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    picture = pointer, int32, int32, int64
    for name, arguments in (
        ("crop_u8", (*picture, pointer, int32, int32, pointer)),
        ("crop_regions_u8", (*picture, int64, pointer, int32, int32, pointer)),
    ):
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = arguments, None
    return loaded
