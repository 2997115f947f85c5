"""The picture of a view: meshes over the frame, and lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..overlay import Renderer
from ..photos import Image
from .viewer import View

WIDTH_PX = 960
"""Of the picture that is shown; a narrower frame stays as it is."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_PX = 22


class Overlay:
    """Draws views with the meshes of one body."""

    def __init__(self, faces: np.ndarray, width: int = WIDTH_PX) -> None:
        self._renderer, self._width = Renderer(faces), width

    def draw(self, view: View) -> Image:
        """(H, W, 3) uint8 BGR, a new one: the frame, at most `width` wide, and its meshes."""
        image, people = view.result.frame.image, view.result.people
        scale = min(1.0, self._width / image.shape[1])
        if scale < 1.0:
            size = (self._width, round(image.shape[0] * scale))
            picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        else:
            picture = image.copy()
        if not people:
            return picture
        return self._renderer.render(
            picture,
            np.stack([view.mesh(person) for person in people]),
            people[0].camera.scaled(scale),
            colors=view.colour,
            in_place=True,
        )


def with_lines(image: Image, lines: Sequence[str]) -> Image:
    """A new picture: `image` above lines of text."""
    height, width = image.shape[:2]
    taller = np.zeros((height + _LINE_PX * len(lines) + 10, width, 3), np.uint8)
    taller[:height] = image
    for row, line in enumerate(lines, start=1):
        at = (10, height + row * _LINE_PX - 2)
        cv2.putText(taller, line, at, _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return taller
