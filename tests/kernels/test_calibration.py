import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import TOLERANCE, Case, case, chain, rigid, widest_angle

from pchmr_kernels import native, reference
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import from_dense

SMPL = get_skeleton("smpl24")
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
skeletons = st.sampled_from(["smpl24", "h36m17", "pose2mesh_coco19", "posenet21_muco"])
options = st.fixed_dictionaries(
    {"prealign": st.sampled_from(["none", "torso"]), "scale": st.sampled_from(["none", "fit"])}
)


def judged(c: Case, skeleton, confidence=None, alpha=None, **options):
    """The reference's answer to the call the native one gets."""
    return reference.calibrate(
        *(c.vertices, c.source, c.target, skeleton.bones, c.A, c.W, skeleton.root),
        torso=skeleton.torso,
        axes=skeleton.body_axes,
        confidence=confidence,
        alpha=alpha,
        **options,
    )


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("slots", [1, 4, 6, 8])
def test_native_agrees_with_the_reference(batch, slots, rng):
    c = case(rng, batch=batch, slots=slots)
    moved = Calibrator(SMPL, c.weights)(c.vertices, c.source, c.target)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, judged(c, SMPL), atol=TOLERANCE["float32"])


@pytest.mark.parametrize("joints", [1, 2, 65])
def test_native_agrees_with_the_reference_from_no_bone_to_64(joints, rng):
    skeleton = chain(joints)
    c = case(rng, skeleton) if joints > 1 else None
    if c is None:  # nothing to follow
        with pytest.raises(ValueError, match="weights name 23 bones; there are 0"):
            Calibrator(skeleton, case(rng).weights)
        return
    transforms, delta, centre = Calibrator(skeleton, c.weights).bone_transforms(c.source, c.target)
    target = reference.root_align(c.source, c.target) - centre[:, None]
    psi, t, expected = reference.bone_transforms(c.source - centre[:, None], target, skeleton.bones)
    np.testing.assert_allclose(transforms[..., :3], psi, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(transforms[..., 3], t, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(delta, expected, atol=TOLERANCE["float64"])


@settings(max_examples=60, deadline=None)
@given(seeds, skeletons, options, st.booleans(), st.sampled_from([0.0, 3.0, 60.0]))
def test_native_agrees_with_the_reference_under_every_option(rng, name, options, faded, distance):
    skeleton = get_skeleton(name)
    c = case(rng, skeleton, distance=distance)
    confidence = rng.uniform(0, 1, c.source.shape[:2]) if faded else None
    if faded:
        c.target[rng.random(c.target.shape[:2]) < 0.1] = np.nan
    alpha = rng.uniform(-3, 3, (2, len(skeleton.bones)))
    moved = Calibrator(skeleton, c.weights, **options)(
        c.vertices, c.source, c.target, confidence, alpha
    )
    tolerance = TOLERANCE["float32 at 60 m" if distance > 10 else "float32"]
    expected = judged(c, skeleton, confidence, alpha, **options)
    np.testing.assert_allclose(moved, expected, atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(seeds, skeletons, options, st.booleans())
def test_moving_everything_rigidly_moves_the_result(rng, name, options, faded):
    skeleton = get_skeleton(name)
    c, move = case(rng, skeleton), rigid(rng)
    assume(widest_angle(c.source, c.target, skeleton) < np.pi - 0.01)
    confidence = rng.uniform(0, 1, c.source.shape[:2]) if faded else None
    A = c.A / c.A.sum(1, keepdims=True)  # on the simplex to the last digit, which float32 is not
    c = Case(c.vertices, c.source, c.target, c.weights, A, c.W)
    moved = Case(move(c.vertices), move(c.source), move(c.target), c.weights, A, c.W)
    np.testing.assert_allclose(
        judged(moved, skeleton, confidence, **options),
        move(judged(c, skeleton, confidence, **options)),
        atol=TOLERANCE["float64 fit" if options["prealign"] == "torso" else "float64"],
    )


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_moving_the_mesh_stream_moves_the_result_and_moving_the_target_does_not(rng):
    c = case(rng)
    calibrate = Calibrator(SMPL, c.weights)
    shift = np.array([0.5, -0.25, 60], np.float32)  # exact in float32 at this distance
    plain = calibrate(c.vertices, c.source, c.target)
    shifted = calibrate(c.vertices + shift, c.source + shift, c.target)
    np.testing.assert_allclose(shifted, plain + shift, atol=2 * TOLERANCE["float32 at 60 m"])
    elsewhere = calibrate(c.vertices, c.source, c.target + shift)
    np.testing.assert_allclose(elsewhere, plain, atol=TOLERANCE["float32"])


@settings(max_examples=30, deadline=None)
@given(seeds, skeletons)
def test_a_point_held_by_the_bones_of_a_joint_lands_on_its_target(rng, name):
    skeleton = get_skeleton(name)
    c = case(rng, skeleton, batch=1)
    J, K = len(skeleton), len(skeleton.bones)
    A, W = np.zeros((J, K)), np.zeros((J, K))
    for k, (parent, child) in enumerate(skeleton.bones):
        A[parent, k], A[child, k], W[child, k] = (*rng.uniform(0.1, 1, 2), 1)
    A /= A.sum(1, keepdims=True)
    moved = Calibrator(skeleton, from_dense(A, W, 8))(
        c.source.astype(np.float32), c.source, c.target
    )
    aligned = reference.root_align(c.source, c.target, skeleton.root)
    np.testing.assert_allclose(moved, aligned, atol=TOLERANCE["weights"])


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_delta_lies_along_the_target_bone(rng):
    c = case(rng, batch=1)
    _, delta, _ = Calibrator(SMPL, c.weights).bone_transforms(c.source, c.target)
    parent, child = SMPL.bones.T
    bone = c.target[:, parent] - c.target[:, child]
    np.testing.assert_allclose(np.cross(delta, bone), 0, atol=TOLERANCE["float64"])


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-8, 1e-4, 1e-2])
@pytest.mark.parametrize("flip", [1, -1])
def test_bones_parallel_and_antiparallel_up_to_a_small_angle(off, flip, rng):
    """Every bone of the target is the source's, turned over or not, `off` radians beside it."""
    c = case(rng, batch=1)
    target = c.source.copy()
    for parent, child in SMPL.bones:
        bone = c.source[0, parent] - c.source[0, child]
        axis = np.cross(bone, rng.normal(size=3))
        turn = reference.rotation(axis / np.linalg.norm(axis), off)
        target[0, child] = target[0, parent] - flip * 1.5 * turn @ bone
    c = Case(c.vertices, c.source, target, c.weights, c.A, c.W)
    calibrate = Calibrator(SMPL, c.weights)
    transforms, _, _ = calibrate.bone_transforms(c.source, target)
    psi = transforms[0, :, :, :3]
    np.testing.assert_allclose(
        psi @ psi.transpose(0, 2, 1), np.eye(3)[None].repeat(23, 0), atol=TOLERANCE["float64"]
    )
    if flip == 1 or off == 0 or off >= 1e-4:  # between them rounding decides which way round
        np.testing.assert_allclose(
            calibrate(c.vertices, c.source, target), judged(c, SMPL), atol=TOLERANCE["float32"]
        )


def test_bones_without_length_do_not_turn(rng):
    c = case(rng, batch=2)
    c.source[0, SMPL.index("left_hand")] = c.source[0, SMPL.index("left_wrist")]
    c.target[1, SMPL.index("head")] = c.target[1, SMPL.index("neck")]
    moved = Calibrator(SMPL, c.weights)(c.vertices, c.source, c.target)
    np.testing.assert_allclose(moved, judged(c, SMPL), atol=TOLERANCE["float32"])
    transforms, _, _ = Calibrator(SMPL, c.weights).bone_transforms(c.source, c.target)
    hand = SMPL.bones[:, 1].tolist().index(SMPL.index("left_hand"))
    np.testing.assert_array_equal(transforms[0, hand, :, :3], np.eye(3))


def test_a_target_nobody_saw_leaves_the_mesh_alone(rng):
    c = case(rng)
    nothing = np.full_like(c.target, np.nan)
    moved = Calibrator(SMPL, c.weights, prealign="torso", scale="fit")(
        c.vertices, c.source, nothing
    )
    np.testing.assert_allclose(moved, c.vertices, atol=TOLERANCE["float32"])
    unsure = np.full(c.target.shape[:2], 0.1)
    moved = Calibrator(SMPL, c.weights)(c.vertices, c.source, c.target, unsure)
    np.testing.assert_allclose(moved, c.vertices, atol=TOLERANCE["float32"])


def test_threads_and_place_in_the_batch_do_not_show(rng):
    c = case(rng, batch=4, vertices=9001)
    calibrate = Calibrator(SMPL, c.weights, prealign="torso")
    whole = calibrate(c.vertices, c.source, c.target)
    np.testing.assert_array_equal(calibrate(c.vertices, c.source, c.target, threads=4), whole)
    alone = calibrate(c.vertices[2:3], c.source[2:3], c.target[2:3])
    np.testing.assert_array_equal(alone[0], whole[2])


def test_inputs_may_be_strided_float32_and_written_in_place(rng):
    c = case(rng)
    calibrate = Calibrator(SMPL, c.weights)
    source, target = c.source.astype(np.float32), c.target.astype(np.float32)
    expected = calibrate(c.vertices, source, target)
    wide = np.zeros((2, 24, 4), np.float32)
    wide[..., :3] = target
    np.testing.assert_array_equal(calibrate(c.vertices, source, wide[..., :3]), expected)
    assert calibrate(c.vertices, source, target, out=c.vertices) is c.vertices
    np.testing.assert_array_equal(c.vertices, expected)


def test_bare_bones_serve_in_place_of_a_skeleton(rng):
    c = case(rng)
    bare = Calibrator(SMPL.bones, c.weights, "torso", torso=SMPL.torso, axes=SMPL.body_axes)
    named = Calibrator(SMPL, c.weights, "torso")
    arguments = (c.vertices, c.source, c.target)
    np.testing.assert_array_equal(bare(*arguments), named(*arguments))


def test_wrong_arrays_and_options_are_refused_by_name(rng):
    c = case(rng)
    calibrate = Calibrator(SMPL, c.weights)
    with pytest.raises(TypeError, match="vertices is float64; expected float32"):
        calibrate(c.vertices.astype(np.float64), c.source, c.target)
    with pytest.raises(ValueError, match=r"target is \(2, 17, 3\); expected \(2, 24, 3\)"):
        calibrate(c.vertices, c.source, c.target[:, :17])
    with pytest.raises(ValueError, match=r"confidence is \(24,\); expected \(2, 24\)"):
        calibrate(c.vertices, c.source, c.target, np.ones(24))
    with pytest.raises(
        ValueError, match="prealign is 'chest', scale is 'none'; expected 'none' or"
    ):
        Calibrator(SMPL, c.weights, prealign="chest")
    with pytest.raises(ValueError, match=r"fits at least 3 joints; torso is \[\]"):
        Calibrator(SMPL.bones, c.weights, prealign="torso")
    with pytest.raises(ValueError, match="weights name 23 bones; there are 16"):
        Calibrator(get_skeleton("h36m17"), c.weights)
    with pytest.raises(ValueError, match=r"thresholds are \(0.5, 0.5\); expected 0 <= low < high"):
        Calibrator(SMPL, c.weights, thresholds=(0.5, 0.5))
    long = chain(130)
    with pytest.raises(ValueError, match="130 joints and 129 bones; at most 128 of each"):
        Calibrator(long, c.weights).bone_transforms(*np.zeros((2, 1, 130, 3)))


def test_skinning_by_the_same_kernel_is_plain_linear_blending(rng):
    """Delta = 0: sum_s A (R v + t), SMPL's skinning."""
    c = case(rng)
    transforms = rng.normal(size=(2, 23, 3, 4)).astype(np.float32)
    homogeneous = np.concatenate([c.vertices, np.ones((2, 53, 1))], -1)
    expected = np.einsum("vk,bkmn,bvn->bvm", c.A, transforms, homogeneous)
    skinned = native.blend(c.vertices, transforms, c.weights)
    np.testing.assert_allclose(skinned, expected, atol=2 * TOLERANCE["float32"])
