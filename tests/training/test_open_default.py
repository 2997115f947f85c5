"""The synthetic samples G and L learn from, their training, and the weights that are shipped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pchmr.camera import Camera
from pchmr.geometry import rot6d_to_rotmat as sdk_rot6d_to_rotmat
from pchmr.geometry import rotvec_to_rotmat as sdk_rotvec_to_rotmat
from pchmr.placement import points_to_crop
from pchmr.placement import ray_rotation as sdk_ray_rotation
from pchmr_engines.errors import InputError
from pchmr_training.networks.rotations import rot6d_to_rotmat
from pchmr_training.open_default import observation, poses, views
from pchmr_training.open_default.body_points import BodyPoints, load_arrays
from pchmr_training.open_default.metrics import mpjpe, pa_mpjpe
from pchmr_training.open_default.networks import (
    KEYPOINTS,
    Lifter,
    load_network,
    save_network,
)
from pchmr_training.open_default.synthesis import Samples, synthesise
from pchmr_training.open_default.train import Settings, train
from pchmr_training.smpl import rotvec_to_rotmat

WEIGHTS = Path(poses.__file__).parents[1] / "data"
SMPL24 = poses.SMPL24
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def body_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body of 300 random vertices with SMPL's tree and a person's landmarks."""
    rng = np.random.default_rng(0)
    vertices, joints = 300, 24
    weights = rng.random((vertices, joints)) ** 8

    def regressor(rows: int) -> NDArray[np.float64]:
        dense = np.where(rng.random((rows, vertices)) > 0.97, 1.0, 0.0) + np.eye(rows, vertices)
        return dense / dense.sum(1, keepdims=True)

    table = np.array([SMPL24.parents, range(joints)], np.int64)
    table[0, 0] = 2**32 - 1
    path = tmp_path_factory.mktemp("body") / "body.npz"
    np.savez(
        path,
        v_template=rng.uniform(-1, 1, (vertices, 3)) * [0.5, 0.9, 0.2],
        shapedirs=0.02 * rng.standard_normal((vertices, 3, 10)),
        weights=weights / weights.sum(1, keepdims=True),
        J_regressor=regressor(joints),
        kintree_table=table.astype(np.uint32),
        regressor_smpl24=regressor(24),
        regressor_blazepose33=regressor(33),
    )
    return path


@pytest.fixture(scope="module")
def body(body_file: Path) -> BodyPoints:
    return BodyPoints(load_arrays(body_file)[0])


@pytest.fixture(scope="module")
def motion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 40 random frames, one a split."""
    folder = tmp_path_factory.mktemp("motion")
    rng = np.random.default_rng(1)
    names = {"train_a": "train", "test_a": "test"}
    clips = {f"{n}__poses": 0.3 * rng.standard_normal((40, 24, 3)) for n in names}
    np.savez(folder / "clips.npz", **{k: v.astype(np.float16) for k, v in clips.items()})
    index = [{"name": n, "split": split, "action": "walking"} for n, split in names.items()]
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def skinned(arrays: dict[str, Floats], rotations: Floats, betas: Floats) -> Floats:
    """(V, 3) vertices of one pose by linear-blend skinning, as smplx does it, in float64."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    transforms: list[NDArray[np.float64]] = []
    for joint, parent in enumerate(SMPL24.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = rest[joint] - (rest[parent] if joint else 0)
        transforms.append(transforms[parent] @ local if joint else local)
    chain = np.stack(transforms)
    chain[:, :3, 3] -= np.einsum("jab,jb->ja", chain[:, :3, :3], rest)
    blended = np.einsum("vk,kab->vab", arrays["weights"], chain)
    return np.einsum("vab,vb->va", blended[:, :3, :3], shaped) + blended[:, :3, 3]


def test_points_without_the_mesh_equal_points_of_the_mesh(
    body: BodyPoints, body_file: Path
) -> None:
    arrays, _ = load_arrays(body_file)
    rng = np.random.default_rng(2)
    rotvec, betas = rng.standard_normal((5, 24, 3)), rng.standard_normal((5, 10))
    rotations = sdk_rotvec_to_rotmat(rotvec)
    points = body(torch.tensor(rotations).float(), torch.tensor(betas).float())
    regressor = np.concatenate([arrays["regressor_smpl24"], arrays["regressor_blazepose33"]])
    expected = [regressor @ skinned(arrays, r, b) for r, b in zip(rotations, betas, strict=True)]
    np.testing.assert_allclose(points, expected, atol=3e-6)  # float32 sums of metres


def test_body_without_regressors_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "body.npz", v_template=np.zeros((3, 3)))
    with pytest.raises(InputError, match="has no kintree_table, regressor_blazepose33"):
        load_arrays(tmp_path / "body.npz")


def test_rotations_are_those_of_the_runtime() -> None:
    rng = np.random.default_rng(3)
    rot6d, rotvec = rng.standard_normal((50, 6)), rng.standard_normal((50, 3))
    ours = rot6d_to_rotmat(torch.tensor(rot6d))
    np.testing.assert_allclose(ours, sdk_rot6d_to_rotmat(rot6d), atol=1e-12)
    ours = rotvec_to_rotmat(torch.tensor(rotvec).float())
    np.testing.assert_allclose(ours, sdk_rotvec_to_rotmat(rotvec), atol=1e-6)


def test_views_are_those_of_the_runtime() -> None:
    """A full-frame point reaches the networks through the sdk exactly as it did in training."""
    rng = np.random.default_rng(4)
    focal, width, height = 1500.0, 1920, 1080
    camera = Camera(focal, focal, width / 2, height / 2)
    centre = rng.uniform([200, 200], [1700, 900], (6, 2))
    size, roll = rng.uniform(300, 900, 6), rng.uniform(-0.6, 0.6, 6)
    turn = sdk_ray_rotation(centre, roll, camera)
    ray = np.c_[(centre - [camera.cx, camera.cy]) / focal, np.ones(6)]
    ours = views.ray_rotation(torch.tensor(ray).float()) @ views.axis_rotation(
        2, torch.tensor(roll).float()
    )
    np.testing.assert_allclose(ours, turn, atol=1e-6)

    pelvis = ray * rng.uniform(2, 6, (6, 1))
    upright = 0.5 * rng.standard_normal((6, 9, 3))
    view = views.View(*(torch.tensor(x).float() for x in (turn, pelvis, size / (2 * focal))))
    in_camera = upright @ turn.transpose(0, 2, 1) + pelvis[:, None]
    pixels = in_camera[..., :2] / in_camera[..., 2:] * focal + [camera.cx, camera.cy]
    seen = view.project(view.place(torch.tensor(upright).float()))
    np.testing.assert_allclose(seen, points_to_crop(pixels, turn, size, camera), atol=1e-4)


def test_mirrored_pose_is_the_reflected_body() -> None:
    pose = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(5))
    reflection = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    mirrored = rotvec_to_rotmat(poses.mirror(pose))
    left, right = SMPL24.index("left_elbow"), SMPL24.index("right_elbow")
    expected = reflection @ rotvec_to_rotmat(pose)[:, right] @ reflection
    torch.testing.assert_close(mirrored[:, left], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(poses.mirror(poses.mirror(pose)), pose)


def test_widened_poses_stay_near_the_limits(motion_folder: Path) -> None:
    motion = poses.load_motion(motion_folder, "train")
    spine = SMPL24.index("spine2")
    drawn = poses.sample_poses(motion, 500, torch.Generator().manual_seed(6))
    low = torch.minimum(
        motion.limits[0, spine],
        torch.cat([motion.poses, poses.mirror(motion.poses)])[:, spine].amin(0),
    )
    crouch = torch.tensor([0.3, 0.0, 0.0])  # bends the back further than any clip
    assert (drawn[:, spine] >= low - crouch - 1e-6).all()
    assert drawn.std(0).mean() > motion.poses.std(0).mean()
    with pytest.raises(InputError, match="no clip whose split is 'validation'"):
        poses.load_motion(motion_folder, "validation")


def test_a_wrist_behind_the_trunk_is_hidden() -> None:
    """A person who faces the camera from 3 m, arms down; then one wrist behind the back."""
    place = {"shoulder": (0.18, -0.5), "hip": (0.1, 0.0), "knee": (0.1, 0.4), "ankle": (0.1, 0.8)}
    place |= {"elbow": (0.3, -0.25), "wrist": (0.35, 0.0)}
    points = torch.zeros(1, 33, 3)
    for part, (x, y) in place.items():
        for side, sign in (("left", 1), ("right", -1)):
            points[0, views.BLAZEPOSE.index(f"{side}_{part}")] = torch.tensor([sign * x, y, 0.0])
    points[..., 2] += 3.0
    wrist = KEYPOINTS.index("left_wrist")
    assert not observation.hidden(points)[0, wrist]
    behind = points.clone()
    behind[0, views.BLAZEPOSE.index("left_wrist")] = torch.tensor([0.0, -0.2, 3.3])
    assert observation.hidden(behind)[0, wrist]
    behind[..., 2] = 6.0 - behind[..., 2]  # now in front
    assert not observation.hidden(behind)[0, wrist]


def test_samples_are_consistent_and_repeatable(body: BodyPoints, motion_folder: Path) -> None:
    motion = poses.load_motion(motion_folder, "train")
    a, b = (synthesise(body, motion, 256, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a.keypoints, b.keypoints)
    points = body(a.rotations, a.betas)
    torch.testing.assert_close(points - points[:, :1], a.points, atol=1e-5, rtol=0)
    clean = a.view.project(a.view.place(a.points[:, 24:]))[:, observation.PICK]
    exact = (a.keypoints[..., 2] == 1).all(1)
    assert 10 < exact.sum() < 80
    torch.testing.assert_close(a.keypoints[exact][..., :2], clean[exact])
    assert (a.keypoints[~exact][..., :2] - clean[~exact]).abs().amin() > 0


def test_pa_mpjpe_forgives_a_similarity_but_no_reflection() -> None:
    truth = torch.randn(4, 14, 3, generator=torch.Generator().manual_seed(8))
    turn = rotvec_to_rotmat(torch.randn(4, 3, generator=torch.Generator().manual_seed(9)))
    moved = 1.7 * truth @ turn.mT + torch.tensor([3.0, -2.0, 1.0])
    assert pa_mpjpe(moved, truth).max() < 1e-5
    assert pa_mpjpe(truth * torch.tensor([-1.0, 1.0, 1.0]), truth).min() > 0.1
    torch.testing.assert_close(
        mpjpe(truth + torch.tensor([0.0, 3.0, 4.0]), truth), torch.full((4,), 5.0)
    )


def test_training_resumes_where_it_stopped(
    body_file: Path, motion_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(body="none", steps=4, batch=8, width=16, blocks=1)
    train(settings, motion_folder, body_file, tmp_path / "whole", bf16=False)

    calls = iter(range(settings.steps))

    def stop_at_the_third(*arguments: Any) -> Samples:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return synthesise(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pchmr_training.open_default.train.CHECKPOINT_EVERY", 2)
        patch.setattr("pchmr_training.open_default.train.synthesise", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(settings, motion_folder, body_file, tmp_path / "parts", bf16=False)
    assert not (tmp_path / "parts" / "generator.safetensors").exists()
    train(settings, motion_folder, body_file, tmp_path / "parts", bf16=False)
    whole, _ = load_network("generator", tmp_path / "whole" / "generator.safetensors")
    parts, metadata = load_network("generator", tmp_path / "parts" / "generator.safetensors")
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    assert metadata["steps"] == "4"
    with pytest.raises(InputError, match="give the same options"):
        train(Settings(body="none", steps=5), motion_folder, body_file, tmp_path / "parts", False)


@torch.no_grad()
def test_stored_network_answers_as_the_trained_one(tmp_path: Path) -> None:
    """Merging the normalisation changes nothing; float16 costs 1e-3."""
    torch.manual_seed(10)
    network = Lifter(width=32, blocks=2)
    keypoints = torch.rand(64, len(KEYPOINTS), 3)
    for _ in range(30):
        network(keypoints + torch.randn(64, 1, 1))  # moves the normalisation's statistics
    save_network(network, tmp_path / "lifter.safetensors", {"seed": "10"})
    stored, metadata = load_network("lifter", tmp_path / "lifter.safetensors")
    assert metadata["seed"] == "10"
    for ours, theirs in zip(stored(keypoints), network.eval()(keypoints), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)
        assert theirs.std() > 0.05


def test_weights_of_other_keypoints_are_refused(tmp_path: Path) -> None:
    save_network(Lifter(8, 1), tmp_path / "lifter.safetensors", {"keypoints": "nose"})
    with pytest.raises(InputError, match="trained on the keypoints 'nose'"):
        load_network("lifter", tmp_path / "lifter.safetensors")


@torch.no_grad()
def test_shipped_networks_understand_a_standing_person() -> None:
    """Facing the camera, arms hanging: upright, with the left on the image's right."""
    place = {"ear": (0.05, -0.62), "shoulder": (0.13, -0.43), "elbow": (0.17, -0.2)}
    place |= {"wrist": (0.18, 0.0), "pinky": (0.19, 0.06), "index": (0.18, 0.07)}
    place |= {"thumb": (0.16, 0.04), "hip": (0.08, 0.0), "knee": (0.08, 0.38)}
    place |= {"ankle": (0.08, 0.74), "heel": (0.075, 0.77), "foot_index": (0.1, 0.82)}
    keypoints = torch.ones(1, len(KEYPOINTS), 3)
    for i, name in enumerate(KEYPOINTS):
        side, _, part = name.partition("_")
        x, y = place.get(part, (0.0, -0.6))
        keypoints[0, i, :2] = torch.tensor([x if side == "left" else -x, y])
    lifter, _ = load_network("lifter", WEIGHTS / "lifter.safetensors")
    joints, landmarks = lifter(keypoints)
    index = SMPL24.index
    assert joints[0, index("pelvis")].norm() < 0.02
    assert joints[0, index("head"), 1] < -0.4
    assert joints[0, index("left_ankle"), 1] > 0.6
    assert joints[0, index("left_shoulder"), 0] > 0.1 > joints[0, index("right_shoulder"), 0]
    assert landmarks[0, 0, 2] < landmarks[0, 7:9, 2].mean()  # the nose is nearer than the ears
    generator, _ = load_network("generator", WEIGHTS / "generator.safetensors")
    rotations = rot6d_to_rotmat(generator(keypoints)[0])
    facing = views.SMPL_TO_CAMERA
    cosine = ((rotations[0, 0] * facing).sum() - 1) / 2
    assert torch.rad2deg(cosine.acos()) < 20
