"""refine_peaks against a plain NumPy form, by hand in tests/sdk/test_blazepose.py."""

import numpy as np
import pytest

from pchmr_kernels.heatmaps import refine_peaks


def reference(points: np.ndarray, heatmaps: np.ndarray, cell: float, radius: int) -> np.ndarray:
    height, width, count = heatmaps.shape
    mass = 1 / (1 + np.exp(-heatmaps.astype(np.float64)))
    rows, columns = np.mgrid[:height, :width]
    moved = points.astype(np.float64)
    for n in range(count):
        x, y = np.floor(points[n] / cell)
        window = (abs(columns - x) <= radius) & (abs(rows - y) <= radius)
        inside = 0 <= x < width and 0 <= y < height
        if inside and mass[window, n].max() >= 0.5:
            weights = mass[window, n]
            moved[n] = cell * np.array(
                [np.average(axis[window], weights=weights) for axis in (columns, rows)]
            )
    return moved


@pytest.mark.parametrize(("shape", "cell", "radius"), [((64, 64, 39), 4.0, 4), ((9, 7, 5), 2.5, 1)])
def test_follows_numpy(
    rng: np.random.Generator, shape: tuple[int, int, int], cell: float, radius: int
) -> None:
    heatmaps = rng.normal(-3, 2, shape).astype(np.float32)
    points = rng.uniform(-10, cell * max(shape[:2]) + 10, (shape[2], 2)).astype(np.float32)
    moved = refine_peaks(points, heatmaps, cell, radius)
    np.testing.assert_allclose(moved, reference(points, heatmaps, cell, radius), atol=2e-4)
    assert (moved != points).any()


def test_points_that_are_no_numbers_stay() -> None:
    points = np.array([[np.nan, 3], [np.inf, 3], [-np.inf, 1e30]], np.float32)
    moved = refine_peaks(points, np.ones((8, 8, 3), np.float32), 4.0, 2)
    np.testing.assert_array_equal(moved, points)


def test_wrong_shapes() -> None:
    heatmaps = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(ValueError, match=r"points is \(2, 2\); expected \(3, 2\)"):
        refine_peaks(np.zeros((2, 2), np.float32), heatmaps, 4.0, 2)
    with pytest.raises(TypeError, match="heatmaps is float64"):
        refine_peaks(np.zeros((3, 2), np.float32), heatmaps.astype(np.float64), 4.0, 2)
    with pytest.raises(ValueError, match="radius -1"):
        refine_peaks(np.zeros((3, 2), np.float32), heatmaps, 4.0, -1)
