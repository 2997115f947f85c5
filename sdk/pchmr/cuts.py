"""Where a video goes on with another picture: a cut, after which nobody's movement goes on."""

from __future__ import annotations

import numpy as np

ROWS = 24
"""Of the picture, about, that are compared: some thousand points."""
ALIKE, RECOLOURED = 0.6, 0.06
"""Correlation of the points, and share of them that changed its sixteenth of the range. From one
frame to the next of our footage (an outdoor camera with the sun coming and going behind a man, four
cameras in a hall) the least correlation is 0.94; between views of one hall it is 0.06 to 0.36, and
0.1 to 0.24 of the points change."""


class CutDetector:
    """Says of each frame whether it is another picture than the one before.

    Neither must go on, the picture nor its colours: light that comes and goes leaves the picture, a
    camera that turns fast the colours. A cut to the same view of another time is none.
    """

    def __init__(self) -> None:
        self._few = np.empty((0, 0, 3), np.uint8)
        self._points, self._length = np.empty((0, 0, 3), np.float32), 0.0

    def __call__(self, image: np.ndarray) -> bool:
        """image: (H, W, 3) uint8; the first frame is no cut."""
        step = max(1, min(image.shape[:2]) // ROWS)
        few = image[step // 2 :: step, step // 2 :: step].copy()
        points = few.astype(np.float32)
        points -= points.mean((0, 1))
        length = float(np.vdot(points, points)) ** 0.5
        known, before, both = self._few, self._points, length * self._length
        self._few, self._points, self._length = few, points, length
        if before.shape != points.shape:
            return before.size > 0
        if np.vdot(points, before) > ALIKE * both:
            return False
        return bool(np.abs(_colours(few) - _colours(known)).sum() / 2 > RECOLOURED)


def _colours(few: np.ndarray) -> np.ndarray:
    """(48,) shares of the points in each sixteenth of each colour's range."""
    sixteenths = (few >> 4) + np.array([0, 16, 32], np.uint8)
    return np.bincount(sixteenths.ravel(), minlength=48) / few.size
