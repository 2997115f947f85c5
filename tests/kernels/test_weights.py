import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pchmr_kernels import reference
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import (
    SparseWeights,
    bones_of,
    from_dense,
    initial_weights,
    pruning_cost_mm,
)


def test_the_largest_are_kept_and_put_back_on_the_simplex():
    A = np.array([[0.1, 0.0, 0.6, 0.3], [1.0, 0.0, 0.0, 0.0]])
    W = np.array([[0.5, 0.9, 0.0, 1.0], [0.25, 0.9, 0.9, 0.9]])
    weights = from_dense(A, W, max_per_vertex=2)
    assert weights.indices.tolist() == [[2, 3], [0, 0]]
    np.testing.assert_allclose(weights.values, [[2 / 3, 1 / 3], [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(weights.offsets, [[0, 1 / 3], [0.25, 0]], rtol=1e-6)


def test_nothing_is_lost_where_rows_are_short_enough(rng):
    A = rng.dirichlet(np.ones(9), 50) * (rng.random((50, 9)) < 0.4) + 1e-6 * np.eye(9)[0]
    A /= A.sum(1, keepdims=True)
    W = rng.random((50, 9))
    weights = from_dense(A, W, max_per_vertex=8)
    kept, kept_offsets = weights.to_dense(9)
    np.testing.assert_allclose(kept, A, atol=1e-7)
    np.testing.assert_allclose(kept_offsets, A * W, atol=1e-7)


def test_the_cost_of_pruning_is_the_distance_it_moves_a_vertex():
    """One bone turned by a quarter, one left alone: a tenth of the weight moves 1 m by 141 mm."""
    bones = np.array([[0, 1], [0, 2]])
    source = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    target = np.array([[[0.0, 0, 0], [0, 0, 1], [0, 1, 0]]])
    A, W = np.array([[0.1, 0.9]]), np.zeros((1, 2))
    vertices = np.array([[[1.0, 0, 0]]])
    cost = pruning_cost_mm(A, W, from_dense(A, W, 1), vertices, source, target, bones)
    np.testing.assert_allclose(cost, [[100 * np.sqrt(2)]], rtol=1e-6)
    assert pruning_cost_mm(A, W, from_dense(A, W, 2), vertices, source, target, bones) < 1e-4


@pytest.mark.parametrize(
    ("A", "W", "size", "message"),
    [
        (np.ones((3, 2)), None, 4, "sum to 1"),
        (np.array([[1.5, -0.5]]), None, 4, "non-negative"),
        (np.array([[np.nan, 1.0]]), None, 4, "non-negative"),
        (np.eye(2), np.full((2, 2), 1.5), 4, r"W goes from 1.5 to 1.5; expected 0..1"),
        (np.eye(2), np.ones((2, 3)), 4, r"A is \(2, 2\), W is \(2, 3\)"),
        (np.eye(2), None, 9, "max_per_vertex is 9; expected 1 to 8"),
    ],
)
def test_bad_dense_weights_are_refused(A, W, size, message):
    with pytest.raises(ValueError, match=message):
        from_dense(A, W, size)


def test_bad_sparse_weights_are_refused():
    indices, values = np.zeros((5, 2), np.int32), np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match=r"offsets are float64 \(5, 2\); expected float32"):
        SparseWeights(indices, values, values.astype(np.float64))
    with pytest.raises(ValueError, match=r"values are float32 \(5, 3\)"):
        SparseWeights(indices, np.zeros((5, 3), np.float32), values)
    with pytest.raises(ValueError, match="bones count from 0"):
        SparseWeights(indices - 1, values, values)


@pytest.mark.parametrize(
    ("skeleton", "joint", "bones"),
    [
        ("smpl24", "spine3", ["spine3-neck", "spine3-left_collar", "spine3-right_collar"]),
        ("smpl24", "left_hand", ["left_wrist-left_hand"]),
        ("h36m17", "pelvis", ["pelvis-right_hip", "pelvis-left_hip", "pelvis-spine"]),
        ("h36m17", "spine1", ["pelvis-spine"]),
        ("h36m17", "spine2", ["spine-thorax"]),
        ("h36m17", "spine3", ["spine-thorax", "thorax-left_shoulder", "thorax-right_shoulder"]),
        ("h36m17", "left_collar", ["thorax-left_shoulder"]),
        ("h36m17", "right_foot", ["right_knee-right_ankle"]),
        ("h36m17", "left_hand", ["left_elbow-left_wrist"]),
        ("h36m17", "neck", ["thorax-nose"]),
        ("h36m17", "head", ["nose-head"]),
        ("semgcn16", "neck", ["thorax-head"]),
        ("posenet21_muco", "left_foot", ["left_ankle-left_toe"]),
        ("humaneva15", "spine1", ["pelvis-thorax"]),
        ("pose2mesh_coco19", "spine2", ["pelvis-neck"]),
        ("pose2mesh_coco19", "head", ["neck-nose"]),
    ],
)
def test_each_skinning_joint_moves_the_bones_of_the_table(skeleton, joint, bones):
    skeleton = get_skeleton(skeleton)
    found = [skeleton.bones[k] for k in bones_of(joint, skeleton)]
    assert [f"{skeleton.joints[p]}-{skeleton.joints[c]}" for p, c in found] == bones


@pytest.mark.parametrize("name", ["coco17", "lsp14"])
def test_a_skeleton_without_a_pelvis_cannot_take_the_trunk(name):
    with pytest.raises(ValueError, match=f"{name} has no bone that the skinning joint 'pelvis'"):
        bones_of("pelvis", get_skeleton(name))


@pytest.mark.parametrize("name", ["smpl24", "h36m17", "posenet21_muco", "blazepose35"])
def test_initial_weights_lie_on_the_simplex_and_do_not_depend_on_the_pose_of_the_camera(name, rng):
    smpl, skeleton = get_skeleton("smpl24"), get_skeleton(name)
    vertices, joints = rng.normal(size=(40, 3)), rng.normal(size=(len(skeleton), 3))
    skinning = rng.dirichlet(np.ones(24), 40)
    A, W = initial_weights(vertices, joints, skinning, smpl, skeleton)
    assert A.shape == W.shape == (40, len(skeleton) - 1)
    np.testing.assert_allclose(A.sum(1), 1, atol=1e-6)
    assert A.min() >= 0
    assert W.min() >= 0
    assert W.max() <= 1
    turn = Rotation.random(rng=rng).as_matrix()
    moved = initial_weights(vertices @ turn.T + 1, joints @ turn.T + 1, skinning, smpl, skeleton)
    np.testing.assert_allclose(moved[0], A, atol=1e-6)
    np.testing.assert_allclose(moved[1], W, atol=1e-6)


def test_a_point_on_a_bone_follows_that_bone_as_far_as_it_lies_along_it():
    smpl = get_skeleton("smpl24")
    joints = np.random.default_rng(7).normal(size=(24, 3))
    hip, knee = joints[smpl.index("left_hip")], joints[smpl.index("left_knee")]
    skinning = np.eye(24)[[smpl.index("left_hip")] * 2]
    A, W = initial_weights(np.stack([0.75 * hip + 0.25 * knee, knee]), joints, skinning, smpl, smpl)
    bone = smpl.bones[:, 1].tolist().index(smpl.index("left_knee"))
    np.testing.assert_allclose(A[:, bone], 1, atol=1e-6)
    np.testing.assert_allclose(W[:, bone], [0.25, 1], atol=1e-6)


def test_initial_weights_name_the_shapes_they_want():
    smpl = get_skeleton("smpl24")
    with pytest.raises(ValueError, match=r"expected \(\(5, 3\), \(24, 3\), \(5, 24\)\)"):
        initial_weights(np.zeros((5, 3)), np.zeros((17, 3)), np.zeros((5, 24)), smpl, smpl)


def test_the_reference_moves_a_joint_supported_point_onto_the_target(rng):
    smpl = get_skeleton("smpl24")
    source, target = rng.normal(size=(2, 1, 24, 3))
    target = reference.root_align(source, target)
    A, W = initial_weights(source[0], source[0], np.eye(24), smpl, smpl)
    psi, t, delta = reference.bone_transforms(source, target, smpl.bones)
    moved = reference.blend(source, psi, t, delta, A, W)
    np.testing.assert_allclose(moved, target, atol=1e-5)
