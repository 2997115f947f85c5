"""Joints from heat maps. Cells count from 0 at the centre of the first one; x right, y down."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .crops import Floats


def argmax_2d(heatmaps: Floats) -> tuple[NDArray[np.float64], Floats]:
    """Peak cells (..., 2: x, y) and values (...) of maps (..., H, W); the first of equal ones."""
    flat = heatmaps.reshape(*heatmaps.shape[:-2], -1)
    index = flat.argmax(-1)
    y, x = np.divmod(index, heatmaps.shape[-1])
    score = np.take_along_axis(flat, index[..., None], -1)[..., 0]
    return np.stack([x, y], -1).astype(np.float64), score


def decode_argmax(heatmaps: Floats) -> tuple[NDArray[np.float64], Floats]:
    """Peak cells (..., 2) and scores (...) of maps (..., H, W); cell 0, 0 where none is positive.

    That cell is one like any other afterwards; the score tells it apart.
    """
    cells, scores = argmax_2d(heatmaps)
    cells[scores <= 0] = 0
    return cells, scores


def decode_quarter_offset(heatmaps: Floats) -> tuple[NDArray[np.float64], Floats]:
    """`decode_argmax`, each peak moved 0.25 cell towards its larger neighbour along x and y.

    HRNet's rule (Sun et al. 2019): peaks with x or y in the first two or the last row of cells
    are not moved at all.
    """
    cells, scores = decode_argmax(heatmaps)
    height, width = heatmaps.shape[-2:]
    x, y = (cells[..., axis].astype(int) for axis in (0, 1))
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    at = _reader(heatmaps, np.where(inner, x, 1), np.where(inner, y, 1))
    step = np.stack([np.sign(at(1, 0) - at(-1, 0)), np.sign(at(0, 1) - at(0, -1))], -1)
    return cells + 0.25 * step * inner[..., None], scores


def decode_dark(heatmaps: Floats, kernel: int = 11) -> tuple[NDArray[np.float64], Floats]:
    """DARK (Zhang et al. 2020, Eq. 3-9): peaks of maps (..., H, W) refined by a second-order step.

    The map is smoothed with a Gaussian of `kernel` cells (11 for maps of 64 x 48, 17 for 96 x 72),
    which makes it the likelihood that the joint is there; its logarithm is a parabola about the
    peak. Peaks within two cells of the edge stay where they are. Cells (..., 2), scores (...).
    """
    cells, scores = decode_argmax(heatmaps)
    height, width = heatmaps.shape[-2:]
    smooth = np.stack([_smooth(m, kernel) for m in heatmaps.reshape(-1, height, width)])
    log = np.log(np.maximum(smooth, 1e-10)).reshape(heatmaps.shape)
    x, y = (cells[..., axis].astype(int) for axis in (0, 1))
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (scores > 0)
    at = _reader(log, np.where(inner, x, 2), np.where(inner, y, 2))
    dx, dy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    dxx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    dyy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    dxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    curved = dxx * dyy - dxy * dxy
    sound = inner & (curved != 0)
    bend = np.where(sound, curved, 1.0)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / bend[..., None]
    return cells + step * sound[..., None], scores


def soft_argmax_3d(volumes: Floats) -> NDArray[np.float64]:
    """Expected cell (..., 3: x, y, z) of volumes (..., D, H, W) after a softmax over each.

    Cells count from 0 without a half (Sun et al. 2018): a flat volume of 64 cells gives 31.5.
    """
    share = np.exp(volumes - volumes.max((-3, -2, -1), keepdims=True), dtype=np.float64)
    share /= share.sum((-3, -2, -1), keepdims=True)
    marginals = share.sum((-3, -2)), share.sum((-3, -1)), share.sum((-2, -1))
    return np.stack([m @ np.arange(m.shape[-1]) for m in marginals], -1)


def _reader(
    heatmaps: Floats, x: NDArray[np.integer], y: NDArray[np.integer]
) -> Callable[[int, int], Floats]:
    """`at(dx, dy)`: the value of every map (..., H, W) beside its cell (x, y)."""
    width = heatmaps.shape[-1]
    flat = heatmaps.reshape(*heatmaps.shape[:-2], -1)

    def at(dx: int, dy: int) -> Floats:
        index = (y + dy) * width + x + dx
        return np.take_along_axis(flat, index[..., None], -1)[..., 0]

    return at


def _smooth(heatmap: Floats, kernel: int) -> NDArray[np.float64]:
    """The map blurred as if zeros lay around it, brought back to its own maximum."""
    border = kernel // 2
    padded = np.pad(heatmap.astype(np.float64), border)
    blurred = cv2.GaussianBlur(padded, (kernel, kernel), 0)[border:-border, border:-border]
    top = blurred.max()
    return np.asarray(blurred * (heatmap.max() / top if top > 0 else 1.0), np.float64)
