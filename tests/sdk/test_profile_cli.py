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
    files = {name: tmp_path / f"{name}.json" for name in ("json", "trace")}
    plot = tmp_path / "plot.png"
    outputs = [x for name, path in files.items() for x in (f"--{name}", path)]
    asked = ("--source", video, "--fast", "--frames", 8, *outputs, *QUICK)
    drawn = ("--plot", plot) if _matplotlib() else ()
    done = command("profile", "open", *asked, *drawn)
    assert done.code == 0, done.err
    assert "camera to mesh" in done.out
    figures = json.loads(files["json"].read_text())
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
    assert "smoothing lags" in done.out
    assert parts["engine", "landmarks"]["megamacs"] == pytest.approx(351, abs=2)
    assert figures["megamacs_a_frame"] > 351
    events = json.loads(files["trace"].read_text())["traceEvents"]
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
    out = tmp_path / "live.json"
    done = command(
        *("profile", "open", "--source", video, "--frames", 6, "--no-draw", "--json", out, *QUICK),
        *("--topology", "serial", "--no-smooth"),
    )
    assert done.code == 0, done.err
    figures = json.loads(out.read_text())
    assert figures["topology"] == "serial"
    assert "due by its own clock" in figures["includes"]
    assert figures["smoothing_lag_ms"]["p50"] is None
    assert figures["frames"] == 6  # the file of six frames began again
    assert ("draw", "overlay") not in {(p["kind"], p["name"]) for p in figures["parts"]}


def test_two_topologies_as_ratios(
    video: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pchmr.profiling.compare.ROUNDS", 1)
    out = tmp_path / "ratios.json"
    asked = ("--source", video, "--frames", 6, "--json", out, *QUICK)
    done = command("profile", "open", "--vs", "mesh-only", *asked)
    assert done.code == 0, done.err
    assert "B open, mesh-only over A open, parallel" in done.out
    figures = json.loads(out.read_text())
    assert (figures["a"], figures["b"]) == ("open, parallel", "open, mesh-only")
    for name in ("camera_to_mesh", "pipeline"):
        ratio = figures["ratios"][name]["p50"]
        assert 0 < ratio["low"] <= ratio["high"]
        assert set(figures[f"{name}_ms"]) == {"a", "b"}
    done = command("profile", "open", "--overhead", "--source", video, "--frames", 4, *QUICK)
    assert "B open, parallel, profiled over A open, parallel" in done.out


def test_a_photo_is_profiled_again_and_again(
    astronaut: NDArray[np.uint8], command: Command, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), astronaut)
    asked = ("profile", "open", "--source", photo, "--frames", 3, *QUICK)
    assert command(*asked, "--fast").code == 0
    assert "expected a camera, stream or video" in command(*asked).error


def test_mistakes(video: Path, command: Command, tmp_path: Path) -> None:
    asked = ("profile", "open", "--source", video, "--fast", "--frames", 1, *QUICK)
    nowhere = tmp_path / "none" / "x.json"
    for option in ("--json", "--trace"):
        assert "there is no folder" in command(*asked, option, nowhere).error
    compared = command(*asked, "--vs", "serial", "--trace", tmp_path / "x.json")
    assert "are of one pipeline" in compared.error
    assert "name a .png" in command(*asked, "--plot", tmp_path / "plot.txt").error
    assert "topology 'fast'" in command(*asked, "--topology", "fast").error
    assert "does not exist" in command(*asked, "--vs", "lost").error
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
