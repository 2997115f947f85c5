"""What a pipeline is given, checked: options when it is made, then every frame."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from pchmr_engines.errors import InputError
from pchmr_engines.host import usable_cpus

from .camera import Camera
from .lens import Lens
from .photos import to_bgr8

MOST_PEOPLE = 64
"""Buffers are made for all of them."""


def check_options(max_people: int, detector_stride: int, camera: Camera | Lens | None) -> None:
    """Raises: InputError for an option out of its range, or of another type."""
    if not 1 <= max_people <= MOST_PEOPLE:
        raise InputError(f"max_people is {max_people}; expected 1 to {MOST_PEOPLE}")
    if detector_stride < 1:
        raise InputError(f"detector_stride is {detector_stride}; expected 1 or more")
    if not isinstance(camera, (Camera, Lens, type(None))):
        raise InputError(
            f"camera is a {type(camera).__name__}; expected a Camera: Camera(fx, fy, cx, cy), or "
            "Camera.from_json of a file"
        )


def checked_threads(threads: int | None) -> int:
    """As many as asked for and there are CPUs for: more would wait for each other; all by default.

    Raises: InputError for less than one.
    """
    cpus = usable_cpus()
    if threads is None:
        return cpus
    if threads < 1:
        raise InputError(f"threads is {threads}; expected 1 or more")
    if threads > cpus:
        warnings.warn(
            f"threads is {threads}, and this process may use {cpus} CPUs: {cpus} it is",
            stacklevel=3,
        )
    return min(threads, cpus)


def checked_frame(image: Any) -> np.ndarray:
    """The frame as (H, W, 3) uint8 BGR, row after row, as every crop reads them.

    Raises: InputError for what is no picture.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"frame is {type(image).__name__}; expected an array (H, W, 3) uint8 BGR: read a photo "
            "with pchmr.media.read_photo (OpenCV gives None for a file it cannot read)"
        )
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else 0
    if not 1 <= channels <= 4 or not image.size or image.dtype.kind not in "uif":
        raise InputError(
            f"frame is {image.shape} {image.dtype}; expected (H, W, 3) uint8 BGR: "
            "give one picture at a time, channels last"
        )
    if channels != 3 or image.dtype != np.uint8:
        return to_bgr8(image)[0]
    plain = image.strides[1:] == (3, 1) and image.strides[0] >= 3 * image.shape[1]
    return image if plain else np.ascontiguousarray(image)
