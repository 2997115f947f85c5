"""The picture of a view: meshes over the frame, seen from the side, and lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..overlay import BACKGROUND, CALIBRATED, GENERATOR, Renderer
from ..people import Person
from ..photos import Image
from .viewer import View

MOST_PX = (960, 720)
"""Width and height of the picture that is shown, at most; a smaller frame stays as it is."""
LEAST_PX = 640
"""Width of the lines below it."""
ALPHA = 0.8
"""Of the meshes: whoever is under them can be seen to be there."""
BESIDE = 2
"""People who are seen from the side, at most."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK, _WHITE, _GREY = (40, 36, 32), (255, 255, 255), (180, 176, 172)


class Overlay:
    """Draws views with the meshes of one body."""

    def __init__(self, faces: np.ndarray) -> None:
        self._renderer = Renderer(faces)

    def draw(self, view: View) -> Image:
        """(H, W, 3) uint8 BGR, a new one: the frame, no larger than `MOST_PX`, and its meshes; with
        an id above each of several people."""
        image, people = view.result.frame.image, view.result.people
        height, width = image.shape[:2]
        scale = min(1.0, MOST_PX[0] / width, MOST_PX[1] / height)
        if scale < 1.0:
            size = (round(width * scale), round(height * scale))
            picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        else:
            picture = image.copy()
        if not people:
            return picture
        camera = people[0].camera.scaled(scale)
        self._renderer.render(
            picture,
            np.stack([view.mesh(person) for person in people]),
            camera,
            colors=view.colour,
            alpha=ALPHA,
            in_place=True,
        )
        for person in people if len(people) > 1 else ():
            mesh = view.mesh(person)
            x, y = camera.project(mesh[[mesh[:, 1].argmin()]])[0]
            _write(picture, str(person.track_id), (round(x) - 6, max(16, round(y) - 8)), 0.6)
        return picture

    def side(self, view: View, height: int) -> Image:
        """(height, W, 3) uint8 BGR: people from their side, before and after calibration."""
        shown = view.result.people[:BESIDE]
        cells = max(1, len(shown))
        self._renderer.size = (height // 2, height // cells)
        strip = np.full((height, height // 2, 3), BACKGROUND, np.uint8)
        for number, person in enumerate(shown):
            cell = self._side(person)
            strip[number * cell.shape[0] :][: cell.shape[0]] = cell
            if len(shown) > 1:
                _write(strip, str(person.track_id), (10, number * cell.shape[0] + 22), 0.6, _DARK)
        for text, colour, x in (("before", GENERATOR, 10), ("after", CALIBRATED, 90)):
            cv2.rectangle(strip, (x, height - 20), (x + 10, height - 10), colour, -1)
            _write(strip, text, (x + 16, height - 10), 0.45, _DARK)
        return strip

    def _side(self, person: Person) -> Image:
        return self._renderer.render_view(
            np.stack([person.generator_vertices, person.vertices]),
            center=person.joints[0],
            colors=[GENERATOR, CALIBRATED],
        )


def with_lines(image: Image, lines: Sequence[str]) -> Image:
    """A new picture: `image` above lines of text, of which the first is the headline."""
    height, width = image.shape[:2]
    size = height + 22 * len(lines) + 22, max(width, LEAST_PX), 3
    taller = np.empty(size, np.uint8)
    taller[:height, :width], taller[:height, width:], taller[height:] = image, _DARK, _DARK
    for row, line in enumerate(lines):
        at = (12, height + 30 + 22 * row)
        _write(taller, line, at, 0.5 if row else 0.8, _GREY if row else _WHITE)
    return taller


def _write(
    image: Image,
    text: str,
    at: tuple[int, int],
    scale: float,
    colour: tuple[int, int, int] = _WHITE,
) -> None:
    """Text that can be read on a picture too: white has a dark edge."""
    if colour == _WHITE:
        cv2.putText(image, text, at, _FONT, scale, _DARK, 3, cv2.LINE_AA)
    cv2.putText(image, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)
