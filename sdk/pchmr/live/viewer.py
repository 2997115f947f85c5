"""What every viewer does, and the one that shows only figures."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..overlay import CALIBRATED, GENERATOR, Color
from ..people import Person
from .result import Result, Status, readout


class Action(enum.Enum):
    """What the user may ask for; each changes to the other state and back. The value is its key."""

    TOPOLOGY = "t"
    CALIBRATION = "c"
    RECORD = "r"
    PAUSE = "space"
    QUIT = "q"


@dataclass(frozen=True)
class View:
    """What is to be seen. calibrated: the mesh after calibration, not the generator's."""

    result: Result
    status: Status
    calibrated: bool

    @property
    def colour(self) -> Color:
        """Of the meshes, BGR."""
        return CALIBRATED if self.calibrated else GENERATOR

    def mesh(self, person: Person) -> np.ndarray:
        """(V, 3) metres, camera frame."""
        return person.vertices if self.calibrated else person.generator_vertices

    @property
    def labels(self) -> dict[Action, str]:
        """What each action would do now."""
        status = self.status
        other = "parallel" if status.topology == "serial" else "serial"
        return {
            Action.TOPOLOGY: f"loading {status.loading}"
            if status.loading
            else f"change to {other}",
            Action.CALIBRATION: f"show {'before' if self.calibrated else 'after'} calibration",
            Action.RECORD: "end recording" if status.recording else "record",
            Action.PAUSE: "go on" if status.paused else "pause",
            Action.QUIT: "quit",
        }


class Viewer(Protocol):
    """Used by one thread, which made it. draws: whether there is a picture."""

    draws: bool

    def poll(self) -> Iterable[Action]:
        """What the user asked for since the last time."""

    def show(self, view: View) -> None:
        """Show it; the same one may come again, with another status."""

    def close(self) -> None:
        """Take it off the screen."""


class Figures:
    """The read-out in the terminal, and no picture. Where there is no terminal, nothing."""

    draws = False

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status as Line

        self._line = Line("waiting for the first frame", console=Console(stderr=True))
        self._line.start()

    def poll(self) -> Iterable[Action]:
        return ()

    def show(self, view: View) -> None:
        headline, _, state = readout(view.status, view.calibrated)
        _, between, rest = state.partition("  |  ")  # without the topology: one line of 80
        self._line.update(f"{headline}{between}{rest}")

    def close(self) -> None:
        self._line.stop()
