"""Pictures and videos whose copies show what was done to them."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

SIZE = (64, 48)
RED, GREEN, BLUE, WHITE = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)


def quadrants(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """Red | green over blue | white: a turned, mirrored or recoloured copy differs."""
    image = np.empty((height, width, 3), np.uint8)
    for y, row in enumerate([(RED, GREEN), (BLUE, WHITE)]):
        for x, color in enumerate(row):
            image[y * height // 2 :, x * width // 2 :] = color
    return image


def corners(image: np.ndarray) -> np.ndarray:
    """The middle pixel of each quadrant, (4, 3)."""
    height, width = image.shape[:2]
    rows, columns = np.array([0.25, 0.75]) * height, np.array([0.25, 0.75]) * width
    return image[rows.astype(int)][:, columns.astype(int)].reshape(4, 3).astype(int)


def photo_with_exif(suffix: str, image: np.ndarray, orientation: int) -> bytes:
    """A JPEG or PNG whose EXIF says how it is turned."""
    photo = cv2.imencode(suffix, image)[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    if suffix == ".jpg":
        begin, exif = 2, b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    else:
        begin, check = 33, zlib.crc32(b"eXIf" + tiff)  # after the signature and IHDR
        exif = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", check)
    return photo[:begin] + exif + photo[begin:]


def make_video(path: Path, frames: int = 12, ticks=None, rate=25, movflags="", **options) -> Path:
    """H.264 with a key frame every 4; `ticks` are presentation times in 1/1000 s."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"g": "4", "bf": "0", **options}
        )
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            image = quadrants()
            image[16:32, 24:40] = noise.integers(0, 256, (16, 16, 3))  # no two frames alike
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = (
                (ticks or range(0, 40 * frames, 40))[index],
                Fraction(1, 1000),
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
