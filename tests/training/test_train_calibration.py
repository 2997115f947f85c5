"""Training A and W: it helps, repeats, and its file is read back; motion of both layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_body import person
from typer.testing import CliRunner

from pchmr.bodies import Body, body_from_arrays
from pchmr_engines.errors import InputError
from pchmr_export import calibration_weights
from pchmr_training.calibration import Options
from pchmr_training.calibration_file import (
    TrainedCalibration,
    digest_of,
    read_calibration,
    write_calibration,
)
from pchmr_training.data import Clips, as_motion, read_clips
from pchmr_training.smpl import SmplLayer
from pchmr_training.train_calibration import Settings, draw_examples, load_module, mpve_mm, train
from pchmr_training.train_cli import train as verb

SETTINGS = Settings(steps=60, batch=6, seed=3)


@pytest.fixture(scope="module")
def body() -> Body:
    return body_from_arrays(person())


def random_clips(count: int, frames: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [0.25 * rng.standard_normal((frames, 24, 3)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips(random_clips(3), random_clips(1))


@pytest.fixture(scope="module")
def trained(body: Body, clips: Clips) -> TrainedCalibration:
    return train(body, "smpl24", clips, SETTINGS, Options(shape_compensation=False), quiet=True)


def test_training_helps_on_held_out_motion(trained: TrainedCalibration) -> None:
    meta = trained.meta
    assert meta["mpve_untrained_mm"] < 0.5 * meta["mpve_source_mm"]
    assert meta["mpve_trained_mm"] < 0.99 * meta["mpve_untrained_mm"]
    assert trained.weights.indices.shape[1] <= SETTINGS.bones


def test_the_seed_gives_the_weights(body: Body, clips: Clips) -> None:
    one, same, other = (
        train(body, "smpl24", clips, Settings(steps=5, batch=2, seed=seed), quiet=True).weights
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)


def test_the_file_is_read_back(
    trained: TrainedCalibration, body: Body, clips: Clips, tmp_path: Path
) -> None:
    """And gives what was reported."""
    path = tmp_path / "calibration.npz"
    write_calibration(path, trained)
    stored = read_calibration(path)
    np.testing.assert_allclose(stored.weights.values, trained.weights.values, atol=1e-3)
    np.testing.assert_allclose(stored.weights.values.sum(1), 1, atol=1e-6)
    assert stored.meta["mpve_trained_mm"] == trained.meta["mpve_trained_mm"]
    rest_joints = body.regressor("smpl24") @ body.v_template
    assert stored.fits(body.faces, rest_joints + 1e-4)
    assert not stored.fits(body.faces, rest_joints + 1e-2)
    assert not stored.fits(body.faces[:, ::-1], rest_joints)
    assert stored.faces == digest_of(body.faces)

    layer = SmplLayer(body)
    module = load_module(stored, layer)
    draw = torch.Generator().manual_seed(SETTINGS.seed + 1)
    held_out = [
        draw_examples(layer, "smpl24", as_motion(clips.held_out), SETTINGS, draw, widen=False)
        for _ in range(16)
    ]
    assert mpve_mm(module, held_out, 0) == pytest.approx(stored.meta["mpve_trained_mm"], rel=2e-3)


def test_perceptrons_are_trained_and_kept(body: Body, clips: Clips, tmp_path: Path) -> None:
    settings = Settings(steps=6, batch=2)
    trained = train(body, "h36m17", clips, settings, Options(self_rotation=True), quiet=True)
    write_calibration(tmp_path / "c.npz", trained)
    module = load_module(read_calibration(tmp_path / "c.npz"), SmplLayer(body))
    assert module.self_rotation is not None
    assert module.shape_compensation is not None
    assert module.self_rotation.last.weight.abs().max() > 0
    assert module.shape_compensation.perceptron.last.weight.abs().max() > 0


def test_another_file_is_refused(tmp_path: Path, body: Body) -> None:
    np.savez(tmp_path / "other.npz", meta="{}")
    with pytest.raises(InputError, match="holds no calibration weights"):
        read_calibration(tmp_path / "other.npz")
    with pytest.raises(InputError, match="holds no calibration weights"):
        read_calibration(tmp_path / "missing.npz")


def test_weights_of_another_body_are_refused(trained: TrainedCalibration) -> None:
    other = SmplLayer(body_from_arrays(person(200)))
    with pytest.raises(InputError, match="trained for another body"):
        load_module(trained, other)


def test_splits_of_our_layout(tmp_path: Path) -> None:
    names = {"walk_1": "train", "walk_2": "train", "jump": "test"}
    clips = dict(zip(names, random_clips(3), strict=True))
    np.savez(tmp_path / "clips.npz", **{f"{n}__poses": clip for n, clip in clips.items()})
    index = [{"name": name, "split": split} for name, split in names.items()]
    (tmp_path / "index.json").write_text(json.dumps(index))
    for path in (tmp_path, tmp_path / "clips.npz"):
        found = read_clips(path)
        assert [len(found.train), len(found.held_out)] == [2, 1]
        np.testing.assert_array_equal(found.held_out[0], clips["jump"])


def test_an_index_that_says_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", a__poses=random_clips(1)[0])
    (tmp_path / "index.json").write_text('{"a": "train"}')
    with pytest.raises(InputError, match="does not say which clips to train on"):
        read_clips(tmp_path)
    (tmp_path / "index.json").write_text('[{"name": "a", "split": "train"}]')
    with pytest.raises(InputError, match="1 clips to train on and 0 held out"):
        read_clips(tmp_path)


def test_amass_layouts(tmp_path: Path) -> None:
    """SMPL-H's 156 numbers and SMPL-X's 165: 22 joints are SMPL's; a `shape.npz` has no motion."""
    clips = random_clips(12)
    for i, clip in enumerate(clips):
        folder = tmp_path / f"subject{i % 2}"
        folder.mkdir(exist_ok=True)
        numbers = np.zeros((len(clip), 165 if i % 2 else 156))
        numbers[:, :66] = clip.reshape(len(clip), -1)[:, :66]
        numbers[:, 66:] = 7  # fingers, jaw
        np.savez(folder / f"clip{i}_poses.npz", poses=numbers, trans=np.zeros((len(clip), 3)))
    np.savez(tmp_path / "subject0" / "shape.npz", betas=np.zeros(16), gender="female")
    found = read_clips(tmp_path)
    assert [len(found.train), len(found.held_out)] == [10, 2]
    np.testing.assert_allclose(found.train[0][:, :22], clips[0][:, :22])
    assert not found.train[0][:, 22:].any()
    alone = read_clips(tmp_path / "subject0" / "clip0_poses.npz")
    assert [len(alone.train[0]), len(alone.held_out[0])] == [27, 3]


def test_motion_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no body poses; expected a clips\.npz"):
        read_clips(tmp_path)
    (tmp_path / "page.npz").write_text("<html>")
    with pytest.raises(InputError, match="not readable motion"):
        read_clips(tmp_path / "page.npz")
    np.savez(tmp_path / "short.npz", poses=np.zeros((5, 21)))
    with pytest.raises(InputError, match=r"is \(5, 7, 3\)"):
        read_clips(tmp_path / "short.npz")
    np.savez(tmp_path / "nan.npz", poses=np.full((5, 72), np.nan))
    with pytest.raises(InputError, match="not finite"):
        read_clips(tmp_path / "nan.npz")


def test_command(tmp_path: Path) -> None:
    np.savez(tmp_path / "body.npz", **person())
    np.savez(tmp_path / "clips.npz", a__poses=random_clips(1, 60)[0])
    out = tmp_path / "new" / "weights.npz"
    arguments = f"--body {tmp_path}/body.npz --skeleton h36m17 --motion {tmp_path}/clips.npz"
    options = f"-o {out} --steps 4 --batch 2 --no-shape-compensation --bones 3"
    result = CliRunner().invoke(verb, ["calibration", *arguments.split(), *options.split()])
    assert result.exit_code == 0, result.output
    assert "held-out frames" in result.output
    stored = read_calibration(out)
    assert stored.skeleton == "h36m17"
    assert stored.meta["command"].endswith("--seed 0 --no-shape-compensation")
    assert stored.weights.indices.shape[1] <= 3
    assert not stored.state


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--skeleton", "h36m", "--skeleton h36m: expected one of smpl24, h36m17"),
        ("-o", ".", "is a folder; expected a .npz to write"),
        ("-o", "body.npz/weights.npz", "expected a .npz to write"),
        ("--motion", "none.npz", "there is no file or folder none.npz"),
        ("--body", "none.npz", "none.npz is not a file"),
        ("--regressor", "h36m17", "expected NAME=FILE.npy"),
    ],
)
def test_command_refuses_before_it_trains(
    option: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("body.npz", **person())
    np.savez("clips.npz", a__poses=random_clips(1, 60)[0])
    arguments = {"--body": "body.npz", "--skeleton": "h36m17", "--motion": "clips.npz", "-o": "c"}
    given = [text for pair in {**arguments, option: value}.items() for text in pair]
    result = CliRunner().invoke(verb, ["calibration", *given])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_shipped_weights() -> None:
    """Of the open body: small, better than untrained ones, and given for no other body."""
    path = calibration_weights.DATA / "calibration_smpl24.npz"
    assert path.stat().st_size < 400_000
    stored = read_calibration(path)
    assert stored.weights.indices.shape[1] <= 4
    assert stored.weights.bones_needed == 23
    assert stored.meta["mpve_trained_mm"] < stored.meta["mpve_untrained_mm"]
    assert stored.meta["command"].startswith("pchmr train calibration")
    assert "/" not in stored.meta["command"]
    assert calibration_weights.trained_calibration("smpl24", person()) is None
    assert calibration_weights.trained_calibration("lsp14", {}) is None
