"""`pchmr webcam` and the example, with a video file as the camera."""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Outcome, count_frames, read_npz, write_video
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Run = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]
ONE_THREAD = ("--backend", "onnxruntime", "--threads", "1")

pytestmark = pytest.mark.usefixtures("open_bundle")


@pytest.fixture
def clip(walk: list[Image], tmp_path: Path) -> Path:
    """Six frames of somebody."""
    return write_video(tmp_path / "walk.mp4", [frame[40:500, 450:850] for frame in walk])


def test_a_video_to_its_end(command: Run, clip: Path, tmp_path: Path) -> None:
    outcome = command(
        *("webcam", clip, "--no-draw", "--every-frame", "-o", tmp_path / "out", *ONE_THREAD)
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("6 frames, ")
    assert "0 dropped" in outcome.out
    for words in ("camera to mesh  ", "capture wait and decoding", "queue", "inference"):
        assert words in outcome.out
    assert "drawing  " not in outcome.out
    assert f"recorded {tmp_path / 'out' / 'walk.mp4'} and" in outcome.out
    stored = read_npz(tmp_path / "out" / "walk.npz")
    assert count_frames(tmp_path / "out" / "walk.mp4") == stored["frames"] == 6
    assert len(stored["vertices"]) >= 5
    assert stored["t_ns"].max() == pytest.approx(5 / 25 * 1e9, rel=1e-3)


def test_footage_of_nobody(command: Run, tmp_path: Path) -> None:
    """It says so, and shows no camera to mesh; nor does a profile."""
    empty = write_video(tmp_path / "wall.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 12)
    outcome = command("webcam", empty, "--no-draw", "--every-frame", *ONE_THREAD)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("12 frames, nobody was seen, ")
    assert "camera to mesh" not in outcome.out
    profiled = ("profile", "open", "--source", empty, "--frames", 2, *ONE_THREAD)
    for other in ("--fast", "--overhead"):
        assert "nobody was seen in " in command(*profiled, other).error


def test_a_loop_with_a_limit(command: Run, clip: Path) -> None:
    outcome = command(
        *("webcam", clip, "--no-draw", "--every-frame", "--loop", "--frames", 14),
        *("--topology", "serial", "--people", 2, *ONE_THREAD),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("14 frames, ")


def test_a_loop_for_some_time(command: Run, clip: Path) -> None:
    outcome = command("webcam", clip, "--no-draw", "--loop", "--seconds", 0.1, *ONE_THREAD)
    assert outcome.code == 0, outcome.err
    assert "camera to mesh  " in outcome.out


def test_the_page(command: Run, clip: Path) -> None:
    outcome = command("webcam", clip, "--headless", "--every-frame", *ONE_THREAD)
    assert outcome.code == 0, outcome.err
    assert "look at http://127.0.0.1:" in outcome.err
    assert outcome.out.startswith("6 frames, ")
    assert "apart: display wait and drawing  " in outcome.out


def test_a_window(command: Run, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    camera = clip.with_suffix(".json")
    camera.write_text(json.dumps({"fx": 600, "fy": 600, "cx": 200, "cy": 230}))
    outcome = command("webcam", clip, "--every-frame", "--camera-file", camera, *ONE_THREAD)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("6 frames, ")
    assert "apart: display wait and drawing  " in outcome.out


def test_what_cannot_be_opened(command: Run, clip: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("97",), "camera 97 gives no picture"),
        ((tmp_path / "none.mp4",), "no such file"),
        (("rtsp://127.0.0.1:9/x",), "check the address"),
        ((clip, "--camera-file", clip), "is no camera"),
        ((clip, "--topology", "sideways"), "topology 'sideways'"),
        ((clip, "--no-draw", "-o", "x.png"), "expected a folder or one of"),
        ((clip, "--no-draw", "-o", clip), "is the input"),
        ((clip, "--headless", "--host", "192.0.2.1"), "cannot serve a page"),
        ((clip, "--host", "127.0.0.1"), "--host and --port are of the page"),
        ((clip, "--headless", "--no-draw", "--port", 8000), "--host and --port are of the page"),
        ((clip, "--reconnect", 3), "--reconnect is of a camera or stream"),
    ):
        assert said in command("webcam", *arguments, *ONE_THREAD).error


def test_an_interrupt_ends_it_cleanly(clip: Path, tmp_path: Path) -> None:
    """Ctrl-C is how a live session ends: no error, and both files are whole."""
    main = (  # a test run in the background of a shell inherits SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pchmr.cli.main import main; main()"
    )
    arguments = ["webcam", str(clip), "--no-draw", "--loop", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", main, *arguments, *ONE_THREAD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        rows = list((tmp_path / "out").glob(".results-*/rows-/vertices"))
        if rows and rows[0].stat().st_size:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "recorded" in out
    assert "Traceback" not in err
    stored = read_npz(tmp_path / "out" / "walk.npz")
    assert count_frames(tmp_path / "out" / "walk.mp4") == stored["frames"] >= 1
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["walk.mp4", "walk.npz"]


def test_the_example(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = ROOT / "examples" / "realtime_webcam.py"
    for display, option in (("", ["--headless"]), ("dummy", [])):
        monkeypatch.setenv("SDL_VIDEODRIVER", display)
        monkeypatch.setattr("sys.argv", [str(example), str(clip), "--frames", "2", *option])
        runpy.run_path(str(example), run_name="__main__")
        assert "2 frames, " in capsys.readouterr().out


def test_the_python_of_the_document(
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "docs" / "realtime.md").read_text("utf-8")
    session, futures = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(clip.parent)
    exec(compile(session, "realtime.md", "exec"), {})
    index, people, ms = capsys.readouterr().out.splitlines()[-1].split()
    assert int(index) <= 5
    assert int(people) in (0, 1)
    assert float(ms) > 0
    exec(compile(futures, "realtime.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) == 6
