"""A made-up camera, pipeline and viewer for tests of live sessions.

Nothing here takes time. Where one thread must be slow, it waits for an event that another sets; if
anything blocked, that would be for ever.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from people_made_up import FACES, make_person

from pchmr.camera import Camera
from pchmr.live import Action, LiveSession, View
from pchmr.people import Person
from pchmr.readers import Frame, Reader
from pchmr.sources import Source

SIZE = (64, 48)  # width, height
PATIENCE_S = 60.0
MS = 1_000_000
Pictures = Iterator[Frame | Exception]


def frames(count: int, **fields: object) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(index, index * 40 * MS, np.full((*SIZE[::-1], 3), 90, np.uint8), **fields)


class FakeCamera(Reader):
    """Gives what a generator gives, and raises the errors in it."""

    kind, live, size, fps = "camera", True, SIZE, 25.0

    def __init__(self, pictures: Pictures, incomplete: str = "") -> None:
        super().__init__()
        self._pictures, self.incomplete = pictures, incomplete

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._pictures:
            if isinstance(frame, Exception):
                raise frame
            yield frame


class FakePipeline:
    """One made-up person a frame, `look_ahead` frames late; `meet` is called with each frame."""

    body = SimpleNamespace(faces=FACES)
    bundle = None

    def __init__(
        self,
        topology: str = "parallel",
        meet: Callable[[int], None] = lambda number: None,
        look_ahead: int = 0,
    ) -> None:
        self.topology, self.look_ahead, self._meet = topology, look_ahead, meet
        self.resets, self.seen, self.taken_over = 0, [], []
        self._waiting: list[tuple[int, int]] = []

    @property
    def frames(self) -> int:
        return len(self.seen)

    @property
    def owed(self) -> int:
        return len(self._waiting)

    def __call__(self, image: NDArray[np.uint8], t_ns: int) -> list[Person]:
        self._meet(len(self.seen))
        self._waiting.append((self.frames, t_ns))
        self.seen.append(t_ns)
        if len(self._waiting) <= self.look_ahead:
            return []
        return [self._person(*self._waiting.pop(0))]

    def flush(self) -> list[list[Person]]:
        waiting, self._waiting = self._waiting, []
        return [[self._person(*owed)] for owed in waiting]

    def reset(self) -> None:
        self.resets += 1

    def take_over(self, other: "FakePipeline") -> None:
        assert not other.owed
        self.taken_over.append(other.topology)

    def _person(self, frame: int, t_ns: int) -> Person:
        person = make_person(t_ns % 97, camera=Camera.from_size(*SIZE), frame=frame, t_ns=t_ns)
        return replace(person, vertices=person.vertices * np.float32(0.3) + (0, 0, 3))


class FakeTopologies:
    """Pipelines that are there at once."""

    names = ("serial", "parallel")
    loading = trouble = ""

    def __init__(self, *pipelines: FakePipeline) -> None:
        self._pipelines = {pipeline.topology: pipeline for pipeline in pipelines}
        self.current = pipelines[0]

    def ask(self, name: str) -> None:
        self.current = self._pipelines[name]


class FakeViewer:
    """Presses `actions[n]` before view n, and calls `look` with each view."""

    draws = True

    def __init__(
        self,
        actions: dict[int, list[Action]] | None = None,
        look: Callable[[View], None] = lambda view: None,
    ) -> None:
        self._actions, self._look = actions or {}, look
        self.views: list[View] = []

    def poll(self) -> Iterable[Action]:
        return self._actions.pop(len(self.views), [])

    def show(self, view: View) -> None:
        self._look(view)
        self.views.append(view)

    def close(self) -> None:
        pass


def make_session(
    pictures: Pictures,
    *pipelines: FakePipeline,
    every_frame: bool = True,
    incomplete: str = "",
    **options: object,
) -> LiveSession:
    reader = FakeCamera(pictures, incomplete)
    source = Source(reader, latest=not every_frame, ahead=32 if every_frame else 1, start=False)
    return LiveSession(source, FakeTopologies(*(pipelines or (FakePipeline(),))), **options)


def wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S), "a thread waits for another for ever"


def endless() -> Pictures:
    """Frames for as long as the session runs, but never faster than somebody looks."""
    index = 0
    while True:
        for frame in frames(1):
            yield replace(frame, index=index, t_ns=index * 40 * MS)
        index += 1
        threading.Event().wait(0.002)
