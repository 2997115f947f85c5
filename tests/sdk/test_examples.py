"""The README's Python and the programs of examples/ run, and give what they say."""

import csv
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import write_video
from glb_player import Player
from numpy.typing import NDArray

from pchmr_engines.bundle import Bundle

ROOT = Path(__file__).parents[2]
Image = NDArray[np.uint8]
Example = Callable[..., str]

pytestmark = pytest.mark.usefixtures("open_bundle")


@pytest.fixture
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Example:
    """`example(name, ...)`: run a program of examples/ in the test's folder; what it prints."""

    def run(name: str, *arguments: object) -> str:
        path = str(ROOT / "examples" / name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", [path, *map(str, arguments)])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_python_of_the_readme(
    astronaut: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", astronaut)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == "0 (13492, 3) (24, 3)\n"


def test_examples_are_short() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 60, path.name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("video_to_glb.py", ()), ("knee_angles.py", ()), ("latency_profile.py", ("", 4))],
)
def test_without_a_video_it_is_the_demos(
    name: str,
    arguments: tuple[object, ...],
    walk: list[Image],
    example: Example,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = write_video(tmp_path / "few.mp4", walk)
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: few)
    assert len(example(name, *arguments)) > 20
    assert (tmp_path / "people.glb").exists() == (name == "video_to_glb.py")


def test_a_photo_without_arguments(example: Example, tmp_path: Path) -> None:
    example("photo.py")
    assert {path.name for path in tmp_path.iterdir()} == {"people.png", "people.obj"}


@pytest.mark.parametrize("name", ["knee_angles", "latency_profile", "photo", "video_to_glb"])
def test_what_cannot_be_read_is_one_line(name: str, example: Example) -> None:
    with pytest.raises(SystemExit, match=r"^none\.mp4: [Nn]o such file.*; expected a "):
        example(f"{name}.py", "none.mp4")


def test_without_a_camera_it_says_so_in_a_line(example: Example) -> None:
    with pytest.raises(SystemExit, match="camera 97 gives no picture; expected a connected camera"):
        example("realtime_webcam.py", 97)


def test_photo(two_people: Image, open_bundle: Bundle, example: Example, tmp_path: Path) -> None:
    photo, drawn, obj = (tmp_path / name for name in ("photo.png", "people.png", "people.obj"))
    cv2.imwrite(str(photo), two_people)
    example("photo.py", photo, drawn, obj)
    changed = (cv2.imread(str(drawn)) != two_people).any(2)
    assert 0.005 < changed.mean() < 0.3
    lines = [line.split() for line in obj.read_text().splitlines()]
    body = open_bundle.body()
    count = sum(kind == "o" for kind, *_ in lines)
    assert count >= 2
    vertices = np.array([rest for kind, *rest in lines if kind == "v"], float)
    faces = np.array([rest for kind, *rest in lines if kind == "f"], int)
    assert vertices.shape == (count * len(body["v_template"]), 3)
    assert vertices[:, 2].max() < 0  # all before the viewer, who looks along -z
    np.testing.assert_array_equal(np.unique(faces), np.arange(1, len(vertices) + 1))
    first = vertices[: len(body["v_template"])]
    assert 1.2 < np.ptp(first[:, 1]) < 2.2  # metres


def test_video_to_glb(walk: list[Image], example: Example, tmp_path: Path) -> None:
    video, glb = write_video(tmp_path / "walk.mp4", walk[:3], 10), tmp_path / "walk.glb"
    assert "walk.glb: person 0 (3 frames)" in example("video_to_glb.py", video, glb)
    before, after = (
        shown.positions for seconds in (0.0, 0.2) for shown in Player(glb).at(seconds)[:1]
    )
    assert before.shape == (13492, 3)
    assert 0.005 < np.abs(after - before)[:, :2].max() < 0.3  # a fifth of a second


def test_latency_profile(walk: list[Image], example: Example, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", walk)
    headline, includes, *parts = example("latency_profile.py", video, 4).splitlines()
    assert re.match(r"camera to mesh: p50 \d+\.\d+ ms, p95 .* dropped", headline)
    assert "to calibrated vertices in memory" in includes
    assert any(line.startswith("engine landmarks") for line in parts)


def test_knee_angles(walk: list[Image], example: Example, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", walk[:3], 10)
    rows = list(csv.DictReader(example("knee_angles.py", video).splitlines()))
    assert [row["seconds"] for row in rows] == ["0.000", "0.100", "0.200"]
    angles = np.array([[float(row["left_deg"]), float(row["right_deg"])] for row in rows])
    assert ((angles > 60) & (angles <= 180)).all()
    assert np.abs(np.diff(angles, axis=0)).max() < 25  # a tenth of a second apart
