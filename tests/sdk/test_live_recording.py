"""Recordings of a live session are whole, whatever ends them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import count_frames, read_npz
from live_fakes import (
    MS,
    PATIENCE_S,
    FakeCamera,
    FakePipeline,
    FakeViewer,
    endless,
    frames,
    make_session,
    wait_for,
)
from numpy.typing import NDArray
from people_made_up import FACES

from pchmr.live import Action, View, names_of_recordings
from pchmr.live.recorder import Recorder
from pchmr.results import ResultWriter
from pchmr.runner import Outputs
from pchmr.sources import Source
from pchmr_engines.errors import InputError


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


def test_a_video_that_cannot_be_made_leaves_no_results(tmp_path: Path) -> None:
    source = Source(FakeCamera(frames(0)), start=False)
    source.fps = 1e6  # as no camera should state
    outputs = next(names_of_recordings(tmp_path, source, "0"))
    with pytest.raises(InputError, match="between 0 and 1000 frames/s"):
        Recorder(outputs, FACES, source)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, waits for room no more, and leaves nothing of what was never written."""

    def full(recorder: Recorder, result: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Recorder, "_write", full)
    source = Source(FakeCamera(frames(0)), start=False)
    outputs = next(names_of_recordings(tmp_path, source, "0"))
    recorder = Recorder(outputs, FACES, source, wait=True, ahead=1)
    recorder.add(object())
    recorder._thread.join(PATIENCE_S)
    with pytest.raises(OSError, match="no space left"):
        recorder.add(object())
    feeder = threading.Thread(target=lambda: [recorder.add(object()) for _ in range(3)])
    feeder.start()
    feeder.join(PATIENCE_S)
    assert not feeder.is_alive()
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_could_not_be_finished_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: ResultWriter) -> None:
        writer._files.close()
        raise OSError("no space left")

    monkeypatch.setattr(ResultWriter, "close", full)
    session = make_session(frames(3), recordings=recordings(tmp_path), record=True)
    with pytest.raises(OSError, match="no space left"), session:
        session.run(FakeViewer())
    assert session.written == []


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
