"""A live session: nobody waits for a display, every frame has its people, the controls obey."""

import queue
import threading
from dataclasses import replace

import pytest
from live_fakes import (
    MS,
    PATIENCE_S,
    FakePipeline,
    FakeViewer,
    Pictures,
    endless,
    frames,
    make_session,
    wait_for,
)
from waiting import wait_until

from pchmr.live import Action, View
from pchmr.readers import Frame

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
    """The first view, of the first frame, is not done before the last frame is."""
    looking = threading.Event()

    def look(view: View) -> None:
        looking.set()
        session._thread.join(PATIENCE_S)

    def meet(number: int) -> None:
        if number == 1:
            wait_for(looking)

    viewer = FakeViewer(look=look)
    with make_session(frames(50), FakePipeline(meet=meet)) as session:
        session.run(viewer)
    assert session.log.frames == 50
    assert [view.result.frame.index for view in viewer.views] == [0, 49]
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
    assert (parallel.resets, serial.taken_over) == (0, ["parallel"])


def test_what_is_owed_before_another_topology_is_not_lost() -> None:
    parallel, serial = FakePipeline("parallel", look_ahead=2), FakePipeline("serial")
    log = []
    session = make_session(frames(6), parallel, serial)
    parallel._meet = lambda number: number == 2 and session.topologies.ask("serial")
    session.results.put = log.append
    with session:
        session.run(FakeViewer())
    assert [result.topology for result in log] == ["parallel"] * 3 + ["serial"] * 3
    assert [result.people[0].t_ns for result in log] == [x * 40 * MS for x in range(6)]


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
        wait_until(lambda: given.empty() and not session.source._waiting)
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


def test_an_error_behind_the_users_back_is_told_at_the_end() -> None:
    """The user has quit; the pipeline fails in what it still owed."""
    pipeline = FakePipeline()
    pipeline.flush = lambda: 1 / 0
    session = make_session(endless(), pipeline)
    with pytest.raises(ZeroDivisionError), session:
        session.run(FakeViewer({2: [Action.QUIT]}))
    session.close()  # and only once


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
