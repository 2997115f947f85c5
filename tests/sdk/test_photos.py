"""Photos and folders of them, of every format and depth."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures_made_up import BLUE, GREEN, RED, SIZE, WHITE, corners, photo_with_exif, quadrants

from pchmr.media import open_source, read_photo, write_photo
from pchmr.photos import to_bgr8
from pchmr_engines.errors import InputError


def test_photo(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.png", quadrants())
    with open_source(path) as source:
        (frame,) = source
    assert (source.kind, source.size, source.count, source.warnings) == ("photo", SIZE, 1, [])
    assert (frame.index, frame.t_ns, frame.path) == (0, 0, path)
    np.testing.assert_array_equal(frame.image, quadrants())


@pytest.mark.parametrize(
    ("pixels", "expected", "note"),
    [
        (np.full((4, 6), 70, np.uint8), 70, "grey"),
        (np.full((4, 6), 65535, np.uint16), 255, "uint16 reduced"),
        (np.full((4, 6, 3), 32768, np.uint16), 128, "uint16 reduced"),
        (np.full((4, 6), 4095, np.uint16), 255, "uint16 reduced"),  # 12 bits stored in 16
        (np.full((4, 6, 4), (0, 0, 0, 0), np.uint8), 255, "alpha"),
        (np.full((4, 6, 4), (100, 100, 100, 51), np.uint8), 224, "alpha"),  # 0.2*100 + 0.8*255
        (np.full((4, 6, 4), (0, 0, 0, 65535), np.uint16), 0, "alpha"),
    ],
)
def test_photo_depths_and_channels(tmp_path: Path, pixels, expected: int, note: str) -> None:
    path = tmp_path / "odd.png"
    assert cv2.imwrite(str(path), pixels)
    image, notes = read_photo(path)
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert set(np.unique(image)) == {expected}
    assert any(note in line for line in notes)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_photo_of_8_bits_in_wider_integers(dtype) -> None:
    """As NumPy's arithmetic leaves it: not black."""
    pixels = np.array([[[0, 128, 255]]])
    np.testing.assert_array_equal(to_bgr8(pixels.astype(dtype))[0], pixels)


def test_photo_in_floating_point(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    assert cv2.imwrite(str(path), np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))
    np.testing.assert_array_equal(read_photo(path)[0][0, :, 0], [0, 128, 255, 0])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_photo_turned_by_exif(tmp_path: Path, suffix: str) -> None:
    """Orientation 6: stored lying on its left side, to be shown turned clockwise."""
    lying = cv2.rotate(quadrants(), cv2.ROTATE_90_COUNTERCLOCKWISE)
    path = tmp_path / f"phone{suffix}"
    path.write_bytes(photo_with_exif(suffix, lying, 6))
    image, _ = read_photo(path)
    assert image.shape[:2] == SIZE[::-1]
    np.testing.assert_allclose(corners(image), [RED, GREEN, BLUE, WHITE], atol=12)


def test_huge_photo_is_shrunk_and_flagged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pchmr.photos.MAX_PIXELS", 1000)
    image, notes = read_photo(write_photo(tmp_path / "huge.png", quadrants(640, 480)))
    assert image.shape == (27, 36, 3)
    assert "640x480 shrunk to 36x27" in notes
    np.testing.assert_allclose(corners(image), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_photo_out_in_its_own_format(tmp_path: Path, suffix: str) -> None:
    path = write_photo(tmp_path / "new" / f"a{suffix}", quadrants())
    assert [file.name for file in path.parent.iterdir()] == [f"a{suffix}"]
    np.testing.assert_allclose(corners(read_photo(path)[0]), [RED, GREEN, BLUE, WHITE], atol=12)


def test_photo_out_in_no_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a\.mp4': name it \.jpg, \.png"):
        write_photo(tmp_path / "a.mp4", quadrants())


def test_folder_in_natural_order_skipping_the_unreadable(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_photo(tmp_path / f"frame{number}.png", np.full((4, 6, 3), number, np.uint8))
    (tmp_path / "frame3.jpg").write_bytes(b"not a photo")
    (tmp_path / "frame4.png").write_bytes(b"")
    (tmp_path / "frame5.HEIC").write_bytes(b"\0\0\0\x1cftypheic")
    (tmp_path / "notes.txt").write_text("no photo either")
    with open_source(tmp_path, fps=10) as source:
        frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert [(frame.index, frame.t_ns) for frame in frames] == [(0, 0), (1, 10**8), (2, 2 * 10**8)]
    assert (source.kind, source.count, source.skipped) == ("folder", 6, 3)
    assert "frame3.jpg begins with b'not a ph'" in source.warnings[0]
    assert "frame4.png is empty" in source.warnings[1]
    assert re.search(r"frame5\.HEIC .*: convert it to JPEG", source.warnings[2])


def test_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no photo"):
        open_source(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of the 1 photos can be read: skipped .*a\.jpg"):
        open_source(tmp_path)
