"""Crops of pictures, by the native library."""

import ctypes
from functools import cache

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


def crop_regions(
    image: UInt8, regions: npt.NDArray[np.float64], out: UInt8, extend: bool = False
) -> None:
    """The same of turned squares, into the first rows of a batch; further rows are left.

    regions: (B, 4) float64: middle and side, pixels, and turn, radians. out: (N, n, n, 3) uint8,
    N >= B.

    Raises: ValueError for another dtype or shape.
    """
    batch = len(regions)
    regions = as_float64("regions", regions, (batch, 4))
    image, n = _picture(image), _side(out)
    if batch > len(out):
        raise ValueError(f"{batch} regions, but out has {len(out)} rows")
    function = _functions().pchmr_crop_regions_u8
    function(*_of(image), batch, address(regions), extend, n, address(out))


def _of(image: UInt8) -> tuple[int, int, int, int]:
    return image.ctypes.data, image.shape[0], image.shape[1], image.strides[0]


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
