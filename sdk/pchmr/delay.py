"""Frames kept until their people come: a pipeline that looks ahead gives them later.

delay = Delay(pipeline)
for frame in source:
    for done, people in delay(frame, frame.image, frame.t_ns):
        ...                             # `people` are in `done`, an earlier frame
for done, people in delay.flush():
    ...
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import cv2
import numpy as np

from .people import Person
from .pipeline import Pipeline
from .readers import Frame

T = TypeVar("T")

FEW_FRAMES = 16
"""Kept as they are; more are kept as JPEG: 121 frames of full HD take 0.75 GB."""
JPEG_QUALITY = 95


class Delay(Generic[T]):
    """Gives each thing that came with a frame, and the frame's people, once these are known."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._kept: deque[tuple[int, T]] = deque()

    def __call__(
        self, thing: T, image: np.ndarray, t_ns: int | None = None
    ) -> list[tuple[T, list[Person]]]:
        """The next frame; those that are done by now, oldest first: mostly one, itself at last."""
        number = self._pipeline.frames
        people = self._pipeline(image, t_ns)
        self._kept.append((number, thing))
        return self._done(people)

    def flush(self) -> list[tuple[T, list[Person]]]:
        """All that are still kept, with what the pipeline still owes."""
        return self._done([person for frame in self._pipeline.flush() for person in frame])

    def _done(self, people: list[Person]) -> list[tuple[T, list[Person]]]:
        count = len(self._kept) - self._pipeline.owed
        done = [self._kept.popleft() for _ in range(count)]
        return [(thing, [x for x in people if x.frame == number]) for number, thing in done]


@dataclass(frozen=True)
class KeptFrame:
    """A frame in little memory. encoded: its image as JPEG, where it has been taken out."""

    frame: Frame
    encoded: np.ndarray | None = None

    @classmethod
    def keep(cls, frame: Frame, look_ahead: int) -> KeptFrame:
        """For so many frames; encoded where that is long."""
        if look_ahead <= FEW_FRAMES:
            return cls(frame)
        _, encoded = cv2.imencode(".jpg", frame.image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        return cls(replace(frame, image=np.empty((0, 0, 3), np.uint8)), encoded)

    def restore(self) -> Frame:
        """The frame with its image, as far as JPEG keeps it."""
        if self.encoded is None:
            return self.frame
        image = cv2.imdecode(self.encoded, cv2.IMREAD_COLOR)
        return replace(self.frame, image=np.asarray(image, np.uint8))
