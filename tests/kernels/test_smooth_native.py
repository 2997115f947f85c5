"""The native one-euro filters against plain NumPy; what they are for is tested in tests/sdk."""

from math import pi

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pchmr_kernels.smooth import OneEuroFilter


class Reference:
    """One step after another, in NumPy."""

    def __init__(self, kind, first, least_hz, slope, speed_hz):
        self.kind, self.value = kind, first
        self.settings = least_hz, slope, speed_hz
        self.velocity = np.zeros_like(self.difference(first))

    def difference(self, given):
        if self.kind == "rotations":
            between = self.value.swapaxes(-1, -2) @ given
            return Rotation.from_matrix(between.reshape(-1, 3, 3)).as_rotvec()
        return given - self.value

    def step(self, seconds, given):
        least_hz, slope, speed_hz = self.settings
        difference = self.difference(given)
        gone = share(speed_hz, seconds)
        self.velocity = self.velocity + gone * (difference / seconds - self.velocity)
        speed = np.linalg.norm(self.velocity, axis=-1, keepdims=True)
        gone = share(least_hz + slope * speed, seconds)
        if self.kind == "rotations":
            self.value = self.value @ Rotation.from_rotvec(gone * difference).as_matrix()
        else:
            self.value = self.value + gone * difference
        if self.kind == "directions":
            self.value = self.value / np.linalg.norm(self.value, axis=-1, keepdims=True)
        lag = 1e3 * seconds * (1 - gone) / gone
        self.lag_ms = (lag * speed).sum() / speed.sum()


def share(cutoff_hz, seconds):
    return 1 / (1 + 1 / (2 * pi * cutoff_hz * seconds))


def values(kind, rng):
    if kind == "rotations":
        return Rotation.random(24, random_state=int(rng.integers(1000))).as_matrix()
    points = rng.normal(size=(7, 3))
    return (
        points / np.linalg.norm(points, axis=1, keepdims=True) if kind == "directions" else points
    )


@pytest.mark.parametrize("kind", ["points", "directions", "rotations"])
def test_follows_numpy(kind, rng):
    first = values(kind, rng)
    found, expected = (make(kind, first, 2.0, 3.0, 1.0) for make in (OneEuroFilter, Reference))
    for _ in range(30):
        seconds, given = rng.uniform(0.01, 0.1), values(kind, rng)
        assert found.step(seconds, given)
        expected.step(seconds, given)
        np.testing.assert_allclose(found.value, expected.value, atol=1e-9)
        assert found.lag_ms == pytest.approx(expected.lag_ms)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, pi - 1e-9, pi])
def test_a_turn_of_any_angle(angle, rng):
    first = values("rotations", rng)
    given = first @ Rotation.from_rotvec([angle, 0, 0]).as_matrix()
    found = OneEuroFilter("rotations", first, 1e9, 0.0, 1.0)  # follows at once
    assert found.step(0.1, given)
    np.testing.assert_allclose(found.value, given, atol=1e-7)


def test_one_vector_has_one_cutoff(rng):
    first, given = rng.normal(size=(2, 10))
    found = OneEuroFilter("points", first, 2.0, 3.0, 1.0)
    expected = Reference("points", first[None], 2.0, 3.0, 1.0)
    found.step(0.1, given)
    expected.step(0.1, given[None])
    np.testing.assert_allclose(found.value, expected.value[0])


@pytest.mark.parametrize("kind", ["points", "rotations"])
def test_arrays_of_any_order(kind, rng):
    """As a transposed rotation is."""
    first, given = (np.asfortranarray(values(kind, rng)) for _ in range(2))
    found, expected = (make(kind, first, 2.0, 3.0, 1.0) for make in (OneEuroFilter, Reference))
    found.step(0.1, given)
    expected.step(0.1, given)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-9)


@pytest.mark.parametrize(("kind", "shape"), [("points", (0,)), ("rotations", (0, 3, 3))])
def test_of_nothing(kind, shape):
    """As of the pose of a generator that gives vertices."""
    found = OneEuroFilter(kind, np.zeros(shape), 2.0, 3.0, 1.0)
    assert found.step(0.1, np.zeros(shape))
    assert found.lag_ms == 0


@pytest.mark.parametrize("kind", ["points", "directions", "rotations"])
def test_what_is_no_number_moves_nothing(kind, rng):
    first, given = values(kind, rng), values(kind, rng)
    found = OneEuroFilter(kind, first, 2.0, 3.0, 1.0)
    given[-1, -1] = np.nan
    assert not found.step(0.1, given)
    np.testing.assert_array_equal(found.value, first)
    assert not OneEuroFilter(kind, given, 2.0, 3.0, 1.0).step(0.1, first)
    with pytest.raises(ValueError, match="given is"):
        found.step(0.1, first[1:])
