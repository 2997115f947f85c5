import numpy as np
import pytest
from kernel_cases import TOLERANCE, case
from scipy.spatial.transform import Rotation

from pchmr_kernels import reference
from pchmr_kernels.skeletons import get_skeleton

SMPL = get_skeleton("smpl24")
AXES = (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))


def test_one_bone_by_hand():
    """A bone along x turns to y and doubles: a vertex half way along takes half the stretch."""
    source = np.array([[[0.0, 0, 0], [1, 0, 0]]])
    target = np.array([[[0.0, 0, 0], [0, 2, 0]]])
    bones = np.array([[0, 1]])
    psi, t, delta = reference.bone_transforms(source, target, bones)
    np.testing.assert_allclose(psi[0, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(t[0, 0], 0, atol=1e-15)
    np.testing.assert_allclose(delta[0, 0], [0, 1, 0], atol=1e-15)
    vertices = np.array([[[0.5, 0.1, 0]]])
    moved = reference.blend(vertices, psi, t, delta, np.ones((1, 1)), np.full((1, 1), 0.5))
    np.testing.assert_allclose(moved, [[[-0.1, 1.0, 0]]], atol=1e-15)


def test_two_bones_by_hand():
    """The elbow bends by a quarter; a vertex shared by halves lands between both answers."""
    source = np.array([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    target = source + 5.0
    target[0, 2] = target[0, 1] + [0, 1, 0]
    A, W = np.array([[0.5, 0.5]]), np.zeros((1, 2))
    vertices, bones = np.array([[[1.5, 0, 0]]]), np.array([[0, 1], [1, 2]])
    moved = reference.calibrate(vertices, source, target, bones, A, W)
    np.testing.assert_allclose(moved, [[[(1.5 + 1.0) / 2, 0.25, 0]]], atol=1e-15)


def test_psi_is_the_papers_rotation_vector(rng):
    """Eq. (6-7) as they are printed, by arccos and Rodrigues."""
    for b_src, b_tgt in rng.normal(size=(50, 2, 3)):
        cosine = b_src @ b_tgt / np.linalg.norm(b_src) / np.linalg.norm(b_tgt)
        axis = np.cross(b_src, b_tgt)
        rotvec = np.arccos(cosine) * axis / np.linalg.norm(axis)
        expected = Rotation.from_rotvec(rotvec).as_matrix()
        np.testing.assert_allclose(reference.bone_rotation(b_src, b_tgt), expected, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-4, 1.0, np.pi - 1e-4, np.pi - 1e-8])
def test_psi_is_a_rotation_onto_the_target_at_every_angle(angle, rng):
    u = rng.normal(size=3)
    axis = np.cross(u, rng.normal(size=3))
    v = 3 * reference.rotation(axis / np.linalg.norm(axis), angle) @ u
    psi = reference.bone_rotation(u, v)
    # Near pi the axis comes from a cross product as short as the angle left to pi.
    exact = 1e-14 / max(np.pi - angle, 1e-2) + 1e-14
    np.testing.assert_allclose(psi @ psi.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(3 * psi @ u, v, atol=10 * exact)
    assert np.linalg.det(psi) == pytest.approx(1)


def test_degenerate_bones():
    x = np.array([1.0, 0, 0])
    np.testing.assert_array_equal(reference.bone_rotation(x, 2 * x), np.eye(3))
    np.testing.assert_array_equal(reference.bone_rotation(0 * x, x), np.eye(3))
    np.testing.assert_array_equal(reference.bone_rotation(x, 0 * x), np.eye(3))
    # Antiparallel: about b x hips; along the hips themselves: about b x the next axis.
    y = np.array([0, 1.0, 0])
    half = reference.bone_rotation(y, -y, AXES)
    np.testing.assert_allclose(half, np.diag([-1, -1, 1]), atol=1e-15)
    half = reference.bone_rotation(x, -x, AXES)
    np.testing.assert_allclose(half, np.diag([-1, -1, 1]), atol=1e-15)
    half = reference.bone_rotation(x, -x)
    np.testing.assert_allclose(half @ x, -x, atol=1e-15)
    assert np.linalg.det(half) == pytest.approx(1)


def test_delta_lies_along_the_target_bone_and_is_the_change_of_length(rng):
    c = case(rng)
    _, _, delta = reference.bone_transforms(c.source, c.target, SMPL.bones)
    parent, child = SMPL.bones.T
    b_src, b_tgt = (x[:, parent] - x[:, child] for x in (c.source, c.target))
    l_src, l_tgt = (np.linalg.norm(b, axis=-1, keepdims=True) for b in (b_src, b_tgt))
    np.testing.assert_allclose(delta, (l_src - l_tgt) * b_tgt / l_tgt, atol=TOLERANCE["float64"])


def test_self_rotation_turns_about_the_target_bone(rng):
    c = case(rng, batch=1)
    target = reference.root_align(c.source, c.target)
    alpha = rng.uniform(-3, 3, (1, len(SMPL.bones)))
    plain = reference.bone_transforms(c.source, target, SMPL.bones)
    turned = reference.bone_transforms(c.source, target, SMPL.bones, alpha=alpha)
    parent, child = SMPL.bones.T
    axis = target[0, parent] - target[0, child]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    extra = Rotation.from_rotvec(alpha[0, :, None] * axis).as_matrix()
    np.testing.assert_allclose(turned[0][0], extra @ plain[0][0], atol=TOLERANCE["float64"])
    np.testing.assert_allclose(
        turned[2], plain[2], atol=TOLERANCE["float64"]
    )  # same bone, same Delta


def test_blending_transforms_first_and_applying_once_is_the_same(rng):
    c = case(rng)
    psi, t, delta = reference.bone_transforms(c.source, c.target, SMPL.bones)
    blended = np.einsum("vk,bkmn->bvmn", c.A, psi)
    moved = np.einsum("bvmn,bvn->bvm", blended, c.vertices) + np.einsum("vk,bkm->bvm", c.A, t)
    moved += np.einsum("vk,bkm->bvm", c.A * c.W, delta)
    direct = reference.blend(c.vertices, psi, t, delta, c.A, c.W)
    np.testing.assert_allclose(moved, direct, atol=1e-14)


def test_fading_everything_in_is_root_alignment_and_everything_out_is_the_source(rng):
    c = case(rng)
    sure = np.ones(c.source.shape[:2])
    np.testing.assert_allclose(
        reference.fade_targets(c.source, c.target, sure, SMPL.bones),
        reference.root_align(c.source, c.target),
        atol=1e-14,
    )
    unsure = reference.fade_targets(c.source, c.target, 0 * sure, SMPL.bones)
    np.testing.assert_allclose(unsure, c.source, atol=1e-14)


def test_a_missing_wrist_fades_its_two_bones_and_nothing_else(rng):
    c = case(rng, batch=1)
    wrist, hand = SMPL.index("left_wrist"), SMPL.index("left_hand")
    missing = c.target.copy()
    missing[:, wrist] = np.nan
    faded = reference.fade_targets(c.source, missing, None, SMPL.bones)
    others = [j for j in range(24) if j not in (wrist, hand)]
    aligned = reference.root_align(c.source, c.target)
    np.testing.assert_allclose(faded[:, others], aligned[:, others], atol=1e-14)
    for parent, child in (("left_elbow", "left_wrist"), ("left_wrist", "left_hand")):
        p, j = SMPL.index(parent), SMPL.index(child)
        np.testing.assert_allclose(
            faded[:, p] - faded[:, j], c.source[:, p] - c.source[:, j], atol=1e-14
        )


def test_a_missing_joint_never_drags_those_beyond_it(rng):
    """Elbow gone: the hand keeps the target's direction, from where the faded wrist is."""
    c = case(rng, batch=1)
    wrist, hand = SMPL.index("left_wrist"), SMPL.index("left_hand")
    missing = c.target.copy()
    missing[:, SMPL.index("left_elbow")] = [1e6, np.nan, np.inf]
    faded = reference.fade_targets(c.source, missing, None, SMPL.bones)
    np.testing.assert_allclose(
        faded[:, wrist] - faded[:, hand], c.target[:, wrist] - c.target[:, hand], atol=1e-13
    )


def test_a_missing_root_leaves_the_limbs_their_directions(rng):
    c = case(rng, batch=1)
    missing = c.target.copy()
    missing[:, 0] = np.nan
    faded = reference.fade_targets(c.source, missing, None, SMPL.bones)
    hip, knee, ankle = (SMPL.index(f"left_{part}") for part in ("hip", "knee", "ankle"))
    np.testing.assert_allclose(faded[:, hip], c.source[:, hip], atol=1e-14)
    np.testing.assert_allclose(
        faded[:, knee] - faded[:, ankle], c.target[:, knee] - c.target[:, ankle], atol=1e-13
    )


def test_fading_is_smooth_and_keeps_angle_and_length_between_both(rng):
    b_src, b_tgt = np.array([1.0, 0, 0]), np.array([0, -3.0, 0])
    middle = reference.fade_bone(b_src, b_tgt, 0.5)
    np.testing.assert_allclose(middle, 2 * np.array([1, -1, 0]) / np.sqrt(2), atol=1e-15)
    steps = np.linspace(0, 1, 201)
    path = np.array([reference.fade_bone(b_src, b_tgt, share) for share in steps])
    np.testing.assert_allclose(path[[0, -1]], [b_src, b_tgt], atol=1e-15)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 0.03
    flipped = reference.fade_bone(b_src, -2 * b_src, 0.5, AXES)
    np.testing.assert_allclose(flipped @ b_src, 0, atol=1e-15)
    assert np.linalg.norm(flipped) == pytest.approx(1.5)

    confidence = np.linspace(0, 1, 101)[None]
    weights = reference.joint_weights(np.zeros((1, 101, 3)), confidence, (0.2, 0.6))[0]
    assert (weights[:21] == 0).all()
    assert (weights[60:] == 1).all()
    assert (np.diff(weights) >= 0).all()
    assert weights[40] == pytest.approx(0.5)
    assert np.abs(np.diff(weights, 2)).max() < 0.01


def test_a_chain_that_hangs_from_no_bone_starts_at_its_own_target(rng):
    c = case(rng, batch=1)
    forearm = SMPL.bones[[19]]
    np.testing.assert_array_equal(forearm, [[18, 20]])
    faded = reference.fade_targets(c.source, c.target, None, forearm)
    aligned = reference.root_align(c.source, c.target)
    np.testing.assert_allclose(faded[:, [18, 20]], aligned[:, [18, 20]], atol=1e-14)


@pytest.mark.parametrize(
    ("bones", "message"),
    [
        ([[0, 1], [2, 1]], "child of one bone at most"),
        ([[1, 0]], "the root of none"),
        ([[1, 2], [2, 1]], "contain a cycle"),
    ],
)
def test_bones_that_are_no_tree_are_refused(bones, message):
    with pytest.raises(ValueError, match=message):
        reference.bone_order(np.array(bones))


def test_bones_may_come_in_any_order(rng):
    c = case(rng)
    shuffled = rng.permutation(len(SMPL.bones))
    plain = reference.calibrate(c.vertices, c.source, c.target, SMPL.bones, c.A, c.W)
    moved = reference.calibrate(
        *(c.vertices, c.source, c.target, SMPL.bones[shuffled]),
        *(c.A[:, shuffled], c.W[:, shuffled]),
    )
    np.testing.assert_allclose(moved, plain, atol=TOLERANCE["float64"])


def test_the_torso_fit_sees_the_twist_that_smallest_rotations_cannot(rng):
    c = case(rng, batch=1)
    root = c.source[:, :1]
    turn = Rotation.from_rotvec([0, np.radians(20), 0]).as_matrix()
    target, whole = ((x - root) @ turn.T + root for x in (c.source, c.vertices))
    arguments = (c.vertices, c.source, target, SMPL.bones, c.A, c.W)
    aligned = reference.calibrate(*arguments, prealign="torso", torso=SMPL.torso)
    np.testing.assert_allclose(aligned, whole, atol=1e-6)  # A is a float32 simplex
    assert np.abs(reference.calibrate(*arguments) - whole).max() > 0.05


def test_an_unseen_torso_is_not_turned_and_a_half_seen_one_less(rng):
    c = case(rng, batch=1)
    turn = Rotation.from_rotvec([0, 1.0, 0]).as_matrix()
    target = c.source @ turn.T
    angles = []
    for weight in (0.0, 0.25, 0.5, 1.0):
        weights = np.full((1, 24), weight)
        R = reference.torso_rotation(c.source, target, SMPL.torso, weights)
        angles.append(Rotation.from_matrix(R[0]).magnitude())
    assert angles[0] < 1e-7
    assert angles == sorted(angles)
    assert angles[-1] == pytest.approx(1.0)


def test_the_fitted_scale_undoes_a_scaled_target(rng):
    c = case(rng)
    fitted, plain = (
        reference.calibrate(c.vertices, c.source, target, SMPL.bones, c.A, c.W, scale="fit")
        for target in (3 * c.source, c.source)
    )
    np.testing.assert_allclose(fitted, plain, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(fitted, c.vertices, atol=1e-6)
