"""Crops of pictures, by the native library."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .native import address, library

UInt8 = npt.NDArray[np.uint8]
MOST_BYTES = 2**31 - 1


def crop(image: UInt8, affine: npt.NDArray[np.float64], out: UInt8, extend: bool = False) -> None:
    """A bilinear crop of a BGR picture as RGB: `cv2.warpAffine`, to one level in 256.

    image: (H, W, 3) uint8; rows may be apart. affine: (2, 3) float64, the crop's pixels to the
    picture's. out: (n, n, 3) uint8, C-contiguous, to write to. extend: beyond the picture's edge
    its last pixels go on; black otherwise.

    Raises: ValueError for another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    if image.strides[1:] != (3, 1) or image.strides[0] < 3 * image.shape[1]:
        image = np.ascontiguousarray(image)
    if image.shape[0] * image.strides[0] > MOST_BYTES:
        raise ValueError(f"image is {image.shape}; expected less than 2 GB")
    if affine.dtype != np.float64 or affine.shape != (2, 3) or not affine.flags.c_contiguous:
        raise ValueError(f"affine is {affine.dtype} {affine.shape}; expected float64 (2, 3)")
    n = len(out)
    if out.dtype != np.uint8 or out.shape != (n, n, 3) or not out.flags.carray:
        raise ValueError(f"out is {out.dtype} {out.shape}; expected a C-contiguous uint8 (n, n, 3)")
    height, width, _ = image.shape
    _function()(
        *(image.ctypes.data, height, width, image.strides[0]),
        *(address(affine), extend, n, address(out)),
    )


@cache
def _function() -> Any:
    function = library().pchmr_crop_u8
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    function.argtypes = (pointer, int32, int32, ctypes.c_int64, pointer, int32, int32, pointer)
    function.restype = None
    return function
