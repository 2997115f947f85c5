"""What the times of live frames add up to, and how they are told."""

from dataclasses import replace

from live_fakes import MS, FakeViewer, frames, make_session

from pchmr.live import FrameTiming, TimingLog, readout
from pchmr.live.handover import Newest


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


def test_frames_of_nobody_have_no_latency() -> None:
    """They count, and their times are in no figure of camera to mesh."""
    log = TimingLog()
    for index, people in enumerate([False, True, False]):
        log.add(FrameTiming(0, 0, 0, (1 + index) * 10 * MS), people)
    summary = log.summary()
    assert (summary["frames"], summary["frames_with_people"], summary["fps"]) == (3, 1, 100.0)
    assert summary["camera_to_mesh_ms"] == {"p50": 20.0, "p95": 20.0, "p99": 20.0}
    assert log.summary(1)["camera_to_mesh_ms"]["p50"] is None
    with make_session(frames(0)) as session:
        session.run(FakeViewer())
        status = replace(session.status(), timing=log.summary(1))
    assert readout(status, calibrated=True)[0] == "nobody seen"


def test_the_read_out() -> None:
    viewer = FakeViewer()
    with make_session(frames(3)) as session:
        session.run(viewer)
        session.log.add_shown(FrameTiming(0, 0, 0, 1 * MS, 4 * MS))
        session._next_summary_ns = 0
        status = replace(session.status(), dropped=7, trouble="camera lost", missed=2, paused=True)
    headline, parts, state = readout(status, calibrated=False)
    assert headline.startswith("camera to mesh ")
    assert "ms  (p95 " in headline
    for words in ("decode ", " + queue ", " + inference ", "; drawing "):
        assert words in parts
    *_, fps, dropped, paused, missed, trouble = state.split("  |  ")
    assert fps.endswith("frames/s")
    told = (dropped, paused, missed, trouble)
    assert told == ("7 dropped", "paused", "2 not recorded", "camera lost")
    assert state.startswith("parallel, before calibration  |  ")
    before = replace(status, timing=TimingLog().summary())
    assert readout(before, calibrated=True)[0] == "no mesh yet"


def test_a_handover() -> None:
    newest = Newest[str]()
    assert newest.take(0.0) is None
    for thing in "abc":
        newest.put(thing)
    assert (newest.take(0.0), newest.replaced) == ("c", 2)
    assert newest.take(0.0) is None
