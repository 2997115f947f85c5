"""Where a video goes on with another picture: a cut, after which nobody's movement goes on."""

from __future__ import annotations

import numpy as np

from pchmr_kernels.cuts import PointComparison

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
        self._is_another: PointComparison | None = None

    def __call__(self, image: np.ndarray) -> bool:
        """image: (H, W, 3) uint8; the first frame is no cut."""
        is_another = self._is_another
        if is_another and is_another.shape == image.shape:
            return is_another(image)
        return self._change_size(image)

    def _change_size(self, image: np.ndarray) -> bool:
        """Another size is another picture, unless as many points of it are compared."""
        known, step = self._is_another, max(1, min(image.shape[:2]) // ROWS)
        self._is_another = PointComparison(image.shape, step, ALIKE, RECOLOURED)
        if known and known.points.shape == self._is_another.points.shape:
            self._is_another.points[:] = known.points
            return self._is_another(image)
        self._is_another(image)
        return known is not None
