"""A window on the desktop, by SDL (package pygame-ce: its wheel carries all it needs)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable

import numpy as np

from pchmr_engines.errors import InputError, MissingDependency

from .draw import Overlay, with_lines
from .result import readout
from .viewer import Action, View

SIDE_EVERY = 4
"""Pictures of which one has the view from the side anew: it costs as much as the meshes."""


class Window:
    """Shows views with their read-out, and takes keys. Made and used by the main thread only, as
    desktops ask.

    faces: (F, 3) of the body.

    Raises:
        MissingDependency: pygame-ce is not installed. InputError: there is no display.
    """

    draws = True

    def __init__(self, faces: np.ndarray) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise MissingDependency("pygame-ce", "window", "a window") from error
        self._pygame, self._overlay = pygame, Overlay(faces)
        self._shown, self._side = 0, np.empty((0, 0, 3), np.uint8)
        self._open()
        pygame.display.set_caption("pchmr")
        self._keys = {pygame.key.key_code(action.value): action for action in Action}
        self._keys[pygame.K_ESCAPE] = Action.QUIT

    def _open(self) -> None:
        """Without a desktop SDL would draw into memory, unseen; it may when it is told to."""
        pygame, reason = self._pygame, "no desktop"
        try:
            pygame.display.init()
            if pygame.display.get_driver() != "offscreen" or "SDL_VIDEODRIVER" in os.environ:
                return
            pygame.display.quit()
        except pygame.error as error:
            reason = str(error)
        raise InputError(
            f"no window can be opened here ({reason}): use --headless and look with a browser"
        )

    def poll(self) -> Iterable[Action]:
        for event in self._pygame.event.get():
            if event.type == self._pygame.QUIT:
                yield Action.QUIT
            elif event.type == self._pygame.KEYDOWN and event.key in self._keys:
                yield self._keys[event.key]

    def show(self, view: View) -> None:
        keys = "    ".join(f"{action.value}: {label}" for action, label in view.labels.items())
        picture = self._overlay.draw(view)
        if self._shown % SIDE_EVERY == 0 or len(self._side) != len(picture):
            self._side = self._overlay.side(view, len(picture))
        self._shown += 1
        picture = np.hstack([picture, self._side])
        picture = with_lines(picture, [*readout(view.status, view.calibrated), keys])
        size = (picture.shape[1], picture.shape[0])
        screen = self._pygame.display.get_surface()
        if screen is None or screen.get_size() != size:
            flags = self._pygame.RESIZABLE | self._pygame.SCALED
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "no fast renderer")
                screen = self._pygame.display.set_mode(size, flags)
        screen.blit(self._pygame.image.frombuffer(picture.data, size, "BGR"), (0, 0))
        self._pygame.display.flip()

    def close(self) -> None:
        self._pygame.display.quit()
