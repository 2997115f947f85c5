"""`pchmr convert` as a user runs it, and one line for each mistake."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bvh_reader import read_bvh
from command_line import Outcome, read_npz, write_video
from glb_player import Player
from numpy.typing import NDArray
from people_made_up import FACES
from recordings_made_up import ball, write_results

from pchmr.exchange.recording import read_recording
from pchmr.results import ResultWriter

Command = Callable[..., Outcome]


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return write_results(tmp_path / "run.npz", {1: [0, 1, 2], 2: [1]})


def test_from_video_to_every_format(walk: list[NDArray], command: Command, tmp_path: Path) -> None:
    video = write_video(tmp_path / "walk.mp4", walk[:3])
    out = tmp_path / "walk.npz"
    options = ("--backend", "onnxruntime", "--threads", 1)
    assert command("run", video, "-o", tmp_path / "walk_mesh.mp4", *options).code == 0
    out = tmp_path / "walk_mesh.npz"
    stored = read_npz(out)
    done = command("convert", out, "-o", tmp_path / "mesh.glb")
    assert done.code == 0
    assert "person 0 (3 frames)" in done.out
    for frame in range(3):
        (shown,) = Player(tmp_path / "mesh.glb").at(float(np.float32(frame / 25)))
        np.testing.assert_allclose(
            shown.positions, stored["vertices"][frame] * (1, -1, -1), atol=2e-6
        )
    done = command("convert", out, "-o", tmp_path / "motion.bvh")
    assert done.code == 0
    assert "3 frames at 25 a second; the body lies" in done.out
    bvh = read_bvh(tmp_path / "motion.bvh")
    head, mesh = bvh.positions()["head"], stored["vertices"] * (1, -1, -1)
    assert (np.abs(head - mesh.mean(1)) < 1).all()
    assert command("convert", out, "-o", tmp_path / "new" / "smpl.npz").code == 0
    residual = read_npz(tmp_path / "new" / "smpl.npz")["residual_mean_mm"]
    assert residual.shape == (3,)
    assert (residual > 0).all()
    assert (residual < 25).all()


def test_a_rerun_recording_holds_the_vertices(
    made_up: Path, command: Command, tmp_path: Path
) -> None:
    chunks = pytest.importorskip("rerun.chunk")
    assert command("convert", made_up, "-o", tmp_path / "run.rrd").code == 0
    rows = {}
    for chunk in chunks.RrdReader(tmp_path / "run.rrd").store().stream():
        batch = chunk.to_record_batch()
        if str(chunk.entity_path) == "/world/person_1/mesh" and not chunk.is_static:
            columns = (batch["frame"], batch["Mesh3D:vertex_positions"])
            for frame, value in zip(*(column.to_pylist() for column in columns), strict=True):
                rows[frame] = np.array(value, np.float32)
    assert rows.keys() == {0, 1, 2}
    for frame, vertices in rows.items():
        np.testing.assert_array_equal(vertices, ball(1, frame))


def test_a_rerun_recording_on_a_full_disk(
    made_up: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun = pytest.importorskip("rerun")

    def failed(stream: object, *, timeout_sec: float) -> None:
        raise RuntimeError("File-writer thread shut down prematurely")

    with monkeypatch.context() as patch:
        patch.setattr(rerun.RecordingStream, "flush", failed)
        error = command("convert", made_up, "-o", tmp_path / "run.rrd").error
    assert "run.rrd cannot be written (File-writer thread shut down prematurely): make" in error
    assert not list(tmp_path.glob("run.rrd*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "mesh.obj"), "expected a name that ends in .glb, .bvh, .npz or .rrd"),
        (("-o", "x.glb", "--person", 5), r"person 5 is not in the results; they hold person 1 (3"),
        (("-o", "x.bvh"), "the results do not name their bundle"),
        (("-o", "x.bvh", "--bundle", "open"), "bundle open has another body than the results"),
        (("-o", "run.npz"), "is the input"),
        (("-o", "run.npz/x.glb"), "cannot be written"),
        (("-o", "run.npz/x.rrd"), "cannot be written"),
        (("-o", "x.glb", "--group", "serial"), "leave --group out"),
        (("-o", "x.bvh", "--flat"), "--flat is of .glb"),
        (("-o", "x.glb", "--bundle", "open"), "--bundle is of .bvh and .npz"),
    ],
)
def test_mistakes(
    arguments: tuple[object, ...],
    message: str,
    made_up: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if ".rrd" in str(arguments):
        pytest.importorskip("rerun")
    monkeypatch.chdir(made_up.parent)
    assert message in command("convert", "run.npz", *arguments).error


def test_files_that_are_no_results(command: Command, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "mesh.glb")
    assert "does not exist" in command("convert", tmp_path / "none.npz", *out).error
    (tmp_path / "text.npz").write_text("no")
    assert "is no whole npz" in command("convert", tmp_path / "text.npz", *out).error
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert "holds no vertices" in command("convert", tmp_path / "other.npz", *out).error
    np.savez(tmp_path / "part.npz", vertices=np.zeros((1, 5, 3)))
    assert "cannot be read as results" in command("convert", tmp_path / "part.npz", *out).error


def test_people_who_were_not_valid_are_left_out(tmp_path: Path, command: Command) -> None:
    with np.load(write_results(tmp_path / "run.npz", {1: [0, 1, 2]})) as stored:
        arrays = dict(stored)
    arrays["valid"][1] = False
    arrays["vertices"][2, 0] = np.nan
    np.savez(tmp_path / "some.npz", **arrays)
    assert read_recording(tmp_path / "some.npz").track().frame.tolist() == [0]
    arrays["valid"][:] = False
    np.savez(tmp_path / "none.npz", **arrays)
    assert "holds nobody" in command("convert", tmp_path / "none.npz", "-o", "x.glb").error


def test_a_run_that_found_nobody(tmp_path: Path, command: Command) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES) as results:
        results.add(0, [])
    assert "holds nobody" in command("convert", results.path, "-o", "x.glb").error


def test_runs_kept_apart_are_named(tmp_path: Path, command: Command) -> None:
    with np.load(write_results(tmp_path / "run.npz", {1: [0, 1]})) as stored:
        once = {"faces", "frames"}
        arrays = {
            name if name in once else f"{group}_{name}": array
            for group in ("serial", "parallel")
            for name, array in stored.items()
        }
    np.savez(tmp_path / "both.npz", **arrays)
    out = ("-o", tmp_path / "mesh.glb")
    error = command("convert", tmp_path / "both.npz", *out).error
    assert "holds parallel, serial: name one of them with --group" in error
    assert command("convert", tmp_path / "both.npz", *out, "--group", "serial").code == 0
    assert len(Player(tmp_path / "mesh.glb").at(0.0)) == 1
