"""Upright boxes of people: from keypoints, from turned regions of interest, square or to shape."""

import numpy as np

from pchmr_engines.errors import InputError

from ..crops import Box, roi_box
from .crops import Floats, center_and_size

__all__ = ["box_from_center", "box_from_keypoints", "box_to_aspect", "roi_box"]


def box_from_center(center: tuple[float, float], width: float, height: float) -> Box:
    """(x0, y0, x1, y1) of a size around (x, y)."""
    x, y = center
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def box_from_keypoints(keypoints: Floats, threshold: float = 0.2) -> Box:
    """The tight box (x0, y0, x1, y1) of the keypoints (J, 3: x, y px, score) above the threshold.

    Raises: InputError when there are none.
    """
    seen = keypoints[keypoints[:, 2] > threshold, :2]
    if not len(seen):
        raise InputError(f"no keypoint scores above {threshold}; use the person's box instead")
    (x0, y0), (x1, y1) = seen.min(0), seen.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def box_to_aspect(box: Box, aspect: float, margin: float = 1.0) -> Box:
    """The box grown about its middle to width / height = aspect, then by the factor `margin`."""
    center, (width, height) = center_and_size(box)
    width = max(width, height * aspect)
    return box_from_center(center, width * margin, width * margin / aspect)


def best_person(people: Floats) -> Floats:
    """Of keypoints (P, J, 3) those with the highest mean score, (J, 3)."""
    return people[int(np.argmax(people[..., 2].mean(-1)))]
