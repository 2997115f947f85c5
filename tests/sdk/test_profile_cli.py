"""`pchmr profile` as a user runs it: figures that fit together, files that load, mistakes in one
line. What it costs is measured, not tested: `pchmr profile open --overhead`."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Outcome, write_video
from numpy.typing import NDArray

from pchmr import Pipeline
from pchmr.profiling.frames import timed_frames
from pchmr.profiling.recorder import Recorder
from pchmr_engines.errors import InputError

Command = Callable[..., Outcome]
QUICK = ("--backend", "onnxruntime", "--threads", 1)


@pytest.fixture(scope="module")
def video(walk: list[NDArray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("profile") / "walk.mp4", walk)


def test_a_profile_adds_up(video: Path, command: Command, tmp_path: Path) -> None:
    plot, trace = tmp_path / "plot.png", tmp_path / "trace.json"
    asked = ("--source", video, "--fast", "--frames", 8, "--trace", trace, *QUICK)
    drawn = ("--plot", plot) if _matplotlib() else ()
    done = command("profile", "open", "--json", *asked, *drawn)
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["bundle"] == "open"
    assert figures["topology"] == "parallel"
    assert figures["frames"] == figures["frames_with_people"] == 8
    assert figures["dropped"] == 0
    assert figures["machine"]["cpus"] >= 1
    parts = {(part["kind"], part["name"]): part for part in figures["parts"]}
    expected = {
        *(("capture", ""), ("preprocess", "find"), ("other", ""), ("draw", "overlay")),
        *(("engine", name) for name in ("landmarks", "generator", "lifter")),
        *(("kernel", name) for name in ("body", "calibrate")),
    }
    assert expected <= parts.keys()
    shares = [part["share"] for part in parts.values() if part["share"] is not None]
    assert sum(shares) == pytest.approx(1, abs=0.02)
    camera, pipeline = figures["camera_to_mesh_ms"], figures["pipeline_ms"]
    assert camera["p50"] > pipeline["p50"] > figures["own_overhead_ms"]["p50"] > 0
    assert camera["max"] >= camera["p99"] >= camera["p95"] >= camera["p50"]
    assert figures["smoothing_lag_ms"]["p50"] >= 0
    assert parts["engine", "landmarks"]["megamacs"] == pytest.approx(351, abs=2)
    assert figures["megamacs_a_frame"] > 351
    events = json.loads(trace.read_text())["traceEvents"]
    names = [event["name"] for event in events]
    assert names.count("frame pipeline") == names.count("engine generator") == 8
    if drawn:
        assert cv2.imread(str(plot)).std() > 10


def _matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def test_a_file_plays_like_a_camera(video: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        *("profile", "open", "--source", video, "--frames", 6, "--no-draw", "--json", *QUICK),
        *("--topology", "serial", "--no-smooth"),
    )
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["topology"] == "serial"
    assert "due by its own clock" in figures["includes"]
    assert figures["smoothing_lag_ms"]["p50"] is None
    assert figures["frames"] == 6  # the file of six frames began again
    assert ("draw", "overlay") not in {(p["kind"], p["name"]) for p in figures["parts"]}


def test_two_topologies_as_ratios(
    video: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("ROUNDS", 1), ("DRAWS", 50)):
        monkeypatch.setattr(f"pchmr.profiling.compare.{name}", few)
    asked = ("--source", video, "--frames", 6, *QUICK)
    done = command("profile", "open", "--vs", "mesh-only", "--json", *asked)
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert (figures["a"], figures["b"]) == ("open, parallel", "open, mesh-only")
    for name in ("camera_to_mesh", "pipeline"):
        ratio = figures["ratios"][name]["p50"]
        assert 0 < ratio["low"] <= ratio["high"]
        assert set(figures[f"{name}_ms"]) == {"a", "b"}
    monkeypatch.setenv("COLUMNS", "80")
    told = command("profile", "open", "--overhead", *asked).out
    assert "B: open, parallel, profiled over A: open, parallel\n6 frames, each through both" in told
    for row in ("camera to mesh pairs", "pipeline p50", "cpu p95"):
        assert row in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_photo_is_profiled_again_and_again(
    astronaut: NDArray[np.uint8],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), astronaut)
    asked = ("profile", "open", "--source", photo, "--frames", 3, *QUICK)
    monkeypatch.setenv("COLUMNS", "80")
    told = command(*asked, "--fast").out
    for row in ("camera to mesh  ", "  engine landmarks", "own overhead", "memory: "):
        assert f"\n{row}" in told
    assert max(map(len, told.splitlines())) <= 80
    assert "expected a camera, stream or video" in command(*asked).error


def test_mistakes(video: Path, command: Command, tmp_path: Path) -> None:
    asked = ("profile", "open", "--source", video, "--fast", "--frames", 1, *QUICK)
    nowhere = tmp_path / "none" / "x.json"
    assert "there is no folder" in command(*asked, "--trace", nowhere).error
    for given in (
        ("--trace", tmp_path / "x.json"),
        ("--plot", "x.png"),
        ("--no-draw",),
        ("--fast",),
    ):
        for other in (("--vs", "serial"), ("--overhead",)):
            asked_two = ("profile", "open", "--source", video, *given, *other)
            assert "are of one pipeline" in command(*asked_two).error
    assert "leave one out" in command("profile", "open", "--vs", "serial", "--overhead").error
    assert "name a .png" in command(*asked, "--plot", tmp_path / "plot.txt").error
    assert "topology 'fast'" in command(*asked, "--topology", "fast").error
    assert "does not exist" in command("profile", "open", "--source", video, "--vs", "lost").error
    assert "no such file" in command("profile", "open", "--source", "lost.mp4").error


def test_recorded_people_are_the_same(
    walk: list[NDArray], load_open: Callable[..., Pipeline]
) -> None:
    recorder = Recorder()
    plain, recorded = load_open(), load_open(recorder=recorder)
    for image in walk[:3]:
        (one,), (other,) = plain(image), recorded(image)
        np.testing.assert_array_equal(one.vertices, other.vertices)
        assert one.latency_ms.keys() == other.latency_ms.keys()
    kinds = {span.kind for span in recorder.spans}
    assert kinds == {"find", "prepare", "enqueue", "collect", "engine"}
    recorded.reset()
    assert recorded.detector_runs == plain.detector_runs


def test_side_by_side_branches_have_lines_of_their_own(
    walk: list[NDArray], load_open: Callable[..., Pipeline]
) -> None:
    recorder = Recorder()
    with load_open(recorder=recorder, side_by_side=True) as pipeline:
        pipeline(walk[0])
    assert len({span.thread for span in recorder.spans}) == 2


def test_frames_in_the_callers_thread_begin_again(video: Path) -> None:
    with timed_frames(str(video), live=False) as source:
        frames = [frame for frame, _ in zip(source, range(9), strict=False)]
    assert [frame.cut for frame in frames] == [i in (0, 6) for i in range(9)]
    assert all(frame.captured_ns < frame.received_ns for frame in frames)
    with pytest.raises(InputError, match="no such file"), timed_frames("lost", live=False) as lost:
        next(iter(lost))
