"""A page for the browser, by viser: the meshes in space, the picture, and the controls."""

from __future__ import annotations

import logging
import math
import queue
import socket
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from pchmr_engines.errors import InputError, MissingDependency

from ..people import Person
from .draw import Overlay
from .result import readout
from .viewer import Action, View

HOST, PORT = "127.0.0.1", 8080
ICONS: dict[Action, Any] = {
    Action.TOPOLOGY: "arrows-exchange",
    Action.CALIBRATION: "eye",
    Action.RECORD: "player-record",
    Action.PAUSE: "player-pause",
    Action.QUIT: "power",
}


class Browser:
    """Serves the page at `url`. Whoever reaches it may control the session, so it listens on this
    machine alone unless another `host` is given.

    faces: (F, 3) of the body. port: the first one free from here on.

    Raises:
        MissingDependency: viser is not installed. InputError: the address cannot be listened on.
    """

    draws = True

    def __init__(self, faces: np.ndarray, host: str = HOST, port: int = PORT) -> None:
        try:
            import viser
        except ImportError as error:
            raise MissingDependency("viser", "viewer", "the browser's page") from error
        _check_address(host)
        # Browsers open connections that they do not use, which would be told as errors.
        logging.getLogger("websockets").addHandler(logging.NullHandler())
        with redirect_stdout(None):  # it would print a table
            self._server = viser.ViserServer(host, port, label="pchmr", verbose=False)
        self.url = f"http://{host}:{self._server.get_port()}"
        self._faces, self._overlay = faces, Overlay(faces)
        self._asked: queue.SimpleQueue[Action] = queue.SimpleQueue()
        self._meshes: list[viser.MeshHandle] = []
        self._server.gui.configure_theme(
            control_width="large",
            show_share_button=False,
            show_logo=False,
            brand_color=(70, 95, 130),
        )
        self._server.scene.set_up_direction("-y")  # the scene is the camera's frame: y is down
        self._server.scene.configure_environment_map("studio", environment_intensity=0.2)
        blank = np.zeros((2, 2, 3), np.uint8)
        self._picture = self._server.gui.add_image(blank, format="jpeg", jpeg_quality=80)
        self._text = self._server.gui.add_markdown("")
        self._buttons = {
            action: self._server.gui.add_button(action.name.lower(), icon=icon)
            for action, icon in ICONS.items()
        }
        for action, button in self._buttons.items():
            button.on_click(self._asks(action))

    def _asks(self, action: Action) -> Callable[[object], None]:
        return lambda event: self._asked.put(action)

    def poll(self) -> Iterable[Action]:
        while not self._asked.empty():
            yield self._asked.get()

    def show(self, view: View) -> None:
        picture = self._overlay.draw(view)
        with self._server.atomic():
            self._picture.image = np.ascontiguousarray(picture[..., ::-1])
            headline, *lines = readout(view.status, view.calibrated)
            self._text.content = "\n\n".join([f"#### {headline}", *lines])
            for action, label in view.labels.items():
                self._buttons[action].label = label
            self._place(view)

    def _place(self, view: View) -> None:
        """One mesh a person; those that are too many are hidden."""
        people = view.result.people
        color = view.colour[::-1]
        for mesh, person in zip(self._meshes, people, strict=False):
            mesh.vertices, mesh.color = view.mesh(person), color
        for person in people[len(self._meshes) :]:
            if not self._meshes:
                self._look_at(person)
            name = f"/people/{len(self._meshes)}"
            mesh = self._server.scene.add_mesh_simple(
                name, view.mesh(person), self._faces, color=color
            )
            self._meshes.append(mesh)
        for number, mesh in enumerate(self._meshes):
            mesh.visible = number < len(people)

    def _look_at(self, person: Person) -> None:
        """Begin before the first person, a little to the side and above, ground below them."""
        x, y, z = map(float, person.joints[0])
        floor = float(person.vertices[:, 1].max())
        self._server.scene.add_grid(
            "/ground",
            12.0,
            12.0,
            plane="xz",
            position=(x, floor, z),
            cell_color=(235, 235, 235),
            section_color=(215, 215, 215),
            section_size=2.0,
        )
        start = self._server.initial_camera
        # The controls cover the right: who is looked at stands left of the middle.
        start.position, start.look_at = (x + 2.2, y - 0.8, z - 3.6), (x + 0.7, y, z)
        start.fov = math.radians(45)

    def close(self) -> None:
        with redirect_stdout(None):
            self._server.stop()


def _check_address(host: str) -> None:
    """Raises: InputError when this machine has no such address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot serve a page on {host!r} ({error.strerror}): give an address of this machine"
        ) from error
