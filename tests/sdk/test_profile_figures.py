"""What a profile adds up: parts of made-up spans, ratios of made-up times, a trace that loads."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pchmr.latency import distribution
from pchmr.profiling import compare
from pchmr.profiling.measure import Measured, measure
from pchmr.profiling.recorder import Recorder, Span, _RecordedEngine
from pchmr.profiling.report import by_frame, own_ms, parts_of_frame, rows_of, summary_of, union_ms
from pchmr.profiling.trace import write_trace
from pchmr_engines.errors import InputError

MS = 1_000_000
MANIFEST = SimpleNamespace(
    stages=[SimpleNamespace(name="net", macs=7_000_000), SimpleNamespace(name="lift", macs=None)]
)


def span(kind: str, name: str, begin: float, end: float, frame: int = 0, thread: int = 1) -> Span:
    return Span(kind, name, round(begin * MS), round(end * MS), frame, thread)


def a_frame(frame: int = 0, start: float = 0.0) -> list[Span]:
    """30 ms: 2 capture, 1 queue, 20 pipeline; two branches side by side for 4 ms."""
    made = [
        span("capture", "decode", -3, -1),
        span("queue", "queue", -1, 0),
        span("engine", "find_net", 2, 7),
        span("engine", "find_net", 7.5, 8),
        span("find", "find", 0, 9),
        span("prepare", "net", 9, 10),
        span("engine", "net", 10.25, 12.25),
        span("enqueue", "net", 10, 12.5),
        span("collect", "net", 12.5, 13),
        span("engine", "lift", 10, 13.5, thread=2),
        span("enqueue", "lift", 10, 14, thread=2),
        span("enqueue", "calibrate", 14, 17),
        span("frame", "pipeline", 0, 20),
        span("draw", "overlay", 20, 25),
    ]
    shift = round(start * MS)
    return [
        x._replace(begin_ns=x.begin_ns + shift, end_ns=x.end_ns + shift, frame=frame) for x in made
    ]


def test_parts_of_a_frame() -> None:
    parts = parts_of_frame(a_frame())
    expected = {
        ("capture", ""): 2.0,
        ("queue", ""): 1.0,
        ("engine", "find_net"): 5.5,
        ("preprocess", "find"): 3.5,  # of 9 ms without the network's two calls
        ("preprocess", "net"): 1.5,  # prepare, and the enqueue around the engine
        ("engine", "net"): 2.0,
        ("postprocess", "net"): 0.5,
        ("engine", "lift"): 3.5,
        ("preprocess", "lift"): 0.5,
        ("kernel", "calibrate"): 3.0,
        ("other", ""): 3.0,  # 20 - 17: the branch beside counts once
        ("draw", "overlay"): 5.0,
    }
    assert parts == pytest.approx(expected)
    # Without engines and kernels: 20 - 5.5 (find) - 3.5 (10 to 13.5, both branches) - 3
    assert own_ms(a_frame()) == pytest.approx(8.0)


def test_time_of_overlapping_spans_counts_once() -> None:
    spans = [span("a", "", 0, 4), span("a", "", 1, 2), span("a", "", 3, 6), span("a", "", 8, 9)]
    assert union_ms(spans) == union_ms(spans[::-1]) == 7.0
    assert union_ms([]) == 0


def measured(frames: int = 4, **fields: object) -> Measured:
    spans = [x for number in range(frames) for x in a_frame(number, 30.0 * number)]
    spans += [span("engine", "net", 1000, 1004, frame=3)]  # a second call, in one frame
    made = {
        "spans": spans,
        "camera_to_mesh_ms": [10.0, 20.0, 30.0, 40.0],
        "smoothing_lag_ms": [],
        "frames": frames,
        "frames_with_people": 3,
        "people": 5,
        "dropped": 2,
        "seconds": 0.5,
        "live": True,
        "memory_mb": {"before": 1.0, "after": 2.0, "peak": 3.0, "gpu": None},
    }
    return Measured(**{**made, **fields})


def test_summary() -> None:
    summary = summary_of(measured(), MANIFEST)
    json.dumps(summary, allow_nan=False)
    assert summary["camera_to_mesh_ms"] == {"p50": 25.0, "p95": 38.5, "p99": 39.7, "max": 40.0}
    assert "queue" in summary["includes"]
    assert "drawing" in summary["excludes"]
    assert summary["fps"] == 8.0
    assert summary["dropped"] == 2
    assert summary["pipeline_ms"]["p50"] == 20.0
    assert summary["megamacs_a_frame"] == pytest.approx(7 * 5 / 4, abs=0.06)
    parts = {(part["kind"], part["name"]): part for part in summary["parts"]}
    net = parts["engine", "net"]
    assert net["megamacs"] == 7.0
    assert net["calls_a_frame"] == 1.25
    assert net["ms"]["p50"] == 2.0
    assert net["ms"]["max"] == 6.0  # both calls of its frame
    assert parts["engine", "lift"]["megamacs"] is None
    assert parts["kernel", "calibrate"]["share"] == pytest.approx(3 / 20)
    assert parts["draw", "overlay"]["share"] is None
    kinds = [part["kind"] for part in summary["parts"]]
    assert kinds == sorted(kinds, key=list(summary["parts_include"]).index)
    assert set(kinds) <= set(summary["parts_include"])
    fast = summary_of(measured(live=False), MANIFEST)
    assert "decoding" in fast["includes"]
    assert fast["includes"] != summary["includes"]


def test_a_part_that_runs_seldom_says_in_how_many_frames() -> None:
    spans = [*measured().spans, span("engine", "detector", 2000, 2050, frame=1)]
    (row,) = (row for row in rows_of(measured(spans=spans), MANIFEST) if row.name == "detector")
    assert row.frames == 1
    assert row.calls == 0.25
    assert row.ms["p50"] == 50.0


def test_a_part_of_hardly_any_time_is_left_out_and_that_is_said() -> None:
    spans = [*measured().spans, span("engine", "tiny", 2000, 2000.02, frame=1)]
    summary = summary_of(measured(spans=spans), MANIFEST)
    assert "tiny" not in {part["name"] for part in summary["parts"]}
    assert "0.02 ms" in summary["parts_left_out"]


def test_distribution_of_nothing() -> None:
    assert distribution([]) == {"p50": None, "p95": None, "p99": None, "max": None}
    assert distribution([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


def test_a_trace_has_every_span(tmp_path: Path) -> None:
    spans = measured().spans
    write_trace(tmp_path / "trace.json", spans)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    begun, ended = ([event for event in events if event["ph"] == ph] for ph in "be")
    assert len(complete) + len(begun) == len(spans)
    assert [event["id"] for event in begun] == [event["id"] for event in ended]
    (first,) = (e for e in complete if e["name"] == "find" and e["args"]["frame"] == 1)
    assert first["ts"] == pytest.approx(33_000)  # microseconds, from the first capture at -3 ms
    assert first["dur"] == pytest.approx(9000)
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {1: "pipeline", 2: "branch 1"}
    assert min(event["ts"] for event in complete + begun) == 0
    for line in names:  # complete events of a line nest: that is how viewers draw them
        open_until: list[float] = []
        own = [event for event in complete if event["tid"] == line]
        for event in sorted(own, key=lambda e: (e["ts"], -e["dur"])):
            while open_until and open_until[-1] <= event["ts"] + 1e-6:
                open_until.pop()
            assert not open_until or event["ts"] + event["dur"] <= open_until[-1] + 1e-6
            open_until.append(event["ts"] + event["dur"])


def test_a_recorder_nests_and_keeps_what_failed() -> None:
    recorder = Recorder()
    recorder.frame = 5
    with recorder.span("find", "find"), pytest.raises(ZeroDivisionError):
        recorder.watch("engine", "net", lambda: 1 / 0)()
    inner, outer = recorder.spans
    assert (inner.kind, outer.kind) == ("engine", "find")
    assert outer.begin_ns <= inner.begin_ns <= inner.end_ns <= outer.end_ns
    assert inner.frame == outer.frame == 5
    recorder.on = False
    assert recorder.watch("a", "b", lambda x: x + 1)(2) == 3
    assert len(recorder.spans) == 2


def test_on_a_gpu_the_wait_for_an_engine_is_a_span_of_its_own() -> None:
    """The calls a GPU would get, on stand-ins: no GPU has run this."""
    done: list[str] = []
    recorder = Recorder()
    recorder._nvtx = SimpleNamespace(
        RangePush=lambda name: done.append(f"push {name}"), RangePop=lambda: done.append("pop")
    )
    context = SimpleNamespace(
        stream=SimpleNamespace(synchronize=lambda: done.append("wait")),
        enqueue=lambda: done.append("run"),
        buffers={},
        **dict.fromkeys(("bind", "freeze", "close")),
    )
    engine = SimpleNamespace(
        context=lambda batch, stream, threads: context,
        **dict.fromkeys(("backend", "precision", "inputs", "outputs", "caps")),
    )
    _RecordedEngine(engine, "net", recorder).context(1).enqueue()
    assert done == ["push engine net", "run", "pop", "push sync net", "wait", "pop"]
    assert [span.kind for span in recorder.spans] == ["engine", "sync"]


class Ticking:
    """A pipeline on a clock of our own."""

    def __init__(self, name: str, cost_ms: float, clock: list[int], order: list[str]) -> None:
        self.name, self.cost_ms, self.clock, self.order = name, cost_ms, clock, order
        self.seen: list[int] = []
        self.resets = 0

    def __call__(self, image: int, t_ns: int) -> list[SimpleNamespace]:
        self.seen.append(image)
        self.order.append(self.name)
        self.clock[0] += round(self.cost_ms * MS)
        return [SimpleNamespace(latency_ms={"look_ahead": 1.0} if self.name == "b" else {})]

    def reset(self) -> None:
        self.resets += 1


def test_both_see_every_frame_each_as_often_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0], []
    for name in ("perf_counter_ns", "thread_time_ns"):
        monkeypatch.setattr(compare, name, lambda: clock[0])
    a, b = Ticking("a", 10.0, clock, order), Ticking("b", 5.0, clock, order)
    frames = [
        SimpleNamespace(image=i, t_ns=i, cut=i == 0, captured_ns=0, received_ns=2 * MS)
        for i in range(100)
    ]
    figures = compare.compare(lambda: nullcontext((a, b)), frames, 20, rounds=2)
    assert a.seen == b.seen == [*range(30), *range(30)]  # with a warm-up each round
    assert a.resets == b.resets == 2
    assert order[::2].count("a") == order[::2].count("b")
    assert figures["frames"] == 40
    assert figures["ratios"]["pipeline"]["p50"] == {"ratio": 0.5, "low": 0.5, "high": 0.5}
    assert figures["ratios"]["camera_to_mesh"]["p95"]["ratio"] == pytest.approx(8 / 12, abs=1e-4)
    assert figures["pipeline_ms"]["a"]["p50"] == 10.0
    assert figures["cpu_ms"]["b"]["max"] == 5.0


def test_the_interval_holds_the_true_ratio_and_tells_of_rounds_that_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "DRAWS", 200)
    hits, width = 0, {0.0: 0.0, 0.05: 0.0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drift = 1 + 0.2 * np.sin(np.arange(400) / 40).reshape(4, 100)  # common to both
        a, b = (drift * rng.gamma(50, 0.2, (4, 100)) for _ in range(2))
        for luck in width:  # of how a pipeline comes to lie in memory, a round
            found = compare.ratio_of(a, 1.1 * b * (1 + luck * rng.standard_normal((4, 1))), 50)
            assert found["low"] < found["high"]
            width[luck] += found["high"] - found["low"]
        hits += compare.ratio_of(a, 1.1 * b, 50)["low"] <= 1.1
    assert hits >= 16
    assert width[0.05] > 1.2 * width[0.0]


def test_pairs_cancel_what_a_frame_costs_and_who_was_first() -> None:
    """Frames of 10 to 30 ms, the second time in half: B over A is what it is, to a percent."""
    rng = np.random.default_rng(0)
    cost = np.repeat(rng.uniform(10, 30, (2, 25)), compare.GROUP, axis=1)
    second = np.tile([0.5, 1.0, 1.0, 0.5], 25)  # who is second: B in frames 0 and 3 of a group
    a, b = cost * (1.5 - second), 1.01 * cost * second
    found = compare.ratio_of(a, b, None)
    assert list(found.values()) == pytest.approx([1.01] * 3, abs=1e-3)
    assert compare.ratio_of(a[:, :3], b[:, :3], None)["ratio"] > 0  # fewer than a group


def test_the_warm_up_is_in_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first frame takes a second and has nobody, later ones 1 ms."""
    clock, recorder = [0], Recorder()
    monkeypatch.setattr("pchmr.profiling.measure.perf_counter_ns", lambda: clock[0])

    class Warming(Ticking):
        def __call__(self, image: int, t_ns: int) -> list[SimpleNamespace]:
            super().__call__(image, t_ns)
            clock[0] += 0 if image else 1000 * MS
            return [SimpleNamespace(latency_ms={"smoothing_lag": 5.0})] if image else []

    class Frames(list):
        live, dropped = False, 0

        def __iter__(self) -> Iterator[SimpleNamespace]:
            for number in range(14):
                self.dropped += 1 if number < 11 else 2  # of which 11 are those of the warm-up
                yield SimpleNamespace(
                    image=number, t_ns=0, cut=False, captured_ns=clock[0], received_ns=clock[0]
                )

    measured = measure(Warming("a", 1.0, clock, []), recorder, Frames(), 4, draw=False)
    assert measured.camera_to_mesh_ms == [1.0] * 4
    assert measured.smoothing_lag_ms == [5.0] * 4
    assert (measured.frames, measured.frames_with_people, measured.people) == (4, 4, 4)
    assert measured.dropped == 6
    assert measured.seconds == pytest.approx(0.004)
    assert {span.frame for span in measured.spans} == {0, 1, 2, 3}


def test_a_source_that_ends_in_the_warm_up_is_an_error() -> None:
    frames = [
        SimpleNamespace(image=0, t_ns=0, cut=False, captured_ns=1, received_ns=2) for _ in range(10)
    ]
    pipeline = Ticking("a", 1.0, [0], [])
    recorder = Recorder()
    for some in (frames, []):
        with pytest.raises(InputError, match=f"ended after {len(some)} frames; expected more than"):
            measure(pipeline, recorder, some, 5, draw=False)


def test_frames_are_kept_apart() -> None:
    spans = measured().spans
    assert [len(frame) for frame in by_frame(spans)] == [14, 14, 14, 15]
