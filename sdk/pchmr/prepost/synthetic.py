"""Images and heat maps that follow from a name alone: the rules of the parity kit's `prepost`."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from pchmr_kernels.skeletons import get_skeleton

from .crops import Floats, Size
from .flips import mirror_order


def generator(name: str) -> np.random.Generator:
    """The random numbers that belong to a name."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def synthetic_image(key: str, size: Size = (480, 640)) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR: 8 x 8 blocks of colour, a gradient in whole levels, diagonal waves."""
    height, width = size
    blocks = generator(f"image:{key}").uniform(0, 180, (8, 8, 3)).astype(np.int64)
    y, x = np.arange(height)[:, None], np.arange(width)
    more = x * 20 // width + y * 20 // height + np.abs((3 * x + 5 * y) % 46 - 23)
    rgb = blocks[y * 8 // height, x * 8 // width] + more[..., None]
    return np.ascontiguousarray(rgb[..., ::-1].astype(np.uint8))


def synthetic_heatmaps(
    key: str, people: int, size: Size, gain: float = 1.0, on_grid: bool = True
) -> tuple[Floats, Floats]:
    """Maps (P, 17, H, W) float32 and those of the mirrored image, whose peaks lie elsewhere by up
    to 1.5 cells. Joints 0 and 3 to 6 are the awkward ones: at an edge, or nowhere positive; the
    peak of joint 2 lies on a cell, if asked for."""
    height, width = size
    random = generator(f"heat:{key}")
    u = random.uniform(0, 1, (people, 17, 4))
    jitter = random.uniform(-1.5, 1.5, (people, 17, 2))
    peak = (u[..., :2] * 0.9 + 0.05) * (width, height)
    height_of_peak, spread = gain * (0.3 + 0.7 * u[..., 2]), 1.5 + 1.5 * u[..., 3]
    peak[:, 0, 0], peak[:, 4, 0] = 0.3, 1.2
    peak[:, 5, 1], peak[:, 6, 1] = height - 1.2, height - 2.2
    if on_grid:
        peak[:, 2] = np.round(peak[:, 2])
    maps = _bumps(peak, height_of_peak, spread, size)
    other = _bumps(peak + jitter, height_of_peak, spread, size)
    order = mirror_order(get_skeleton("coco17"))
    return maps, np.ascontiguousarray(other[:, order, :, ::-1])


def _bumps(peak: Floats, height_of_peak: Floats, spread: Floats, size: Size) -> Floats:
    """A Gaussian at each peak, 0.6 of one on the other side; joint 3 is turned to below zero."""
    height, width = size
    y, x = np.arange(height)[:, None], np.arange(width)

    def bump(at: Floats) -> Floats:
        distance = (x - at[..., 0, None, None]) ** 2 + (y - at[..., 1, None, None]) ** 2
        return np.exp(-distance / (2 * spread[..., None, None] ** 2))

    top = height_of_peak[..., None, None]
    maps = top * (bump(peak) + 0.6 * bump((width - 1, height - 1) - peak))
    maps[:, 3] = -maps[:, 3] - 0.05 * top[:, 3]
    return maps.astype(np.float32)
