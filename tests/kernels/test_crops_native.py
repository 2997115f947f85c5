"""The native crop against OpenCV's warpAffine; what crops are is tested in tests/sdk/test_crops."""

import math
import subprocess
import sys

import cv2
import numpy as np
import pytest

from pchmr_kernels.crops import crop


def affine(x, y, scale, angle, size):
    """A crop's pixels to the picture's: its middle at x, y."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    half = size / 2
    return np.array([[cos, -sin, x - (cos - sin) * half], [sin, cos, y - (sin + cos) * half]])


def expected(image, turn, size, extend):
    border = cv2.BORDER_REPLICATE if extend else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, turn, (size, size), flags=flags, borderMode=border)
    return warped[..., ::-1]


def cropped(image, turn, size, extend):
    out = np.empty((size, size, 3), np.uint8)
    crop(image, turn, out, extend)
    return out


PLACES = {
    "inside": (200, 150, 0.7, 0.3),
    "whole pixels": (200, 150, 1.0, 0.0),
    "a quarter turn": (200, 150, 1.3, math.pi / 2),
    "over an edge": (10, 290, 1.5, -0.4),
    "over all edges": (200, 150, 5.0, 2.5),
    "outside": (-900, 4000, 0.5, 0.1),
    "far outside": (1e12, -1e12, 3.0, 0.1),
}


@pytest.mark.parametrize("extend", [True, False])
@pytest.mark.parametrize("size", [256, 224, 37])
@pytest.mark.parametrize("place", PLACES)
def test_follows_opencv(place, size, extend, rng, each_isa):
    image = rng.integers(0, 256, (300, 400, 3), np.uint8)
    turn = affine(*PLACES[place], size)

    for isa, out in each_isa(lambda: cropped(image, turn, size, extend)).items():
        if place == "far outside":  # where OpenCV's own integers end
            assert (out == (image[0, -1, ::-1] if extend else 0)).all()
            continue
        apart = np.abs(out.astype(int) - expected(image, turn, size, extend))
        assert apart.max() <= 1
        # OpenCV takes the best instructions, but for what is left over of a row: with them all is
        # the same, else but for roundings.
        exact = isa != "baseline" and size % 16 == 0
        assert (apart > 0).mean() <= (0 if exact else 0.03)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 5), (1, 50), (50, 1)])
@pytest.mark.parametrize("extend", [True, False])
def test_tiny_pictures(shape, extend, rng, each_isa):
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    turn = affine(shape[1] / 2, shape[0] / 2, max(shape) / 20, 0.2, 16)
    for out in each_isa(lambda: cropped(image, turn, 16, extend)).values():
        apart = np.abs(out.astype(int) - expected(image, turn, 16, extend))
        assert apart.max() <= 1


def test_nothing_beyond_the_picture_is_read_into_it(rng, each_isa):
    """A picture with rows apart, inside a larger one of another colour."""
    large = np.full((120, 160, 3), 255, np.uint8)
    large[20:100, 30:130] = rng.integers(0, 100, (80, 100, 3), np.uint8)
    part, turn = large[20:100, 30:130], affine(50, 40, 3.0, 0.7, 64)
    found = each_isa(lambda: cropped(part, turn, 64, extend=True))
    alone = each_isa(lambda: cropped(part.copy(), turn, 64, extend=True))
    for isa, out in found.items():
        np.testing.assert_array_equal(out, alone[isa])
        assert out.max() < 100


def test_nothing_behind_the_picture_is_read():
    """Pictures whose last byte is the last that may be read: a process that reads on ends."""
    code = """
import ctypes, itertools, mmap
import numpy as np
from pchmr_kernels import native
from pchmr_kernels.crops import crop

PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), 0)
readable = np.frombuffer(memory, np.uint8, PAGE)
rng, out = np.random.default_rng(0), np.empty((16, 16, 3), np.uint8)
for isa in native.instruction_sets():
    native.use_instruction_set(isa)
    for height, width in itertools.product((1, 2, 3, 4, 9), repeat=2):
        image = readable[-3 * height * width :].reshape(height, width, 3)
        for picture in (image, np.broadcast_to(image[-1], image.shape)):
            for _ in range(40):
                (x, y), scale = rng.uniform(-1, (width + 1, height + 1)), rng.uniform(0, 0.5)
                turn = np.array([[scale, 0, x - 8 * scale], [0, scale, y - 8 * scale]])
                crop(picture, turn, out, extend=True)
                crop(picture, turn, out)
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "done\n", run.stderr


def test_places_that_are_no_numbers_end(rng):
    out = np.empty((8, 8, 3), np.uint8)
    crop(rng.integers(0, 256, (9, 9, 3), np.uint8), np.full((2, 3), np.nan), out, extend=True)


@pytest.mark.parametrize(
    ("image", "turn", "out", "match"),
    [
        (np.zeros((4, 4, 4), np.uint8), np.eye(2, 3), np.zeros((8, 8, 3), np.uint8), "image is"),
        (np.zeros((4, 4, 3)), np.eye(2, 3), np.zeros((8, 8, 3), np.uint8), "image is float64"),
        (np.zeros((4, 4, 3), np.uint8), np.eye(3), np.zeros((8, 8, 3), np.uint8), "affine is"),
        (np.zeros((4, 4, 3), np.uint8), np.eye(2, 3), np.zeros((8, 9, 3), np.uint8), "out is"),
    ],
)
def test_refuses(image, turn, out, match):
    with pytest.raises(ValueError, match=match):
        crop(image, turn, out)
