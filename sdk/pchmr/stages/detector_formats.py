"""How families of person detectors take a picture, and what their outputs mean.

By what Megvii's YOLOX, MMDeploy's RTMDet and Ultralytics' exports are documented to give. None of
their weights were at hand: tested on hand-made outputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STRIDES = (8, 16, 32)

Arrays = Sequence[np.ndarray]
Decoded = tuple[np.ndarray, np.ndarray]
"""(N, 4) x0, y0, x1, y1 in pixels of the network's picture, and (N,) scores of a person."""


@dataclass(frozen=True)
class Format:
    """How a family of detectors takes its picture, and what its outputs mean.

    decode: outputs of one picture, its (height, width) and the index of people -> boxes, scores.
    rgb: else BGR. mean, std: of 0..255, in that order. centred: grey on both sides, else on the
    right and below. suppressed: boxes of one person were merged inside the graph.
    """

    decode: Callable[[Arrays, tuple[int, int], int], Decoded]
    rgb: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    centred: bool = False
    suppressed: bool = False


def decode_yolox(outputs: Arrays, size: tuple[int, int], person: int) -> Decoded:
    """(1, N, 5 + classes): centre and logarithm of the size in cells of strides 8, 16, 32."""
    rows = outputs[0][0].astype(np.float64)
    grids = [
        np.stack(np.meshgrid(np.arange(size[1] // s), np.arange(size[0] // s)), -1).reshape(-1, 2)
        for s in STRIDES
    ]
    strides = np.repeat(STRIDES, [len(grid) for grid in grids])[:, None]
    centre = (rows[:, :2] + np.concatenate(grids)) * strides
    extent = np.exp(rows[:, 2:4]) * strides
    return _corners(centre, extent), rows[:, 4] * rows[:, 5 + person]


def decode_yolox_boxes(outputs: Arrays, size: tuple[int, int], person: int) -> Decoded:
    """(1, N, 5 + classes): the same, exported with its decoding: centre and size in pixels."""
    rows = outputs[0][0].astype(np.float64)
    return _corners(rows[:, :2], rows[:, 2:4]), rows[:, 4] * rows[:, 5 + person]


def decode_yolov8(outputs: Arrays, size: tuple[int, int], person: int) -> Decoded:
    """(1, 4 + classes, N): centre and size in pixels; YOLOv8 to YOLO11."""
    rows = outputs[0][0].T.astype(np.float64)
    return _corners(rows[:, :2], rows[:, 2:4]), rows[:, 4 + person]


def decode_rtmdet(outputs: Arrays, size: tuple[int, int], person: int) -> Decoded:
    """MMDeploy's (1, N, 5) corners and score, and (1, N) classes."""
    rows, labels = outputs[0][0].astype(np.float64), outputs[1][0]
    return rows[:, :4], rows[:, 4] * (labels == person)


def decode_rows(outputs: Arrays, size: tuple[int, int], person: int) -> Decoded:
    """(1, N, 6): corners, score, class; YOLOv10 and later."""
    rows = outputs[0][0].astype(np.float64)
    return rows[:, :4], rows[:, 4] * (rows[:, 5].round() == person)


FORMATS: Mapping[str, Format] = {
    "yolox": Format(decode_yolox),
    "yolox-decoded": Format(decode_yolox_boxes),
    "rtmdet": Format(
        decode_rtmdet,
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
        suppressed=True,
    ),
    "yolov8": Format(decode_yolov8, rgb=True, std=(255.0,) * 3, centred=True),
    "yolov10": Format(decode_rows, rgb=True, std=(255.0,) * 3, centred=True, suppressed=True),
}


def _corners(centre: np.ndarray, extent: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - extent / 2, centre + extent / 2], 1)
