"""The native distance with sides exchanged against plain NumPy; its use is tested in tests/sdk."""

import numpy as np
import pytest

from pchmr_kernels import sides

PARTNERS = np.array([0, 2, 1, 4, 3, 6, 5])
PARTS = [slice(None), slice(1, 5), slice(5, 7), slice(3, 3)]


def reference(points, before, part):
    named = points[part, :2] - before[part, :2]
    otherwise = points[PARTNERS[part], :2] - before[part, :2]
    nearer = np.hypot(*named.T) - np.hypot(*otherwise.T)
    seen = points[part, 2]
    return (seen @ nearer) / max(seen.sum(), 1e-6)


def nearer(part, points, before):
    return sides.ExchangeDistance(PARTNERS, part)(points.tobytes(), before.tobytes())


def people(rng):
    return rng.uniform(0, 900, (2, 7, 3)).astype(np.float32) * np.float32([1, 1, 1e-3])


@pytest.mark.parametrize("part", PARTS)
def test_follows_numpy(part, rng):
    for _ in range(20):
        points, before = people(rng)
        expected = reference(points.astype(float), before.astype(float), part)
        assert nearer(part, points, before) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_somebody_whose_sides_are_exchanged():
    """Hands 60 px apart; the feet, 80 px, count half as much."""
    before = np.zeros((7, 3), np.float32)
    before[1:5, 0] = -30, 30, -40, 40
    before[:, 2] = [1, 1, 1, 0.5, 0.5, 1, 1]
    assert nearer(slice(1, 5), before[PARTNERS], before) == pytest.approx((2 * 60 + 80) / 3)
    assert nearer(slice(1, 5), before, before) == pytest.approx(-(2 * 60 + 80) / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_no_number_tells_nothing(value, number, rng):
    points, before = people(rng)
    points[3, number] = value
    assert np.isnan(nearer(slice(1, 5), points, before))
    assert np.isfinite(nearer(slice(5, 7), points, before))


def test_nobody_visible_is_no_nearer(rng):
    points, before = people(rng)
    points[:, 2] = 0
    assert nearer(slice(1, 7), points, before) == 0


def test_refuses(rng):
    points, before = people(rng)
    for wrong in (points[:6], points[:, :2], points.astype(float)):
        for given in ((wrong, before), (points, wrong)):
            with pytest.raises(ValueError, match=r"bytes.*; expected 84: float32 \(N, 3\)"):
                nearer(slice(1, 5), *given)
    for partners in ([0, 2], [-1, 0], [[0], [0]]):
        with pytest.raises(ValueError, match="each from 0 below N"):
            sides.ExchangeDistance(np.array(partners), slice(None))
