"""The command line as a user has it: what a run writes, and the other verbs."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest
import typer
from command_line import Outcome, count_frames, read_npz, write_video
from numpy.typing import NDArray

import pchmr
from pchmr.__main__ import main as start
from pchmr.cli import main as cli
from pchmr.cli.doctor import OPTIONAL
from pchmr.media import write_photo
from pchmr_engines.bundle import Bundle
from pchmr_kernels import native

Image = NDArray[np.uint8]
Run = Callable[..., Outcome]


@pytest.fixture
def run(command: Run, open_bundle: Bundle) -> Run:
    """`run(input, out, ...)`: `pchmr run` with the open bundle."""

    def start(given: Path, out: Path, *options: object) -> Outcome:
        return command(
            *("run", given, "-o", out, "--bundle", open_bundle.root),
            *("--backend", "onnxruntime", "--threads", 1, *options),
        )

    return start


@pytest.fixture
def photo(astronaut: Image, tmp_path: Path) -> Path:
    return write_photo(tmp_path / "astronaut.png", astronaut)


# pchmr run


def test_a_photo(run: Run, photo: Path, astronaut: Image, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    outcome = run(photo, out, "--write-json")
    assert outcome.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "astronaut.json",
        "astronaut.npz",
        "astronaut.png",
    ]
    drawn = cv2.imread(str(out / "astronaut.png"))
    assert drawn.shape == astronaut.shape
    assert 0.1 < (drawn != astronaut).any(-1).mean() < 0.9
    stored = read_npz(out / "astronaut.npz")
    vertices, faces = stored["vertices"], stored["faces"]
    assert vertices.shape[0] == 1
    assert faces.max() == vertices.shape[1] - 1
    (frame,) = json.loads((out / "astronaut.json").read_text())["frames"]
    np.testing.assert_allclose(frame["people"][0]["joints"], stored["joints"][0], atol=1e-5)
    for said in (
        "people in 1 of 1 frames, 1 in all;",
        "camera to mesh p50",
        *map(str, out.iterdir()),
    ):
        assert said in outcome.out


def test_a_photo_into_a_named_file(run: Run, photo: Path, tmp_path: Path) -> None:
    assert run(photo, tmp_path / "seen.jpg").code == 0
    assert cv2.imread(str(tmp_path / "seen.jpg")).shape == (512, 512, 3)
    assert len(read_npz(tmp_path / "seen.npz")["vertices"]) == 1
    assert not (tmp_path / "seen.json").exists()


def test_a_video_is_followed_and_drawn(run: Run, walk: list[Image], tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", walk, fps=25.0)
    outcome = run(video, tmp_path / "out", "--topology", "serial")
    assert outcome.code == 0
    stored = read_npz(tmp_path / "out" / "walk.npz")
    assert stored["frame"].tolist() == list(range(6))
    assert stored["t_ns"].tolist() == [40_000_000 * index for index in range(6)]
    assert len(set(stored["track_id"])) == 1
    with av.open(str(tmp_path / "out" / "walk.mp4")) as drawn:
        codec = drawn.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.width, codec.height) == (1768, 994)
    assert count_frames(tmp_path / "out" / "walk.mp4") == 6


def test_a_part_of_a_video(run: Run, walk: list[Image], tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", walk)
    outcome = run(
        video, tmp_path / "some.mp4", "--frames", 2, "--topology", "mesh-only", "--write-json"
    )
    assert outcome.code == 0
    assert count_frames(tmp_path / "some.mp4") == 2
    assert read_npz(tmp_path / "some.npz")["frames"] == 2
    frames = json.loads((tmp_path / "some.json").read_text(), parse_constant=pytest.fail)["frames"]
    assert frames[1]["people"][0]["target_joints"] is None


def test_a_folder_and_several_people(
    run: Run, two_people: Image, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "takes"
    folder.mkdir()
    photo.rename(folder / "take10.png")
    write_photo(folder / "take9.jpg", two_people)
    (folder / "broken.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not a photo")
    outcome = run(folder, tmp_path / "out", "--people", 2)
    assert outcome.code == 0
    assert "note: skipped" in outcome.err
    assert "broken.jpg begins with" in outcome.err
    overlays = sorted(path.name for path in (tmp_path / "out" / "overlay").iterdir())
    assert overlays == ["take10.png", "take9.jpg"]
    assert read_npz(tmp_path / "out" / "takes.npz")["frame"].tolist() == [0, 0, 1]
    assert "people in 2 of 2 frames, 3 in all" in outcome.out


def test_intrinsics_from_a_file(run: Run, photo: Path, tmp_path: Path) -> None:
    lens = tmp_path / "lens.json"
    lens.write_text('{"fx": 1500, "fy": 1500, "cx": 256, "cy": 256}')
    assert run(photo, tmp_path / "out", "--camera-file", lens).code == 0
    stored = read_npz(tmp_path / "out" / "astronaut.npz")
    assert stored["camera"].tolist() == [[1500, 1500, 256, 256]]


def test_intrinsics_from_flags(run: Run, photo: Path, tmp_path: Path) -> None:
    flags = ("--focal", 1500, "--center", "250,256")
    assert run(photo, tmp_path / "out", *flags).code == 0
    stored = read_npz(tmp_path / "out" / "astronaut.npz")
    assert stored["camera"].tolist() == [[1500, 1500, 250, 256]]
    error = run(photo, tmp_path / "out", "--detector", tmp_path / "none.onnx").error
    assert "none.onnx is not a file; expected a person detector in ONNX" in error


@pytest.mark.parametrize("out", ["o.mp4", "o.gif", "o.npz"])
def test_outputs_of_another_kind(out: str, command: Run, photo: Path, tmp_path: Path) -> None:
    error = command("run", photo, "-o", tmp_path / out).error
    assert f"{out} for a photo; expected a folder or one of" in error
    assert [path.name for path in tmp_path.iterdir()] == ["astronaut.png"]


def test_several_inputs(command: Run) -> None:
    """As a shell makes them of *.jpg."""
    error = command("run", "a.jpg", "b.jpg", "--people", 2, "c.jpg").error
    assert error == "pchmr: one input, not 3: give the folder that holds the photos"


def test_the_input_is_never_replaced(command: Run, photo: Path) -> None:
    before = photo.read_bytes()
    assert "is the input" in command("run", photo, "-o", photo.parent).error
    assert photo.read_bytes() == before


# pchmr demo


def test_the_demo_on_a_few_frames(
    command: Run,
    open_bundle: Bundle,
    walk: list[Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    video = write_video(tmp_path / "few.mp4", walk[:3])
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: video)
    out = tmp_path / ("out" + 80 * "_")  # longer than a line
    outcome = command("demo", "-o", out, "--bundle", open_bundle.root)
    assert outcome.code == 0, outcome.err
    for name in ("demo.mp4", "demo.png", "meshes.npz", "latency.json"):
        assert str(out / name) in outcome.out
    two_frames_of_one = (2 * 480, 5 * 480, 3)
    assert cv2.imread(str(out / "demo.png")).shape == two_frames_of_one
    assert sorted(path.name for path in out.iterdir()) == [
        *("demo.mp4", "demo.png", "latency.json", "meshes.npz"),
    ]
    assert count_frames(out / "demo.mp4") == 3
    stored, latency = read_npz(out / "meshes.npz"), json.loads((out / "latency.json").read_text())
    for topology in ("serial", "parallel"):
        assert stored[f"{topology}_frame"].tolist() == [0, 1, 2]
        summary = latency[topology]
        assert (summary["frames"], summary["people"]) == (3, 3)
        assert 0 < summary["camera_to_mesh_ms"]["p50"] <= summary["camera_to_mesh_ms"]["p99"]
        assert summary["includes"]
        assert topology in outcome.out
    moved = stored["serial_vertices"] - stored["parallel_vertices"]
    assert 1e-3 < np.linalg.norm(moved, axis=-1).mean() < 0.3


def test_the_demo_of_nobody(
    command: Run, open_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "grey.mp4", [np.full((96, 160, 3), 99, np.uint8)] * 2)
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: video)
    outcome = command("demo", "-o", tmp_path / "out", "--bundle", open_bundle.root)
    assert outcome.code == 0, outcome.err
    assert cv2.imread(str(tmp_path / "out" / "demo.png")).shape == (360, 640, 3)


def test_the_demo_into_a_file(
    command: Run,
    open_bundle: Bundle,
    walk: list[Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: write_video(tmp_path / name, walk[:1]))
    (tmp_path / "out").write_text("a file")
    error = command("demo", "-o", tmp_path / "out", "--bundle", open_bundle.root).error
    assert "meshes.npz cannot be written" in error


# The other verbs


def test_the_installed_command_lists_its_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from pchmr.__main__ import main; main()", "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "", "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    for verb in ("assets", "demo", "doctor", "inspect", "run", "verify"):
        assert f" {verb} " in done.stdout


def test_the_version(command: Run) -> None:
    done = command("--version")
    assert (done.code, done.out) == (0, f"pchmr {pchmr.__version__}\n")


def test_a_verb_that_does_not_exist(command: Run) -> None:
    outcome = command("dance")
    assert outcome.code == 2
    assert "No such command 'dance'" in outcome.err


def test_a_verb_whose_packages_are_missing(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed, and says which extra brings them, whatever follows it."""
    entry = EntryPoint("teach", "pchmr_training.nothing_there:teach", "pchmr.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry, entry])
    assert "needs the extra train" in command("--help").out
    error = command("teach", "something", "--epochs", 3).error
    assert "teach cannot run here" in error
    assert "pip install 'pchmr[train]'" in error


@pytest.mark.parametrize(
    "arguments", [("networks",), ("networks", "verify"), ("train", "calibration")]
)
def test_training_verbs_without_pytorch(
    arguments: tuple[str, ...], command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cli", "train_cli"):
        monkeypatch.setattr(f"pchmr_training.{module}.find_spec", lambda name: None)
    outcome = command(*arguments)
    assert outcome.code == 1
    assert "needs the package 'torch'" in outcome.error
    assert "pip install 'pchmr[train]'" in outcome.error


def test_native_kernels_that_cannot_be_used(
    run: Run, command: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCHMR_ISA", "mmx")
    native.library.cache_clear()
    outcome = run(photo, tmp_path / "out")
    assert outcome.code == 1
    assert "'mmx' is not one of this machine's" in outcome.error
    assert "unset PCHMR_ISA" in outcome.error
    assert "unset PCHMR_ISA" in command("doctor", "--json").out
    monkeypatch.delenv("PCHMR_ISA")
    native.library.cache_clear()
    assert native.instruction_set() == native.instruction_sets()[-1]


class _Interrupted(ModuleType):
    def __getattr__(self, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_while_it_starts_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pchmr.cli.main", _Interrupted("main"))
    with pytest.raises(SystemExit) as exit:
        start()
    assert exit.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "bug", [RuntimeError("a bug"), ImportError("cannot import a bug", name="pchmr")]
)
def test_a_bug_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise bug

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("broken")(broken)
    monkeypatch.setattr(cli, "make_app", lambda: app)
    monkeypatch.setattr(sys, "argv", ["pchmr"])
    with pytest.raises(type(bug), match="a bug"):
        cli.main()


def test_doctor(command: Run) -> None:
    told = command("doctor")
    assert told.code == 0
    findings = json.loads(command("doctor", "--json").out)
    assert all(finding.keys() == {"ability", "ok", "found", "mend"} for finding in findings)
    abilities = {finding["ability"]: finding for finding in findings}
    assert abilities["native kernels"]["ok"]
    assert abilities["write H.264 video"]["ok"]
    assert "run engines (ONNX Runtime)" in abilities
    for backend in ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx", "torch-cuda"):
        finding = abilities[f"run engines ({backend})"]
        assert finding["ok"] or finding["mend"].startswith(("pip install 'pchmr[", "an NVIDIA GPU"))


def test_doctor_says_what_to_install(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    findings = {f["ability"]: f for f in json.loads(command("doctor", "--json").out)}
    for ability, _, _, extra in OPTIONAL:
        assert not findings[ability]["ok"]
        assert findings[ability]["mend"] == f"pip install 'pchmr[{extra}]'"
    monkeypatch.setenv("COLUMNS", "200")
    told = command("doctor").out
    assert all(f"pip install 'pchmr[{extra}]'" in told for extra in ("export", "train"))


def test_inspect(command: Run, open_bundle: Bundle) -> None:
    told = command("inspect", open_bundle.root)
    assert told.code == 0
    for stage in open_bundle.stages:
        assert stage in told.out
    assert "calibrates to: smpl24" in told.out
    manifest = json.loads(command("inspect", open_bundle.root, "--json").out)
    assert [stage["name"] for stage in manifest["stages"]] == list(open_bundle.stages)


def test_verify(command: Run, open_bundle: Bundle) -> None:
    outcome = command("verify", open_bundle.root, "--backend", "onnxruntime", "--json")
    assert outcome.code == 0
    gates = json.loads(outcome.out)
    assert {gate["stage"] for gate in gates} == set(open_bundle.stages)
    assert all(gate["passed"] for gate in gates)


def test_assets(command: Run, assets: Callable[[str], Path]) -> None:
    listed = command("assets")
    assert listed.code == 0
    assert "demo_video" in listed.out
    assert command("assets", "path", "astronaut").out.strip() == str(assets("astronaut"))
    assert "unknown asset 'moon'" in command("assets", "path", "moon").error


def test_a_warning_is_one_line(command: Run) -> None:
    """What to do, and not where in the code it was said."""
    assert command("assets", "list").code == 0
    assert warnings.formatwarning("untrained", UserWarning, "f.py", 3) == "note: untrained\n"
