"""Meshes as GLB, played by an independent reader: every frame exact, at its time, the right way
up."""

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from glb_player import Player
from recordings_made_up import FACES, PERIOD_NS, ball, write_results

from pchmr.exchange import glb
from pchmr.exchange.recording import read_recording
from pchmr_engines.errors import InputError

UP = np.array([1, -1, -1])
PERIOD = PERIOD_NS / 1e9
EXACT_M = 2e-6  # float32 of 5 m, twice: the base and the difference to it


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Person 1 is seen in frames 2..9 but 5, person 7 in frame 3."""
    frames = {1: [2, 3, 4, 6, 7, 8, 9], 7: [3]}
    path = tmp_path / "mesh.glb"
    glb.write_glb(path, read_recording(write_results(tmp_path / "run.npz", frames)))
    return path


def person(player: Player, seconds: float, name: str = "person 1") -> list[np.ndarray]:
    return [shown.positions for shown in player.at(seconds) if shown.name.startswith(name)]


@pytest.mark.parametrize("clip", [128, 3, 2, 1])
def test_each_frame_is_exact_at_its_time(
    clip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glb, "CLIP", clip)
    frames = [*range(9)]
    results = write_results(tmp_path / "run.npz", {1: frames})
    glb.write_glb(tmp_path / "mesh.glb", read_recording(results))
    player = Player(tmp_path / "mesh.glb")
    clips = [node for node in player.gltf.nodes if node.mesh is not None]
    assert len(clips) == math.ceil(9 / clip)
    for frame in frames:
        # Nothing rests on how a time at a cut is rounded: both clips hold that frame.
        for seconds in (frame * PERIOD - 1e-6, frame * PERIOD + 1e-6):
            (positions,) = person(player, seconds)
            np.testing.assert_allclose(positions, ball(1, frame) * UP, atol=1e-4)
        (positions,) = person(player, float(np.float32(frame * PERIOD)))
        np.testing.assert_allclose(positions, ball(1, frame) * UP, atol=EXACT_M)
    for frame in frames[:-1]:
        (positions,) = person(player, (frame + 0.5) * PERIOD)
        middle = (ball(1, frame) + ball(1, frame + 1)) / 2 * UP
        np.testing.assert_allclose(positions, middle, atol=1e-5)


def test_nobody_is_shown_where_nobody_was_seen(made: Path) -> None:
    player = Player(made)
    start = 2 * PERIOD  # the file begins with the first frame that holds someone
    for frame, seen in {2: 1, 3: 1, 4: 1, 5: 0, 6: 1, 9: 1}.items():
        assert len(person(player, frame * PERIOD - start + 1e-3)) == seen, frame
    for frame, seen in {2: 0, 3: 1, 4: 0, 9: 0}.items():
        assert len(person(player, frame * PERIOD - start + 1e-3, "person 7")) == seen, frame
    (positions,) = person(player, 6 * PERIOD - start)
    np.testing.assert_allclose(positions, ball(1, 6) * UP, atol=EXACT_M)


def test_a_player_without_animation_shows_one_mesh_of_each_run(made: Path) -> None:
    gltf = Player(made).gltf
    scales = [node.scale for node in gltf.nodes if node.mesh is not None]
    assert scales == [None, [0, 0, 0], [0, 0, 0]]


def test_normals_are_those_of_the_frame_and_point_outwards(made: Path) -> None:
    (shown,) = (mesh for mesh in Player(made).at(0.0) if mesh.name.startswith("person 1"))
    assert shown.normals is not None
    np.testing.assert_allclose(np.linalg.norm(shown.normals, axis=1), 1, atol=1e-6)
    outwards = shown.positions - shown.positions.mean(0)
    assert ((shown.normals * outwards).sum(1) > 0).all()
    mesh = trimesh.Trimesh(shown.positions, shown.faces, process=False)
    assert mesh.volume > 0
    later = Player(made).at(2 * PERIOD)[0]
    np.testing.assert_allclose(np.linalg.norm(later.normals, axis=1), 1, atol=1e-5)
    assert np.abs(later.normals - shown.normals).max() > 0.01


def test_trimesh_reads_it(made: Path) -> None:
    scene = trimesh.load(made)
    assert len(scene.geometry) == 3
    for mesh in scene.geometry.values():
        np.testing.assert_array_equal(mesh.faces, FACES)
        assert mesh.visual.material.metallicFactor == 0
    (first,) = (mesh for name, mesh in scene.geometry.items() if name == "person 1 from frame 2")
    np.testing.assert_array_equal(first.vertices.astype(np.float32), ball(1, 2) * UP)


def test_the_camera_sees_what_the_real_one_saw(made: Path) -> None:
    gltf = Player(made).gltf
    (camera,) = gltf.cameras
    # people_made_up: fx 500, fy 510, cx 320, cy 240: a picture of 640 x 480
    assert camera.perspective.yfov == pytest.approx(2 * math.atan(240 / 510))
    assert camera.perspective.aspectRatio == pytest.approx(640 / 500 / (480 / 510))
    assert any(node.camera == 0 for node in gltf.nodes)


def test_one_person_and_flat(made: Path, tmp_path: Path) -> None:
    recording = read_recording(tmp_path / "run.npz")
    glb.write_glb(tmp_path / "one.glb", recording, person=7, normals=False)
    player = Player(tmp_path / "one.glb")
    assert not player.gltf.animations  # one frame, as of a photo
    (shown,) = player.at(0.0)
    assert shown.normals is None
    np.testing.assert_array_equal(shown.positions.astype(np.float32), ball(7, 3) * UP)
    glb.write_glb(tmp_path / "flat.glb", recording, normals=False)
    assert (tmp_path / "flat.glb").stat().st_size < 0.75 * made.stat().st_size


def test_targets_are_called_after_their_frames(made: Path) -> None:
    first, *_ = Player(made).gltf.meshes
    assert first.extras["targetNames"] == ["frame 3", "frame 4"]
    assert first.weights == [0, 0]


def test_a_file_that_would_be_too_large_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glb, "MOST_BYTES", 10_000)
    with pytest.raises(InputError, match=r"a GLB holds 4: convert one person \(--person\)"):
        glb.write_glb(tmp_path / "large.glb", read_recording(tmp_path / "run.npz"))
    assert not (tmp_path / "large.glb").exists()
    with pytest.raises(InputError, match="cannot be written"):
        glb.write_glb(tmp_path, read_recording(tmp_path / "run.npz"), person=7, normals=False)
