import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_body import SMPL, rest_joints, tiny_arrays

from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.geometry import rot6d_to_rotmat, rotvec_to_rotmat
from pchmr_engines.errors import InputError

# Everything of V vertices is float32, of size 1 m: a few roundings of 6e-8 each. The chain of
# joints is float64, on float32 model data.
VERTEX_TOLERANCE_M, JOINT_TOLERANCE_M = 1e-6, 1e-9


def random_pose(rng, batch):
    rotmats = rotvec_to_rotmat(rng.uniform(-1, 1, (batch, 24, 3)))
    return rotmats, rng.standard_normal((batch, 10))


def naive_pose(arrays, rotmats, betas):
    """Vertices and joints of one body, joint by joint and vertex by vertex, in float64."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    feature = np.concatenate([(rotmats[j] - np.eye(3)).ravel() for j in range(1, 24)])
    shaped = shaped + arrays["posedirs"] @ feature
    chain = []
    for j, parent in enumerate(SMPL.parents):
        local = np.eye(4)
        local[:3, :3] = rotmats[j]
        local[:3, 3] = rest[j] - (rest[parent] if parent >= 0 else 0)
        chain.append(local if parent < 0 else chain[parent] @ local)
    vertices = np.zeros_like(shaped)
    for v, vertex in enumerate(shaped):
        for j in range(24):
            moved = chain[j][:3, :3] @ (vertex - rest[j]) + chain[j][:3, 3]
            vertices[v] += arrays["weights"][v, j] * moved
    return vertices, np.array([transform[:3, 3] for transform in chain])


@pytest.mark.parametrize("pose_blends", [True, False])
@pytest.mark.parametrize("dense", [True, False], ids=["24 bones a vertex", "2 bones a vertex"])
def test_pose_agrees_with_the_textbook(rng, pose_blends, dense):
    arrays = tiny_arrays(pose_blends=pose_blends)
    if dense:  # more than the native kernel takes
        weights = rng.random((48, 24)) ** 8
        arrays["weights"] = weights / weights.sum(1, keepdims=True)
    model = BodyModel(body_from_arrays(arrays))
    rotmats, betas = random_pose(rng, 3)
    vertices = model.pose(rotmats, betas)
    assert vertices.dtype == np.float32
    for b in range(3):
        expected, joints = naive_pose(arrays, rotmats[b], betas[b])
        np.testing.assert_allclose(vertices[b], expected, atol=VERTEX_TOLERANCE_M)
        np.testing.assert_allclose(model.joints[b], joints, atol=JOINT_TOLERANCE_M)


def test_no_rotation_gives_the_shaped_template(rng):
    arrays = tiny_arrays()
    betas = rng.standard_normal((1, 10))
    vertices = BodyModel(body_from_arrays(arrays)).pose(np.tile(np.eye(3), (1, 24, 1, 1)), betas)
    expected = arrays["v_template"] + arrays["shapedirs"] @ betas[0]
    np.testing.assert_allclose(vertices[0], expected, atol=VERTEX_TOLERANCE_M)


def test_the_global_rotation_turns_about_the_pelvis_joint(rng):
    model = BodyModel(body_from_arrays(tiny_arrays()))
    rotmats, betas = random_pose(rng, 1)
    turned = rotmats.copy()
    turn = rotvec_to_rotmat(np.array([0.3, -1.0, 0.5]))
    turned[:, 0] = turn @ turned[:, 0]
    before = model.pose(rotmats, betas)
    root = model.joints[:, :1]
    after = model.pose(turned, betas)
    np.testing.assert_allclose(model.joints[:, :1], root, atol=JOINT_TOLERANCE_M)
    np.testing.assert_allclose(after, (before - root) @ turn.T + root, atol=VERTEX_TOLERANCE_M)


def test_translation_moves_vertices_and_joints(rng):
    model = BodyModel(body_from_arrays(tiny_arrays()))
    rotmats, betas = random_pose(rng, 2)
    transl = np.array([[1.0, 2, 3], [0, -1, 0.5]])
    still, joints = model.pose(rotmats, betas), model.joints
    moved = model.pose(rotmats, betas, transl)
    np.testing.assert_allclose(moved, still + transl[:, None], atol=4 * VERTEX_TOLERANCE_M)
    np.testing.assert_allclose(model.joints, joints + transl[:, None], atol=JOINT_TOLERANCE_M)


def test_a_row_does_not_depend_on_its_batch_or_on_earlier_calls(rng):
    model = BodyModel(body_from_arrays(tiny_arrays()))
    rotmats, betas = random_pose(rng, 5)
    together = model.pose(rotmats, betas)
    for b in range(5):
        alone = model.pose(rotmats[b : b + 1], betas[b : b + 1])
        np.testing.assert_allclose(alone[0], together[b], atol=VERTEX_TOLERANCE_M)
    betas[0] += 1  # changed in place
    fresh = BodyModel(body_from_arrays(tiny_arrays())).pose(rotmats, betas)
    np.testing.assert_array_equal(model.pose(rotmats, betas), fresh)
    assert model.pose(rotmats[:0], betas[:0]).shape == (0, 48, 3)


def test_out_is_written_and_a_kept_result_is_not_overwritten(rng):
    model = BodyModel(body_from_arrays(tiny_arrays()))
    rotmats, betas = random_pose(rng, 2)
    first = model.pose(rotmats[:1], betas[:1])
    kept = first.copy()
    out = np.empty((1, 48, 3), np.float32)
    assert model.pose(rotmats[1:], betas[1:], out=out) is out
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(out, model.pose(rotmats[1:], betas[1:]))


def test_regressed_joints_are_the_rows_times_the_vertices(rng):
    body = body_from_arrays(tiny_arrays())
    model = BodyModel(body)
    vertices = model.pose(*random_pose(rng, 3))
    joints = model.regress("smpl24", vertices)
    expected = body.regressors["smpl24"] @ vertices
    np.testing.assert_allclose(joints, expected, atol=VERTEX_TOLERANCE_M)
    rest = model.regress("smpl24", body.v_template[None])[0]
    np.testing.assert_allclose(rest, rest_joints(), atol=VERTEX_TOLERANCE_M)
    with pytest.raises(InputError, match="no regressor for 'coco17'"):
        model.regress("coco17", vertices)


def test_wrong_shapes_say_what_came_and_what_was_expected():
    model = BodyModel(body_from_arrays(tiny_arrays()))
    with pytest.raises(ValueError, match=r"rotmats is \(1, 72\); expected \(1, 24, 3, 3\)"):
        model.pose(np.zeros((1, 72)), np.zeros((1, 10)))
    with pytest.raises(ValueError, match=r"betas is \(1, 300\); expected \(2, 10\)"):
        model.pose(np.tile(np.eye(3), (2, 24, 1, 1)), np.zeros((1, 300)))


@pytest.fixture(scope="module")
def parity_kit():
    """The folder of the parity fixtures and, imported from it, its seeding and synthetic SMPL."""
    named = os.environ.get("PCHMR_PARITY")
    kit = Path(named) if named else Path(__file__).parents[3] / "shared" / "networks"
    if not (kit / "fixtures" / "smpl.npz").is_file():
        pytest.skip("not tested: agreement with the original SMPL code (no $PCHMR_PARITY)")
    modules = {}
    for name in ("seeding", "synthetic_smpl"):
        spec = importlib.util.spec_from_file_location(name, kit / "fixtures" / f"{name}.py")
        modules[name] = importlib.util.module_from_spec(spec)
        sys.modules[name] = modules[name]
        spec.loader.exec_module(modules[name])
    yield kit / "fixtures" / "smpl.npz", modules["seeding"], modules["synthetic_smpl"]
    for name in modules:
        del sys.modules[name]


def test_the_original_code_gave_the_same_on_a_synthetic_model(parity_kit):
    fixture, seeding, synthetic_smpl = parity_kit
    given = seeding.inputs(fixture)
    body = body_from_arrays(synthetic_smpl.model(sparse=False))
    model = BodyModel(body)
    rotvecs = given["pose"].reshape(3, 24, 3)
    rotmats = rotvec_to_rotmat(rotvecs.astype(np.float64))
    from_6d = rot6d_to_rotmat(given["rot6d"].reshape(3, 24, 6).astype(np.float64))
    got = {"rodrigues": rotmats, "rot6d_matrix": from_6d}
    got["vertices"] = model.pose(rotmats, given["betas"])
    joints = model.joints
    got["spin_vertices"] = model.pose(from_6d, given["betas"])
    got["h36m17"] = synthetic_smpl.spin_h36m() @ got["spin_vertices"]
    worst = seeding.check(fixture, got)
    assert set(worst) == set(got)
    assert max(worst.values()) <= 1
    expected = np.load(fixture)["joints45"].reshape(3, 45, 3)[:, :24]
    np.testing.assert_allclose(joints, expected, atol=2e-6)  # the fixture is stored in float32
