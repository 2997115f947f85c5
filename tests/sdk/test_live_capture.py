"""Live input: a file at its own rate, a camera that is lost and comes back; all by a fake clock."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr.live.capture import DELAYS_S, PacedReader, ReconnectingReader
from pchmr.readers import Frame, Reader
from pchmr_engines.errors import InputError

MS = 1_000_000
PICTURE: NDArray[np.uint8] = np.zeros((4, 6, 3), np.uint8)


class Clock:
    """Time that passes only when somebody waits or works. stop_after: waits before one is cut."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.ns, self.waits = 5_000 * MS, []
        self._left = stop_after

    def now(self) -> int:
        return self.ns

    def wait(self, seconds: float) -> bool:
        self._left -= 1
        if self._left < 0:
            return True
        self.waits.append(seconds)
        self.ns += round(seconds * 1e9)
        return False


class Film(Reader):
    """Frames at `times_ms`, each of which takes `decoding_ms` of the clock."""

    kind, size = "video", (6, 4)

    def __init__(
        self, clock: Clock, times_ms: list[int], decoding_ms: list[int], fps: float = 10
    ) -> None:
        super().__init__()
        self.fps, self.count = fps, len(times_ms)
        self._clock, self._frames = clock, list(zip(times_ms, decoding_ms, strict=True))
        self.rewound = 0

    def __iter__(self) -> Iterator[Frame]:
        for index, (t_ms, decoding_ms) in enumerate(self._frames):
            self._clock.ns += decoding_ms * MS
            yield Frame(index, t_ms * MS, PICTURE)

    def rewind(self) -> None:
        self.rewound += 1


def play(reader: Reader, clock: Clock, limit: int = 100) -> list[tuple[Frame, float]]:
    """The frames, and when each came, in ms since the beginning."""
    begin = clock.ns
    came = []
    for frame, _ in zip(reader, range(limit), strict=False):
        came.append((frame, (clock.ns - begin) / MS))
    return came


def test_a_file_plays_at_its_own_rate() -> None:
    """Each frame is decoded while the one before is shown, and given when it is due."""
    clock = Clock()
    film = Film(clock, [0, 100, 200, 300], [5, 5, 30, 5])
    came = play(PacedReader(film, now_ns=clock.now, wait=clock.wait), clock)
    assert [ms for _, ms in came] == [5, 100, 200, 300]
    begin = 5_000 * MS
    assert [frame.captured_ns - begin for frame, _ in came] == [0, 100 * MS, 200 * MS, 300 * MS]
    assert [frame.t_ns for frame, _ in came] == [0, 100 * MS, 200 * MS, 300 * MS]


def test_a_late_frame_costs_the_next_ones_nothing() -> None:
    """Decoding that takes longer than a frame counts as latency."""
    clock = Clock()
    film = Film(clock, [0, 100, 200, 300], [0, 250, 10, 0])
    came = play(PacedReader(film, now_ns=clock.now, wait=clock.wait), clock)
    assert [ms for _, ms in came] == [0, 250, 260, 300]
    assert [(frame.captured_ns - 5_000 * MS) / MS for frame, _ in came] == [0, 100, 200, 300]


def test_frames_that_follow_each_other_unevenly() -> None:
    clock = Clock()
    film = Film(clock, [0, 250, 300], [0, 0, 0])
    came = play(PacedReader(film, now_ns=clock.now, wait=clock.wait), clock)
    assert [ms for _, ms in came] == [0, 250, 300]


def test_a_machine_that_is_too_slow_sets_the_clock_back() -> None:
    """Latency would grow without end otherwise; that it was is noted."""
    clock = Clock()
    film = Film(clock, [0, 100, 200], [0, 1500, 0])
    reader = PacedReader(film, now_ns=clock.now, wait=clock.wait)
    came = play(reader, clock)
    assert [ms for _, ms in came] == [0, 1500, 1600]
    assert [(frame.captured_ns - 5_000 * MS) / MS for frame, _ in came] == [0, 1500, 1600]
    assert reader.warnings == ["a second behind its own rate; its clock was set back"]


def test_a_loop_goes_on_where_the_file_ended() -> None:
    clock = Clock()
    film = Film(clock, [0, 100], [0, 0])
    reader = PacedReader(film, loop=True, now_ns=clock.now, wait=clock.wait)
    came = play(reader, clock, limit=5)
    assert [frame.index for frame, _ in came] == [0, 1, 2, 3, 4]
    assert [frame.t_ns // MS for frame, _ in came] == [0, 100, 200, 300, 400]
    assert [ms for _, ms in came] == [0, 100, 200, 300, 400]
    assert [frame.cut for frame, _ in came] == [False, False, True, False, True]
    assert (reader.count, film.rewound) == (None, 2)


def test_an_endless_file_can_be_stopped() -> None:
    clock = Clock()
    reader = PacedReader(Film(clock, [0], [0]), True, now_ns=clock.now, wait=clock.wait)
    seen = []
    for frame in reader:
        seen.append(frame.index)
        if frame.index == 7:
            reader.stop()
    assert seen == list(range(8))


class Camera(Reader):
    """Gives `count` frames, 40 ms apart, and is then unplugged."""

    kind, live, size = "camera", True, (6, 4)

    def __init__(self, clock: Clock, count: int) -> None:
        super().__init__()
        self._clock, self._frames, self.closed = clock, count, False

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._frames):
            self._clock.ns += 40 * MS
            yield Frame(index, index * 40 * MS, PICTURE, captured_ns=self._clock.ns)
        self._notes[f"camera stopped after {self._frames} frames"] += 1

    def close(self) -> None:
        self.closed = True


def test_a_camera_that_is_unplugged_and_comes_back() -> None:
    clock = Clock()
    first, second = Camera(clock, 3), Camera(clock, 2)
    answers = iter([InputError("away"), InputError("away"), second])
    troubles = []

    def open_again() -> Reader:
        troubles.append(reader.trouble)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reader = ReconnectingReader(first, open_again, 2.0, clock.now, clock.wait)
    frames, begin = [], clock.ns
    for frame in reader:
        frames.append(frame)
        if len(frames) == 4:
            assert (first.closed, reader.trouble) == (True, "")
        if len(frames) == 5:
            reader.stop()
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.cut for frame in frames] == [False, False, False, True, False]
    assert clock.waits == list(DELAYS_S[:3])
    lost_ms = 3 * 40 + sum(DELAYS_S[:3]) * 1000
    assert frames[3].t_ns == lost_ms * MS  # time goes on while nothing is seen
    assert frames[3].captured_ns - begin == (lost_ms + 40) * MS
    assert troubles[0].startswith("camera lost, tried again after")
    assert reader.warnings == ["camera stopped after 3 frames", "camera was lost and came back"]
    assert not reader.incomplete


def test_a_camera_that_does_not_come_back() -> None:
    clock = Clock()

    def open_again() -> Reader:
        raise InputError("away")

    reader = ReconnectingReader(Camera(clock, 3), open_again, 10.0, clock.now, clock.wait)
    assert len(list(reader)) == 3
    assert clock.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    assert reader.incomplete == "stopped and did not come back within 10 s"
    assert reader.trouble == ""


def test_a_lost_camera_is_not_looked_for_when_told_so() -> None:
    clock = Clock()
    reader = ReconnectingReader(Camera(clock, 2), lambda: pytest.fail("opened"), 0.0, clock.now)
    assert len(list(reader)) == 2
    assert reader.incomplete == "stopped and did not come back within 0 s"


def test_the_time_that_attempts_take_counts() -> None:
    """A stream that does not answer costs its own timeout each time."""
    clock = Clock()

    def open_again() -> Reader:
        clock.ns += 10_000 * MS
        raise InputError("no answer")

    reader = ReconnectingReader(Camera(clock, 1), open_again, 30.0, clock.now, clock.wait)
    assert len(list(reader)) == 1
    assert clock.waits == [0.25, 0.5, 1.0]


def test_what_comes_back_after_the_end_was_asked_for_is_not_read() -> None:
    clock = Clock()
    second = Camera(clock, 5)

    def open_again() -> Reader:
        reader.stop()
        return second

    reader = ReconnectingReader(Camera(clock, 3), open_again, 30.0, clock.now, clock.wait)
    assert len(list(reader)) == 3
    reader.close()
    assert second.closed


def test_a_search_can_be_stopped() -> None:
    clock = Clock(stop_after=2)

    def open_again() -> Reader:
        raise InputError("away")

    reader = ReconnectingReader(Camera(clock, 1), open_again, 1e9, clock.now, clock.wait)
    assert len(list(reader)) == 1
    assert len(clock.waits) == 2
