"""Live input: a camera or stream that comes back when it is lost, a file at its own rate."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from pchmr_engines.errors import InputError

from ..readers import Frame, Reader
from ..sources import Source, open_reader

Open = Callable[[], Reader]
Now = Callable[[], int]
Wait = Callable[[float], bool]
"""Sleeps so many seconds; True, and at once, where the input is stopped."""

QUEUE = 32
"""Frames that wait at most where every one is wanted."""
BEHIND_NS = 1_000_000_000
"""A file whose decoding is later than this is set back: the clock waits for it."""
DELAYS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Between attempts to open what was lost; the last is repeated."""


def open_live(
    spec: str | int | os.PathLike[str],
    *,
    every_frame: bool = False,
    loop: bool = False,
    reconnect_s: float = 30.0,
) -> Source:
    """Open a camera, a stream, or a file that plays at its own rate, as live input.

    The newest frame wins and `Source.dropped` counts the others, unless `every_frame` is asked
    for: then up to 32 wait, and after that the input does. Capture begins when the first frame is
    asked for.

    spec: as in `open_source`. loop: a file begins again at its end. reconnect_s: how long a lost
    camera or stream is looked for; 0 to end at once.

    Raises:
        InputError: nothing can be read there, or it is a photo.
    """

    def open_again() -> Reader:
        return open_reader(spec)

    first = open_again()
    if first.kind in ("photo", "folder"):
        raise InputError(
            f"{spec} is a {first.kind}; expected a camera, stream or video: pchmr run takes it"
        )
    reader: Reader = (
        ReconnectingReader(first, open_again, reconnect_s)
        if first.live
        else PacedReader(first, loop)
    )
    return Source(reader, latest=not every_frame, ahead=QUEUE if every_frame else 1, start=False)


class _Wrapper(Reader):
    """A reader around another."""

    def __init__(self, reader: Reader, now_ns: Now, wait: Wait | None) -> None:
        super().__init__()
        self.kind, self.live, self.fps = reader.kind, reader.live, reader.fps
        self.size, self.count = reader.size, reader.count
        self._reader, self._now = reader, now_ns
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait

    @property
    def warnings(self) -> list[str]:
        return super().warnings + self._reader.warnings

    def stop(self) -> None:
        self._stopped.set()
        self._reader.stop()

    def close(self) -> None:
        self._reader.close()


class PacedReader(_Wrapper):
    """A file at its own rate: each frame is decoded while the one before is shown, as by a player.

    captured_ns of a frame is when it was due: decoding counts as latency where it is late. Where
    the machine falls back by more than a second, the clock is set back and the time noted.
    """

    def __init__(
        self,
        reader: Reader,
        loop: bool = False,
        now_ns: Now = time.perf_counter_ns,
        wait: Wait | None = None,
    ) -> None:
        """loop: begin again at the end."""
        super().__init__(reader, now_ns, wait)
        self._loop = loop
        if loop:
            self.count = None

    def __iter__(self) -> Iterator[Frame]:
        interval_ns = round(1e9 / self.fps)
        start, index, offset, due = self._now(), 0, 0, 0  # due, offset: since start
        while True:
            begin = index
            frames = iter(self._reader)
            while not self._stopped.is_set():
                frame = next(frames, None)
                if frame is None:
                    break
                due = offset + frame.t_ns
                self._sleep_until(start + due)
                late = self._now() - start - due
                if late > BEHIND_NS:
                    start += late
                    self._notes["a second behind its own rate; its clock was set back"] += 1
                yield replace(
                    frame,
                    index=index,
                    t_ns=due,
                    captured_ns=start + due,
                    cut=index == begin > 0,
                )
                index, due = index + 1, due + interval_ns
            self.incomplete = self._reader.incomplete
            if not self._loop or self._stopped.is_set() or index == begin:
                return
            self._reader.rewind()
            offset = due

    def _sleep_until(self, t_ns: int) -> None:
        if (left := t_ns - self._now()) > 0:
            self._wait(left / 1e9)


class ReconnectingReader(_Wrapper):
    """A camera or stream; where it ends it is opened again, at growing intervals."""

    def __init__(
        self,
        reader: Reader,
        open_again: Open,
        for_s: float,
        now_ns: Now = time.perf_counter_ns,
        wait: Wait | None = None,
    ) -> None:
        """for_s: how long it is tried before the input is given up."""
        super().__init__(reader, now_ns, wait)
        self._open_again, self._for_s = open_again, for_s

    def __iter__(self) -> Iterator[Frame]:
        index, offset, following, begin = 0, 0, 0, self._now()
        while True:
            cut = index > 0
            for frame in self._reader:
                t_ns = offset + frame.t_ns
                yield replace(frame, index=index, t_ns=t_ns, cut=cut)
                index, cut, following = index + 1, False, t_ns + round(1e9 / self.fps)
                if self._stopped.is_set():
                    return
            self._notes.update(self._reader._notes)
            self._reader._notes.clear()
            if self._stopped.is_set() or not self._reopen():
                return
            offset = max(following, self._now() - begin)

    def _reopen(self) -> bool:
        """Whether it is there again."""
        self._reader.close()
        delays, begin = iter(DELAYS_S), self._now()
        while (waited_s := (self._now() - begin) / 1e9) < self._for_s:
            self.trouble = f"{self.kind} lost, tried again after {waited_s:.0f} s"
            if self._wait(next(delays, DELAYS_S[-1])):
                return False
            try:
                reader = self._open_again()
            except InputError:
                continue
            self._notes[f"{self.kind} was lost and came back"] += 1
            self._reader, self.trouble = reader, ""
            return not self._stopped.is_set()  # `stop` may have met the reader before it only
        self.trouble = ""
        if not self._stopped.is_set():
            self.incomplete = f"stopped and did not come back within {self._for_s:.0f} s"
        return False
