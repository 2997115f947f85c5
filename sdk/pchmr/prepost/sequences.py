"""2D joints as lifters take them: screen coordinates, edge padding, windows of frames.

VideoPose3D (Pavllo et al. 2019; facebookresearch/VideoPose3D 1afb1ca), SemGCN and Martinez share
the coordinates. All arrays may have any leading axes.
"""

import numpy as np
from numpy.typing import NDArray

from .crops import Floats


def pixels_to_screen(pixels: Floats, width: float, height: float) -> NDArray[np.float64]:
    """Screen coordinates (..., 2) of pixels: x is -1..1 over the width, y keeps the aspect."""
    return pixels / width * 2.0 - np.array([1.0, height / width])


def screen_to_pixels(screen: Floats, width: float, height: float) -> NDArray[np.float64]:
    """Pixels (..., 2) of screen coordinates; inverse of `pixels_to_screen`."""
    return (screen + np.array([1.0, height / width])) * (width / 2)


def receptive_pad(receptive_field: int, causal: bool = False) -> tuple[int, int]:
    """Frames that a window has before and after the one it stands for."""
    pad = (receptive_field - 1) // 2
    return (2 * pad, 0) if causal else (pad, pad)


def pad_edges(sequence: Floats, pad: tuple[int, int]) -> Floats:
    """A sequence (T, ...) with its first and last frame repeated `pad` times before and after."""
    return sequence[_clamped(np.arange(-pad[0], len(sequence) + pad[1]), len(sequence))]


def windows(sequence: Floats, pad: tuple[int, int]) -> Floats:
    """(T, pad before + 1 + pad after, ...): what each frame of (T, ...) is lifted from."""
    frames = np.arange(len(sequence))[:, None] + np.arange(-pad[0], pad[1] + 1)
    return sequence[_clamped(frames, len(sequence))]


def _clamped(frames: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    return np.clip(frames, 0, length - 1)


def root_relative(joints: Floats, *, keep_root: bool = False) -> Floats:
    """Joints (..., J, 3) about joint 0. keep_root: joint 0 stays where it is, as in VideoPose3D's
    training targets, where it is the trajectory; SemGCN's has zeros there."""
    relative = joints - joints[..., :1, :]
    if keep_root:
        relative[..., :1, :] = joints[..., :1, :]
    return relative
