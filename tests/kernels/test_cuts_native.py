"""The native comparison of pictures against plain NumPy; what it is for is tested in tests/sdk."""

import numpy as np
import pytest

from pchmr.cuts import ALIKE, RECOLOURED, ROWS, CutDetector
from pchmr_kernels.cuts import PointComparison


class Reference:
    """The same verdicts, in NumPy."""

    def __init__(self):
        self.before = None

    def __call__(self, image):
        step = max(1, min(image.shape[:2]) // ROWS)
        known, few = self.before, image[step // 2 :: step, step // 2 :: step].astype(np.int64)
        self.before = few
        if known is None or known.shape != few.shape:
            return known is not None
        a, b = (points - points.mean((0, 1)) for points in (few, known))
        alike = (a * b).sum() > ALIKE * np.sqrt((a * a).sum() * (b * b).sum())
        changed = np.abs(colours(few) - colours(known)).sum() / 2 / few.size
        return bool(not alike and changed > RECOLOURED)


def colours(few):
    """(48,) points in each sixteenth of each colour's range."""
    return np.bincount(((few >> 4) + [0, 16, 32]).ravel(), minlength=48)


def video(rng, shape, frames=60):
    """Frames that keep some of the picture before, take some of another, and change its light."""
    picture = rng.integers(0, 256, shape)
    for _ in range(frames):
        kept, light = rng.uniform(0, 1), rng.uniform(0.7, 1)
        other = rng.integers(0, 256, shape)
        picture = (light * (kept * picture + (1 - kept) * other)).astype(int)
        yield picture.astype(np.uint8)


@pytest.mark.parametrize("shape", [(994, 1768), (50, 90), (24, 24), (7, 400), (23, 1), (1, 1)])
def test_follows_numpy(shape, rng):
    found, expected = CutDetector(), Reference()
    verdicts = [(found(image), expected(image)) for image in video(rng, (*shape, 3))]
    assert [a for a, _ in verdicts] == [b for _, b in verdicts]
    if min(shape) > 7:
        assert {True, False} == {b for _, b in verdicts}


def test_pictures_of_one_colour(rng):
    found, expected = CutDetector(), Reference()
    for value in (0, 0, 255, 255, 250, 239, 3, 77):
        image = np.full((60, 80, 3), value, np.uint8)
        assert found(image) == expected(image)
    noise = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    assert [found(noise), found(image), found(image)] == [True, True, False]


def test_pictures_of_other_sizes(rng):
    """Also such as have as many points, and are compared."""
    found, expected = CutDetector(), Reference()
    large = next(video(rng, (240, 480, 3)))
    sizes = [large, large[:, :479], large[:239], large[::2, ::2], large[:, :100], large[:1, :1]]
    for image in [*sizes, *sizes[::-1]]:
        assert found(image) == expected(image)
    assert not found(large)
    assert not found(large[::2, ::2].repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    "seen",
    [
        lambda image: image[::-1, ::-1, ::-1],
        lambda image: image[1:-1, 5:-9],
        lambda image: image.transpose(1, 0, 2),
        lambda image: np.broadcast_to(image[:1], image.shape),
        lambda image: np.asfortranarray(image),
    ],
    ids=["backwards", "part", "turned", "read-only", "planes"],
)
def test_frames_of_any_strides(seen, rng):
    found, expected = CutDetector(), CutDetector()
    for image in video(rng, (60, 110, 3)):
        assert found(seen(image)) == expected(np.ascontiguousarray(seen(image)))


def test_more_points_than_an_int32_sums(rng):
    picture = rng.integers(250, 256, (30, 40_000, 3)).astype(np.uint8)
    found = CutDetector()
    other = rng.integers(0, 256, picture.shape).astype(np.uint8)
    assert [found(image) for image in (picture, picture, other, other)] == [0, 0, 1, 0]


def test_refuses_what_is_no_such_frame():
    compared = PointComparison((30, 40, 3), 1, ALIKE, RECOLOURED)
    for image in (np.zeros((30, 41, 3), np.uint8), np.zeros((30, 40, 3))):
        with pytest.raises(ValueError, match=r"image is .*; expected uint8 \(30, 40, 3\)"):
            compared(image)
    for shape, step in (((30, 40), 1), ((30, 40, 1), 1), ((30, 40, 3), 0)):
        with pytest.raises(ValueError, match=r"expected \(H, W, 3\), 1 or more"):
            PointComparison(shape, step, ALIKE, RECOLOURED)
