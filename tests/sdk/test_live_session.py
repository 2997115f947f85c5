"""A live session with a made-up camera and pipeline: nobody waits for a display, all is kept.

No test measures time. Where one thread must be slow, it waits for an event that another sets; if
anything blocked, that would be for ever.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import count_frames, read_npz
from numpy.typing import NDArray
from people_made_up import FACES, make_person

from pchmr.camera import Camera
from pchmr.live import (
    Action,
    FrameTiming,
    LiveSession,
    TimingLog,
    View,
    names_of_recordings,
    readout,
)
from pchmr.live.handover import Newest
from pchmr.live.recorder import Recorder
from pchmr.people import Person
from pchmr.readers import Frame, Reader
from pchmr.runner import Outputs
from pchmr.sources import Source
from pchmr_engines.errors import InputError

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
        self.resets, self.seen = 0, []
        self._waiting: list[int] = []

    @property
    def owed(self) -> int:
        return len(self._waiting)

    def __call__(self, image: NDArray[np.uint8], t_ns: int) -> list[Person]:
        self._meet(len(self.seen))
        self.seen.append(t_ns)
        self._waiting.append(t_ns)
        if len(self._waiting) <= self.look_ahead:
            return []
        return [self._person(self._waiting.pop(0))]

    def flush(self) -> list[list[Person]]:
        waiting, self._waiting = self._waiting, []
        return [[self._person(t_ns)] for t_ns in waiting]

    def reset(self) -> None:
        self.resets += 1

    def _person(self, t_ns: int) -> Person:
        person = make_person(t_ns % 97, camera=Camera.from_size(*SIZE), t_ns=t_ns)
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


# Nobody waits for anybody


def test_every_frame_in_order() -> None:
    pipeline = FakePipeline()
    with make_session(frames(100), pipeline) as session:
        session.run(FakeViewer())
    assert pipeline.seen == [index * 40 * MS for index in range(100)]
    assert (session.log.frames, session.source.dropped) == (100, 0)


def test_nothing_is_dropped_while_the_pipeline_keeps_up() -> None:
    """The camera gives a frame when the one before is done."""
    done = threading.Semaphore(1)

    def pictures() -> Pictures:
        for frame in frames(20):
            assert done.acquire(timeout=PATIENCE_S)
            yield frame

    pipeline = FakePipeline()
    session = make_session(pictures(), pipeline, every_frame=False)
    session.results.put = lambda result: done.release()
    with session:
        session.run(FakeViewer())
    assert (session.log.frames, session.source.dropped) == (20, 0)


def test_a_slow_pipeline_gets_the_newest_frame() -> None:
    """While it is busy with the first of 8, the camera goes on: 6 are dropped, and counted."""
    busy, gone = threading.Event(), threading.Event()

    def pictures() -> Pictures:
        for frame in frames(8):
            if frame.index == 1:
                wait_for(busy)
            yield frame
        gone.set()

    def meet(number: int) -> None:
        busy.set()
        wait_for(gone)

    pipeline = FakePipeline(meet=meet)
    with make_session(pictures(), pipeline, every_frame=False) as session:
        viewer = FakeViewer()
        session.run(viewer)
    assert [t_ns // (40 * MS) for t_ns in pipeline.seen] == [0, 7]
    assert session.source.dropped == 6
    assert viewer.views[-1].status.dropped == 6


def test_a_slow_display_slows_nothing() -> None:
    """The first view is not done before the last frame is."""
    session = make_session(frames(50))
    viewer = FakeViewer(look=lambda view: session._thread.join(PATIENCE_S))
    with session:
        session.run(viewer)
    assert session.log.frames == 50
    assert len(viewer.views) == 2
    assert viewer.views[-1].result.frame.index == 49
    assert session.results.replaced == 48
    assert session.log.shown == 2


def test_the_display_goes_on_while_the_pipeline_is_busy() -> None:
    looked = threading.Event()

    def look(view: View) -> None:
        if len(viewer.views) == 5:
            looked.set()

    def meet(number: int) -> None:
        if number == 1:
            wait_for(looked)

    viewer = FakeViewer(look=look)
    with make_session(frames(2), FakePipeline(meet=meet)) as session:
        session.run(viewer)
    assert [view.result.frame.index for view in viewer.views[:6]] == [0] * 6
    assert viewer.views[-1].result.frame.index == 1
    assert session.log.shown == 2  # a picture that is shown again is no second one


def test_a_limit_of_frames() -> None:
    with make_session(frames(50), frames=7) as session:
        session.run(FakeViewer())
    assert session.log.frames == 7


# Controls


def endless() -> Pictures:
    """Frames for as long as the session runs, but never faster than somebody looks."""
    index = 0
    while True:
        for frame in frames(1):
            yield replace(frame, index=index, t_ns=index * 40 * MS)
        index += 1
        threading.Event().wait(0.002)


def test_quit() -> None:
    viewer = FakeViewer({3: [Action.QUIT]})
    with make_session(endless(), every_frame=False) as session:
        session.run(viewer)
        assert not session.ended
    assert len(viewer.views) == 3
    assert session.ended


def test_before_and_after_calibration() -> None:
    viewer = FakeViewer({2: [Action.CALIBRATION], 4: [Action.CALIBRATION], 6: [Action.QUIT]})
    with make_session(endless()) as session:
        session.run(viewer)
    assert [view.calibrated for view in viewer.views] == [True, True, False, False, True, True]


def test_the_topology_changes_while_frames_come() -> None:
    parallel, serial = FakePipeline("parallel"), FakePipeline("serial")

    def look(view: View) -> None:
        if view.result.topology == "serial":
            changed.set()

    changed = threading.Event()
    viewer = FakeViewer({2: [Action.TOPOLOGY]}, look)
    session = make_session(endless(), parallel, serial)
    session.topologies.current = parallel
    viewer.poll = lambda poll=viewer.poll: [Action.QUIT] if changed.is_set() else poll()
    with session:
        session.run(viewer)
    assert len(parallel.seen) >= 2
    assert parallel.seen[-1] < serial.seen[0]
    assert serial.seen[0] - parallel.seen[-1] == 40 * MS  # no frame was lost
    assert parallel.resets == 1  # it will begin anew when it is asked for again


def test_pause() -> None:
    """Frames go by unseen, and are not called dropped; who is there afterwards is found anew."""
    given: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
    pipeline = FakePipeline()
    session = make_session(iter(given.get, None), pipeline)
    many = list(frames(6))
    results = session.results
    session.start()
    with session:
        for frame in many[:2]:
            given.put(frame)
            assert results.take(PATIENCE_S).frame.index == frame.index
        session.paused = True
        for frame in many[2:4]:
            given.put(frame)
        while session.source._waiting or not given.empty():
            pass
        assert results.take(0.05) is None
        session.paused = False
        resets = pipeline.resets
        given.put(many[4])
        assert results.take(PATIENCE_S).frame.index in (3, 4)
        assert pipeline.resets == resets + 1
        assert session.source.dropped == 0
        given.put(None)


def test_a_cut_is_a_new_beginning() -> None:
    pictures = [*frames(2), *frames(1, cut=True)]
    pipeline = FakePipeline()
    with make_session(iter(pictures), pipeline) as session:
        session.run(FakeViewer())
    assert pipeline.resets == 2  # at the cut and at the end


# A temporal network gives people late


def test_late_people_belong_to_their_frame() -> None:
    log = []
    with make_session(frames(6), FakePipeline(look_ahead=2)) as session:
        session.results.put = log.append
        session.run(FakeViewer())
    assert [result.frame.index for result in log] == [0, 1, 2, 3, 4, 5]
    for result in log:
        assert [person.t_ns for person in result.people] == [result.frame.t_ns]
    # its wait for the two frames after it is in its latency
    assert log[0].timing.done_ns > log[2].timing.started_ns


def test_what_is_owed_before_a_cut_is_not_lost() -> None:
    pictures = [*frames(3), replace(next(frames(1)), index=3, t_ns=500 * MS, cut=True)]
    log = []
    with make_session(iter(pictures), FakePipeline(look_ahead=2)) as session:
        session.results.put = log.append
        session.run(FakeViewer())
    assert [[p.t_ns for p in result.people] for result in log] == [
        [t_ns * MS] for t_ns in (0, 40, 80, 500)
    ]


# Recording


def recordings(tmp_path: Path) -> Iterator[Outputs]:
    source = Source(FakeCamera(frames(0)), start=False)
    return names_of_recordings(tmp_path / "out", source, "0")


def check_recording(outputs: Outputs, count: int) -> dict[str, NDArray]:
    """Both files are whole, and picture k is frame k."""
    stored = read_npz(outputs.results)
    assert count_frames(outputs.overlay) == stored["frames"] == count
    assert stored["frame"].tolist() == list(range(count))
    assert stored["t_ns"][0] == 0
    assert sorted(path.name for path in outputs.overlay.parent.glob(".*")) == []
    return stored


def test_a_recording_from_the_start(tmp_path: Path) -> None:
    with make_session(frames(9), recordings=recordings(tmp_path), record=True) as session:
        session.run(FakeViewer())
    (outputs,) = session.written
    assert outputs == Outputs(tmp_path / "out" / "live.mp4", tmp_path / "out" / "live.npz")
    stored = check_recording(outputs, 9)
    assert stored["t_ns"].tolist() == [index * 40 * MS for index in range(9)]
    assert session.missed == 0


def test_recordings_on_and_off(tmp_path: Path) -> None:
    """Each in files of its own; in both time begins at 0."""
    acts = {n: [Action.RECORD] for n in (2, 8, 12, 18)}
    viewer = FakeViewer({**acts, 20: [Action.QUIT]})
    with make_session(endless(), recordings=recordings(tmp_path)) as session:
        session.run(viewer)
    assert [out.overlay.name for out in session.written] == ["live.mp4", "live-2.mp4"]
    for outputs in session.written:
        check_recording(outputs, int(read_npz(outputs.results)["frames"]))
    names = [view.status.recording and view.status.recording.name for view in viewer.views]
    expected = [None] * 2 + ["live.mp4"] * 6 + [None] * 4 + ["live-2.mp4"] * 6 + [None] * 2
    assert names == expected


def test_names_of_recordings_replace_nothing_but_a_named_file(tmp_path: Path) -> None:
    source = Source(FakeCamera(frames(0)), start=False)
    (tmp_path / "live.npz").touch()
    (tmp_path / "mine.mp4").touch()
    names = names_of_recordings(tmp_path, source, "0")
    assert [next(names).overlay.name for _ in range(2)] == ["live-2.mp4", "live-3.mp4"]
    names = names_of_recordings(tmp_path / "mine.mp4", source, "0")
    assert [next(names).overlay.name for _ in range(2)] == ["mine.mp4", "mine-2.mp4"]
    with pytest.raises(InputError, match="expected a folder or one of"):
        next(names_of_recordings(tmp_path / "mine.avi", source, "0"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_a_recording_is_whole_after_an_error_of_the_display(
    error: BaseException, tmp_path: Path
) -> None:
    def look(view: View) -> None:
        if view.result.frame.index >= 3:
            raise error

    session = make_session(endless(), recordings=recordings(tmp_path), record=True)
    with pytest.raises(type(error)), session:
        session.run(FakeViewer(look=look))
    (outputs,) = session.written
    assert len(check_recording(outputs, int(read_npz(outputs.results)["frames"]))["frame"]) >= 4


def test_a_recording_is_whole_after_a_bug_in_the_pipeline(tmp_path: Path) -> None:
    def meet(number: int) -> None:
        if number == 4:
            raise RuntimeError("a bug")

    options = {"recordings": recordings(tmp_path), "record": True}
    session = make_session(frames(9), FakePipeline(meet=meet), **options)
    with pytest.raises(RuntimeError, match="a bug"), session:
        session.run(FakeViewer())
    check_recording(session.written[0], 4)


def test_a_recording_is_whole_when_the_camera_is_gone_for_good(tmp_path: Path) -> None:
    options = {"recordings": recordings(tmp_path), "record": True}
    session = make_session(frames(5), incomplete="stopped and did not come back", **options)
    with pytest.raises(InputError, match="the camera stopped and did not come back"), session:
        session.run(FakeViewer())
    check_recording(session.written[0], 5)


def test_nothing_to_record_leaves_no_video(tmp_path: Path) -> None:
    with make_session(frames(0), recordings=recordings(tmp_path), record=True) as session:
        session.run(FakeViewer())
    assert session.written == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        make_session(frames(1), recordings=recordings(tmp_path), record=True)


@pytest.mark.parametrize("wait", [False, True])
def test_a_recorder_that_is_late(
    wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It misses frames and says how many, or lets the pipeline wait where none may be missed."""
    busy, free = threading.Event(), threading.Event()
    write = Recorder._write

    def slow(self: Recorder, result: object) -> None:
        busy.set()
        wait_for(free)
        write(self, result)

    monkeypatch.setattr(Recorder, "_write", slow)
    source = Source(FakeCamera(frames(0)), start=False)
    outputs = next(names_of_recordings(tmp_path, source, "0"))
    results = []
    with make_session(frames(7)) as session:
        session.results.put = results.append
        session.run(FakeViewer())
    recorder = Recorder(outputs, FACES, source, wait=wait, ahead=2)
    recorder.add(results[0])
    wait_for(busy)
    feeder = threading.Thread(target=lambda: [recorder.add(result) for result in results[1:]])
    feeder.start()
    if not wait:
        feeder.join(PATIENCE_S)
    free.set()
    feeder.join(PATIENCE_S)
    recorder.close()
    assert (recorder.recorded, recorder.missed) == ((7, 0) if wait else (3, 4))
    check_recording(outputs, recorder.recorded)


# Times


def test_what_the_times_add_up_to() -> None:
    timing = FrameTiming(1 * MS, 6 * MS, 8 * MS, 20 * MS, 27 * MS)
    assert (timing.decode_ms, timing.queue_ms, timing.inference_ms) == (5, 2, 12)
    assert (timing.camera_to_mesh_ms, timing.draw_ms) == (19, 7)
    assert FrameTiming(0, 0, 0, 0).draw_ms is None


def test_the_summary_of_times() -> None:
    log = TimingLog()
    for index in range(101):
        begin = index * 50 * MS
        log.add(FrameTiming(begin, begin + 1 * MS, begin + 1 * MS, begin + (2 + index) * MS))
    summary = log.summary()
    assert summary["frames"] == 101
    assert summary["camera_to_mesh_ms"] == {"p50": 52.0, "p95": 97.0, "p99": 101.0}
    assert summary["decode_ms"]["p99"] == 1.0
    assert summary["fps"] == round(1000 / 51, 1)
    assert summary["draw_ms"]["p50"] is None
    assert log.summary(2)["camera_to_mesh_ms"]["p50"] == 101.5
    assert TimingLog().summary()["fps"] is None


def test_the_read_out() -> None:
    viewer = FakeViewer()
    with make_session(frames(3)) as session:
        session.run(viewer)
        session.log.add_shown(FrameTiming(0, 0, 0, 1 * MS, 4 * MS))
        session._next_summary_ns = 0
        status = replace(session.status(), dropped=7, trouble="camera lost", missed=2, paused=True)
    first, *figures = readout(status, calibrated=False)
    assert first == "parallel, before calibration  |  paused  |  2 not recorded  |  camera lost"
    for words in ("camera to mesh p50", "p95", "decode", "queue", "inference", "7 dropped", "draw"):
        assert words in "\n".join(figures)


def test_a_handover() -> None:
    newest = Newest[str]()
    assert newest.take(0.0) is None
    for thing in "abc":
        newest.put(thing)
    assert (newest.take(0.0), newest.replaced) == ("c", 2)
    assert newest.take(0.0) is None
