"""Temporal stages in an executor: late rows join their own frames, whoever comes and goes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from averaging_engine import WIDTH, AveragingEngine, WindowEngine, averaged
from numpy.typing import NDArray

from pchmr.camera import Camera
from pchmr.executor import Executor
from pchmr.resampling import ON_STEP, StepStream
from pchmr.stages.base import Board, HostStage, Row, Stage
from pchmr.stages.temporal import StreamingStage, WindowStage, temporal_stage

START = frozenset({"x", "frame"})
FRAME_NS = 40_000_000


def stage(
    engine: AveragingEngine,
    name: str = "mean",
    takes: str = "x",
    people: int = 2,
    **settings: object,
) -> StreamingStage | WindowStage:
    given = {**engine.settings, **settings}
    return temporal_stage(name, engine, given, {"x": takes}, {"mean": name}, people, 1)


class Pair(HostStage):
    """Joins what came late with what the frame had from the start."""

    def __init__(self, name: str, *names: str) -> None:
        self.name, self._names = name, names
        self.needs, self.gives = frozenset({*names, "frame"}), frozenset({name})

    def collect(self, board: Board) -> None:
        assert (board["frame"] == [row.frame for row in board.rows]).all()
        board[self.name] = sum(board[name] for name in self._names)


Clips = Mapping[int, tuple[int, NDArray]]
"""Track -> the frame it begins at, and its values (T, 3)."""


def board_of(frame: int, clips: Clips, t_ns: int | None = None) -> Board:
    t_ns = frame * FRAME_NS if t_ns is None else t_ns
    here = [
        (track, clip[frame - first])
        for track, (first, clip) in clips.items()
        if 0 <= frame - first < len(clip)
    ]
    rows = [Row(frame, t_ns, track, slot) for slot, (track, _) in enumerate(here)]
    board = Board(np.ones((4, 6, 3), np.uint8), Camera.from_size(6, 4), rows, [], t_ns=t_ns)
    if rows:
        board["x"] = np.stack([value for _, value in here])
        board["frame"] = np.full(len(rows), frame)
    return board


def play(stages: Sequence[Stage], clips: Clips, frames: int) -> tuple[list[list[int]], list[Board]]:
    """Frames that each call gave, the last of which is the flush; and all boards, in order."""
    executor = Executor(stages, START, False)
    calls = [executor.run(board_of(frame, clips)) for frame in range(frames)]
    assert executor.owed == frames - sum(map(len, calls))
    calls.append(executor.flush())
    assert executor.owed == 0
    boards = [board for call in calls for board in call]
    assert [board.t_ns for board in boards] == [frame * FRAME_NS for frame in range(frames)]
    return [[board.t_ns // FRAME_NS for board in call] for call in calls], boards


def results(boards: Sequence[Board], name: str, track: int) -> NDArray:
    found = [
        board[name][[row.track for row in board.rows].index(track)]
        for board in boards
        if any(row.track == track for row in board.rows)
    ]
    return np.stack(found)


@pytest.fixture
def clips(rng: np.random.Generator) -> dict[int, tuple[int, NDArray]]:
    """One from the start to the end, one short, one who comes in their place, one seen once."""
    spans = {7: (0, 40), 8: (3, 9), 9: (12, 20), 10: (35, 1)}
    return {
        track: (first, rng.normal(size=(length, WIDTH)).astype(np.float32))
        for track, (first, length) in spans.items()
    }


@pytest.mark.parametrize("reach", [0, 1, 5, 60])
def test_late_rows_join_their_own_frames(reach: int, clips: Clips) -> None:
    calls, boards = play([Pair("end", "mean", "x"), stage(AveragingEngine(reach))], clips, 40)
    late = [[frame - reach] if frame >= reach else [] for frame in range(40)]
    assert calls == [*late, list(range(max(0, 40 - reach), 40))]
    for track, (_, clip) in clips.items():
        expected = averaged(clip, reach)
        np.testing.assert_allclose(results(boards, "mean", track), expected, atol=1e-6)
        np.testing.assert_allclose(results(boards, "end", track), expected + clip, atol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_every_frame_is_in_the_kept_part_of_one_window(whole: bool, clips: Clips) -> None:
    engine = WindowEngine(reach=3, kept=4, whole=whole)
    calls, boards = play([stage(engine)], {7: clips[7]}, 40)
    assert calls == [*([[f - 6] if f >= 6 else [] for f in range(40)]), list(range(34, 40))]
    assert engine.runs == 10
    _, boards = play([stage(WindowEngine(3, 4, whole))], clips, 40)
    for track, (_, clip) in clips.items():
        np.testing.assert_allclose(results(boards, "mean", track), averaged(clip, 3), atol=1e-6)


def test_one_after_another_delays_add_up_and_side_by_side_they_do_not(clips: Clips) -> None:
    first, second = stage(AveragingEngine(2), "a"), stage(AveragingEngine(3), "b", takes="a")
    beside = stage(AveragingEngine(4), "c")
    stages = [first, second, beside, Pair("end", "b", "c"), Pair("early", "a")]
    assert Executor(stages, START, False).look_ahead == 5
    assert Executor([first, beside, Pair("end", "a", "c")], START, False).look_ahead == 4
    calls, boards = play(stages, clips, 40)
    assert calls[:7] == [[], [], [], [], [], [0], [1]]
    for track, (_, clip) in clips.items():
        twice = averaged(averaged(clip, 2), 3) + averaged(clip, 4)
        np.testing.assert_allclose(results(boards, "end", track), twice, atol=1e-6)


def test_who_comes_back_in_a_new_epoch_is_somebody_else(clips: Clips) -> None:
    executor = Executor([stage(AveragingEngine(2))], START, False)
    first, clip = clips[7]
    boards = []
    for frame in range(20):
        board = board_of(frame, {7: (first, clip)})
        board.rows = [Row(frame, board.t_ns, 7, 0, epoch=frame // 10)]
        boards += executor.run(board)
    boards += executor.flush()
    found = results(boards, "mean", 7)
    np.testing.assert_allclose(found[:10], averaged(clip[:10], 2), atol=1e-6)
    np.testing.assert_allclose(found[10:], averaged(clip[10:20], 2), atol=1e-6)


def test_a_waiting_board_holds_no_image_and_arrays_of_its_own(clips: Clips) -> None:
    executor = Executor([stage(AveragingEngine(1))], START, False)
    board = board_of(0, clips)
    given = board["x"]
    assert executor.run(board) == []
    given[:] = np.nan
    assert board.image.size == 0
    assert board.size == (6, 4)
    (done,) = executor.run(board_of(1, clips))
    assert done is board
    assert np.isfinite(board["x"]).all()
    assert np.isfinite(board["mean"]).all()


def test_more_people_who_are_owed_something_than_there_may_be(rng: np.random.Generator) -> None:
    """The tracker loses somebody every other frame, and finds them again as somebody new."""
    clips = {i: (2 * i, rng.normal(size=(2, WIDTH)).astype(np.float32)) for i in range(20)}
    _, boards = play([stage(AveragingEngine(9), people=1)], clips, 40)
    for track, (_, clip) in clips.items():
        np.testing.assert_allclose(results(boards, "mean", track), averaged(clip, 9), atol=1e-6)


def test_after_an_error_all_begins_anew(clips: Clips) -> None:
    executor = Executor([stage(AveragingEngine(1)), Pair("end", "mean")], START, False)
    for frame in range(4):
        executor.run(board_of(frame, clips))
    broken = board_of(4, clips)
    del broken["x"]
    with pytest.raises(KeyError):
        executor.run(broken)
    assert executor.owed == 0
    boards = [b for frame in range(5, 12) for b in executor.run(board_of(frame, clips))]
    boards += executor.flush()
    expected = averaged(clips[7][1][5:12], 1)
    np.testing.assert_allclose(results(boards, "mean", 7), expected, atol=1e-6)


def test_after_an_error_at_the_end_all_begins_anew(
    clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor([stage(AveragingEngine(2))], START, False)
    for frame in range(4):
        executor.run(board_of(frame, clips))
    with monkeypatch.context() as broken:
        broken.setattr(AveragingEngine, "enqueue", lambda *_: pytest.fail("out of memory"))
        with pytest.raises(pytest.fail.Exception, match="out of memory"):
            executor.flush()
    assert executor.owed == 0
    boards = [*executor.run(board_of(4, clips)), *executor.flush()]
    assert [board.rows[0].frame for board in boards] == [4]


# At a rate of its own


def play_at(times_s: Sequence[float], rate_hz: float, reach: int) -> tuple[Executor, list[Board]]:
    """x = (t, 2 t, 1) of one person at these times; the mean about a time is x again."""
    executor = Executor([stage(AveragingEngine(reach), rate_hz=rate_hz)], START, False)
    assert executor.look_ahead == reach
    boards = []
    for frame, time_s in enumerate(times_s):
        clip = np.float32([[time_s, 2 * time_s, 1]])
        time = round((time_s + 1000) * 1e9)
        boards += executor.run(board_of(frame, {1: (frame, clip)}, time))
    waiting = executor.owed
    boards += executor.flush()
    assert len(boards) == len(times_s)
    assert waiting <= reach / rate_hz / np.min(np.diff(times_s)) + 2
    return executor, boards


@pytest.mark.parametrize("fps", [24.0, 30.0, 50.0, 59.94, 120.0])
def test_a_track_runs_at_the_networks_own_rate(fps: float) -> None:
    times = np.arange(round(2 * fps)) / fps
    executor, boards = play_at(times, 50.0, reach=4)
    assert executor.look_ahead == np.ceil(4 / 50 * fps - 0.01)
    inner = (times > 0.1) & (times < times[-1] - 0.1)
    expected = np.c_[times, 2 * times, times**0][inner]
    # A frame is on a step that it misses by 0.02 of one: at 59.94 a second that shifts some.
    np.testing.assert_allclose(results(boards, "mean", 1)[inner], expected, atol=2 * ON_STEP / 50)


def test_every_frame_is_a_step_at_the_networks_own_rate(clips: Clips) -> None:
    """Also where the times of a file are rounded to milliseconds."""
    _, clip = clips[7]
    executor = Executor([stage(AveragingEngine(3), rate_hz=30.0)], START, False)
    boards = []
    for frame in range(40):
        time = round(frame / 30 * 1000) * 1_000_000 - (frame % 3) * 1000
        boards += executor.run(board_of(frame, {7: (0, clip)}, time))
        assert executor.owed == min(frame + 1, 3)
    boards += executor.flush()
    np.testing.assert_allclose(results(boards, "mean", 7), averaged(clip, 3), atol=1e-6)


def test_dropped_frames_are_bridged(rng: np.random.Generator) -> None:
    times = np.delete(np.arange(100) / 30.0, [*range(20, 30), *range(60, 62), 75])
    _, boards = play_at(times, 50.0, reach=4)
    inner = (times > 0.1) & (times < times[-1] - 0.1)
    np.testing.assert_allclose(results(boards, "mean", 1)[inner, 0], times[inner], atol=1e-5)


def test_times_that_stand_still_or_run_back_do_no_harm() -> None:
    executor = Executor([stage(AveragingEngine(2), rate_hz=50.0)], START, False)
    boards = []
    for frame, t_ms in enumerate((0, 20, 20, 10, 40, 60)):
        values = np.full((1, WIDTH), frame, np.float32)
        boards += executor.run(board_of(frame, {1: (frame, values)}, t_ms * 1_000_000))
    boards += executor.flush()
    found = results(boards, "mean", 1)
    assert len(found) == 6
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 5).all()


def test_where_time_begins_anew_nothing_waits_for_the_old_one() -> None:
    """A second video behind the first one, an hour earlier."""
    executor = Executor([stage(AveragingEngine(2), rate_hz=50.0)], START, False)
    first, second = ({track: (begin, np.ones((9, WIDTH)))} for track, begin in ((1, 0), (2, 9)))
    boards = [b for frame in range(9) for b in executor.run(board_of(frame, first))]
    assert len(boards) == 8  # two steps are one frame
    boards = executor.run(board_of(9, second, t_ns=-3600 * 1_000_000_000))
    assert [board.rows[0].track for board in boards] == [1]
    assert executor.owed == 1


def test_steps_of_a_stream_by_hand() -> None:
    """Frames at 0, 30 and 60 ms, steps every 20: inputs at 0, 20, 40, 60, then the last one on."""
    stream = StepStream(look_ahead=1, rate_hz=50.0)
    rows = [Row(frame, frame * 30_000_000, 0, 0) for frame in range(3)]
    asked: list[float] = []

    def ask() -> list[int]:
        while (values := stream.next_input()) is not None:
            asked.append(float(values["x"][0]))
            stream.put({"y": values["x"]})  # of the step before
        return [row.frame for row, _ in stream.finished()]

    assert ask() == []
    for row, (frames, steps) in zip(
        rows, [([], [0]), ([0], [0, 20]), ([1], [0, 20, 40, 60])], strict=True
    ):
        stream.add(row, {"x": np.float32([row.t_ns / 1e6])})
        assert ask() == frames
        np.testing.assert_allclose(asked, steps, atol=1e-4)
    stream.end(rows[-1].t_ns + 10_000_000)
    assert ask() == []
    stream.end()
    assert ask() == [2]
    assert asked[-1] == 60
    assert stream.over
