"""Photos of any format and depth as BGR uint8, and photos written whole or not at all."""

import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError

from .whole import whole_file

Image = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Larger photos are shrunk to this many pixels (8192 x 8192, 200 MB as BGR)."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


def is_photo(path: Path) -> bool:
    """True if the content (not the name) is a still image that OpenCV decodes."""
    with path.open("rb") as file:
        if file.read(4) == b"GIF8":  # mostly an animation: read as a video
            return False
    return cv2.haveImageReader(str(path))


def read_photo(path: Path) -> tuple[Image, list[str]]:
    """Read a photo, upright by its EXIF orientation, and say what had to be converted.

    Grey becomes BGR, 16-bit and floating point become 8-bit, alpha is laid over white, CMYK
    becomes BGR, and a photo above `MAX_PIXELS` is shrunk.

    Returns:
        image: (H, W, 3) uint8, BGR; notes: one short phrase a conversion, empty if none.
    Raises:
        InputError: the file cannot be read, is empty, or is no photo.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected a readable photo") from error
    if not content:
        raise InputError(f"{path} is empty (0 bytes); expected a photo: copy the file again")
    if content.startswith(_PNG) and (damage := _png_damage(content)):
        raise InputError(f"{path} is a PNG that {damage}: copy the file again")
    # Only IMREAD_COLOR turns a photo upright and undoes CMYK; only IMREAD_UNCHANGED keeps alpha.
    jpeg, data = content.startswith(_JPEG), np.frombuffer(content, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR if jpeg else cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape[2:] == (3,) and not jpeg and _has_exif(content):
            image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise InputError(
            f"{path} cannot be decoded ({error.err}); expected at most 2^30 pixels: shrink it first"
        ) from error
    if image is None:
        raise InputError(
            f"{path} begins with {content[:8]!r}, which is no photo that OpenCV reads "
            "(JPEG, PNG, WebP, TIFF, BMP, AVIF, ...), or is cut short: convert it to JPEG or PNG"
        )
    picture, notes = to_bgr8(np.asarray(image))
    return picture, ["animated: its first picture is read", *notes] if _moves(content) else notes


def _moves(content: bytes) -> bool:
    """Whether a PNG or WebP is animated: by acTL before the first IDAT, or the flag of VP8X."""
    if content.startswith(_PNG):
        return b"acTL" in content.partition(b"IDAT")[0]
    return content[8:16] == b"WEBPVP8X" and bool(content[20] & 2)


def _png_damage(png: bytes) -> str:
    """What is wrong with a PNG's chunks, empty for nothing: libpng would write to stderr itself."""
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if end > len(png):
            return "is cut short"
        kind = png[at + 4 : at + 8]
        if zlib.crc32(png[at + 4 : end - 4]) != int.from_bytes(png[end - 4 : end], "big"):
            return f"is damaged (checksum of {kind.decode('latin-1')!r})"
        at = end
    return ""


def _has_exif(content: bytes) -> bool:
    """Whether a PNG or WebP may have a chunk of EXIF."""
    return b"eXIf" in content or b"EXIF" in content


def to_bgr8(image: npt.NDArray[Any]) -> tuple[Image, list[str]]:
    """(H, W), or (H, W, C) of 1 to 4 channels, of any depth, as BGR uint8; and what was converted.

    A huge one is shrunk to `MAX_PIXELS`.
    """
    notes = []
    height, width = image.shape[:2]
    if height * width > MAX_PIXELS:
        scale = (MAX_PIXELS / (height * width)) ** 0.5
        small = (max(1, int(width * scale)), max(1, int(height * scale)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        notes.append(f"{width}x{height} shrunk to {small[0]}x{small[1]}")
    if image.dtype != np.uint8:
        notes.append(f"{image.dtype} reduced to 8 bit")
        image = _to_8bit(image)
    if image.ndim == 2:
        image = image[..., None]
    channels = image.shape[2]
    if channels in (2, 4):
        notes.append("alpha laid over white")
        alpha = image[..., -1:].astype(np.uint16)
        color = image[..., :-1].astype(np.uint16)
        image = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if image.shape[2] == 1:
        notes.append("grey read as colour")
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3], np.uint8), notes


def _to_8bit(image: npt.NDArray[Any]) -> Image:
    """Scale to 0..255: integers by the least depth that holds them (8 or 12 bits are often stored
    in more), floats by 1 or the largest value."""
    values = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if np.issubdtype(image.dtype, np.integer):
        most = np.iinfo(image.dtype).max
        depths = (255, 4095, 65535, most)
        full = float(min((depth for depth in depths if top <= depth <= most), default=most))
    else:
        full = max(1.0, top)
    return np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8)


def write_photo(path: Path | str, image: Image) -> Path:
    """Write a BGR image in the format its suffix names; a reader never sees half a file.

    Raises:
        InputError: the suffix names no format that can be written, or the place cannot be written
            to, or is full.
    """
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        raise InputError(f"cannot write {path.name!r}: name it .jpg, .png, .webp, .tif or .bmp")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise InputError(f"{path.suffix} cannot hold {image.shape} {image.dtype}: name it .png")
    with whole_file(path) as part:
        part.write_bytes(data.data)
    return path
