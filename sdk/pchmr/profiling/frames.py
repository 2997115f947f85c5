"""Frames to profile on: as a camera gives them, or as fast as they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter_ns

from pchmr_engines.errors import InputError

from ..live.capture import open_live
from ..readers import Frame
from ..sources import Source, open_reader


class Timed:
    """Frames one after another, each with the time it was captured and received.

    live: a camera, a stream, or a file at its own rate, decoded in a thread of its own; the newest
    frame wins and `dropped` counts the others. Otherwise a file is decoded in the caller's thread
    when it asks, and begins again at its end.
    """

    def __init__(self, spec: str, live: bool) -> None:
        self.live, self._spec = live, spec
        self._source: Source | None = open_live(spec, loop=True) if live else None

    @property
    def dropped(self) -> int:
        return self._source.dropped if self._source else 0

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._source) if self._source else self._decoded()

    def _decoded(self) -> Iterator[Frame]:
        """Every frame, again and again, timed from the moment it is asked for."""
        while True:
            reader, count = open_reader(self._spec), 0
            try:
                frames = iter(reader)
                while True:
                    begin = perf_counter_ns()
                    frame = next(frames, None)
                    if frame is None:
                        break
                    end, cut = perf_counter_ns(), count == 0
                    count += 1
                    yield replace(frame, captured_ns=begin, received_ns=end, cut=cut)
            finally:
                reader.close()
            if not count:
                raise InputError(f"{self._spec} holds no frame that can be decoded")

    def close(self) -> None:
        if self._source:
            self._source.close()


@contextmanager
def timed_frames(spec: str, live: bool) -> Iterator[Timed]:
    """Raises: InputError where nothing can be read there, or a photo is asked to be live."""
    frames = Timed(spec, live)
    try:
        yield frames
    finally:
        frames.close()
