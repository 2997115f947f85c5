"""The native one-euro filters against plain NumPy; what they are for is tested in tests/sdk."""

from math import pi

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pchmr_kernels.reference import bone_order
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.smooth import Filter, OneEuroFilter, smooth, smooth_bones, smooth_place

HOW, HOW_SECOND = (2.0, 3.0, 1.0), (0.5, 0.1, 2.0)


class Reference:
    """One array after another, in NumPy."""

    def __init__(self, kind, how):
        self.kind, self.how = kind, how
        self.value = None

    def difference(self, given):
        if self.kind == "rotations":
            between = self.value.swapaxes(-1, -2) @ given
            return Rotation.from_matrix(between.reshape(-1, 3, 3)).as_rotvec()
        return given - self.value

    def __call__(self, seconds, given):
        if self.value is None or not np.isfinite([self.value, given]).all():
            self.value, self.velocity, self.lag_ms = given, 0.0, 0.0
            return given
        least_hz, slope, speed_hz = self.how
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
        self.lag_ms = (lag * speed).sum() / max(speed.sum(), 1e-9)
        return self.value


class PlaceReference:
    def __init__(self):
        self.seen, self.depth = Reference("points", HOW), Reference("points", HOW_SECOND)

    def __call__(self, seconds, place):
        depth = self.depth(seconds, place[2:])
        return np.append(self.seen(seconds, place[:2] / place[2]) * depth, depth)


class BonesReference:
    def __init__(self, pairs):
        self.directions, self.lengths = (
            Reference("directions", HOW),
            Reference("points", HOW_SECOND),
        )
        self.pairs = pairs

    def __call__(self, seconds, joints):
        parents, children = self.pairs.T
        bones = joints[children] - joints[parents]
        lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
        bones = self.directions(seconds, bones / np.maximum(lengths, 1e-9))
        bones = bones * self.lengths(seconds, lengths)
        joints = joints.copy()
        for (parent, child), bone in zip(self.pairs, bones, strict=True):
            joints[child] = joints[parent] + bone
        return joints


def share(cutoff_hz, seconds):
    return 1 / (1 + 1 / (2 * pi * cutoff_hz * seconds))


def values(kind, rng):
    if kind == "rotations":
        return Rotation.random(24, random_state=int(rng.integers(1000))).as_matrix()
    points = rng.normal(size=(7, 3))
    return (
        points / np.linalg.norm(points, axis=1, keepdims=True) if kind == "directions" else points
    )


def make(kind, shape, how=HOW):
    """A native filter, as the reference takes its arrays."""
    own = OneEuroFilter(kind, shape, *how)
    return Timed(Filter(shape, smooth(own), own))


class Timed:
    def __init__(self, native):
        self.native, self.t_ns = native, 0

    def __call__(self, seconds, given):
        self.t_ns += round(seconds * 1e9)
        given = given.copy("K")
        self.native(self.t_ns, given)
        return given


def seconds_of(rng):
    return round(rng.uniform(0.01, 0.1), 6)


@pytest.mark.parametrize("kind", ["points", "directions", "rotations"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_follows_numpy(kind, dtype, rng):
    found, expected = make(kind, values(kind, rng).shape), Reference(kind, HOW)
    for _ in range(30):
        seconds, given = seconds_of(rng), values(kind, rng).astype(dtype)
        value = found(seconds, given)
        assert value.dtype == dtype
        atol = 1e-9 if dtype == np.float64 else 1e-6
        np.testing.assert_allclose(value, expected(seconds, given.astype(float)), atol=atol)
        assert found.native.lag_ms == pytest.approx(expected.lag_ms, rel=1e-5)


def test_a_place_follows_numpy(rng):
    seen, depth = OneEuroFilter("points", (2,), *HOW), OneEuroFilter("points", (1,), *HOW_SECOND)
    found = Timed(Filter((3,), smooth_place(seen, depth), seen, depth))
    expected, waited = PlaceReference(), 0.0
    places = rng.normal(size=(60, 3)) + np.array([0, 0, 4])
    places[10:13, 2], places[20, 0], places[30, 2] = (-1, 0, np.nan), np.nan, np.inf
    for given in places:
        waited += (seconds := seconds_of(rng))
        value = found(seconds, given)
        if given[2] > 0:
            np.testing.assert_allclose(value, expected(waited, given), rtol=1e-12)
            assert found.native.lag_ms == pytest.approx(expected.seen.lag_ms)
            waited = 0.0
        else:
            np.testing.assert_array_equal(value, given)


@pytest.mark.parametrize("name", ["smpl24", "h36m17", "posenet21_muco", "blazepose33"])
def test_bones_follow_numpy(name, rng):
    """Bones of no length, and joints that are missing, among them."""
    skeleton = get_skeleton(name)
    pairs, shape = skeleton.bones[bone_order(skeleton.bones, skeleton.root)], (len(skeleton), 3)
    directions = OneEuroFilter("directions", (len(pairs), 3), *HOW)
    lengths = OneEuroFilter("points", (len(pairs), 1), *HOW_SECOND)
    bones, room = np.array(pairs, np.int32), np.empty((len(pairs), 4))
    steps = smooth_bones(directions, lengths, bones, room)
    found = Timed(Filter(shape, steps, directions, lengths, bones, room))
    expected, waited = BonesReference(pairs), 0.0
    for frame in range(40):
        waited += (seconds := seconds_of(rng))
        given = rng.normal(size=shape)
        parent, child = pairs[rng.integers(len(pairs))]
        given[child] = given[parent]
        if missing := frame % 10 == 5:
            given[child] = np.nan
        value = found(seconds, given)
        if missing:
            np.testing.assert_array_equal(value, given)
        else:
            np.testing.assert_allclose(value, expected(waited, given), atol=1e-12)
            assert found.native.lag_ms == pytest.approx(expected.directions.lag_ms)
            waited = 0.0


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, pi - 1e-9, pi])
def test_a_turn_of_any_angle(angle, rng):
    first = values("rotations", rng)
    given = first @ Rotation.from_rotvec([angle, 0, 0]).as_matrix()
    found = make("rotations", first.shape, (1e9, 0.0, 1.0))  # follows at once
    found(0.1, first)
    np.testing.assert_allclose(found(0.1, given), given, atol=1e-7)


def test_one_vector_has_one_cutoff(rng):
    found, expected = make("points", (10,)), Reference("points", HOW)
    for given in rng.normal(size=(3, 10)):
        np.testing.assert_allclose(found(0.1, given), expected(0.1, given))


@pytest.mark.parametrize("kind", ["points", "rotations"])
@pytest.mark.parametrize("layout", ["F", "every other", "big-endian"])
def test_arrays_of_any_layout(kind, layout, rng):
    """As a transposed rotation is; whether they lie in an array of people or not."""
    found, expected = make(kind, values(kind, rng).shape), Reference(kind, HOW)
    for _ in range(3):
        given = values(kind, rng)
        wide = np.empty((*given.shape, 2), ">f8" if layout == "big-endian" else float)
        other = np.asfortranarray(given) if layout == "F" else wide[..., 0]
        other[...] = given
        np.testing.assert_allclose(found(0.1, other), expected(0.1, given), atol=1e-9)


@pytest.mark.parametrize(("kind", "shape"), [("points", (0,)), ("rotations", (0, 3, 3))])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_of_nothing(kind, shape, dtype):
    """As of the pose of a generator that gives vertices."""
    found = make(kind, shape)
    for _ in range(2):
        found(0.1, np.zeros(shape, dtype))
        assert found.native.lag_ms == 0


@pytest.mark.parametrize("kind", ["points", "directions", "rotations"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_begins_anew_after_what_is_no_number(kind, number, rng):
    found = make(kind, values(kind, rng).shape)
    for _ in range(3):
        found(0.1, values(kind, rng))
    assert found.native.lag_ms > 0
    missing, after = values(kind, rng), values(kind, rng)
    missing[-1, -1] = number
    for given in (missing, after):
        np.testing.assert_array_equal(found(0.1, given), given)
        assert found.native.lag_ms == 0


def test_another_shape_is_refused(rng):
    found = make("points", (7, 3))
    with pytest.raises(ValueError, match=r"value is \(6, 3\); expected \(7, 3\)"):
        found(0.1, rng.normal(size=(6, 3)))
