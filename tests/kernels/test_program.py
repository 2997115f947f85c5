"""Programs of native calls: the same as the calls one by one, and what they refuse."""

import time

import numpy as np
import pytest

from pchmr_kernels import geometry
from pchmr_kernels.body import Joints, Regressor
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.person import ImageTarget
from pchmr_kernels.program import Program, address_of
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import from_dense

LENS = (900.0, 950.0, 320.0, 250.0)


def test_calls_run_in_turn_on_what_the_arrays_hold(rng):
    points, turned = rng.normal(size=(2, 5, 3)).astype(np.float32), np.empty((2, 5, 3))
    turn, narrow = np.empty((2, 3, 3)), np.empty((2, 5, 3), np.float32)
    program = Program()
    program.add("rotate_f64", 2, 5, points, turn, turned)
    program.add("narrow_f32", turned.size, turned, narrow)
    for _ in range(2):
        points[:], turn[:] = rng.normal(size=points.shape), rng.normal(size=turn.shape)
        program()
        np.testing.assert_array_equal(turned, geometry.rotate(points, turn))
        np.testing.assert_array_equal(narrow, turned.astype(np.float32))


def test_another_argument_is_put_in_place_of_one(rng):
    points = rng.normal(size=(1, 4, 3)).astype(np.float32)
    first, second = np.zeros_like(points), np.zeros_like(points)
    shift = np.ones((1, 3), np.float32)
    program = Program()
    place = program.add("translate_f32", 1, 4, points, shift, first)
    program.put(place + 4, address_of(second))
    program()
    assert not first.any()
    np.testing.assert_array_equal(second, points + 1)
    program.put(place + 4, address_of(first))
    program.put(place + 1, 3)
    program()
    np.testing.assert_array_equal(first[0, :3], points[0, :3] + 1)
    assert not first[0, 3].any()


def test_doubles_and_structures_are_passed_on(rng):
    """A calibration, whose bones and weights are structures; and people before a camera."""
    skeleton = get_skeleton("smpl24")
    weights = from_dense(rng.dirichlet(np.ones(23), 50), rng.random((50, 23)))
    calibrator = Calibrator(skeleton, weights)
    vertices = rng.normal(size=(1, 50, 3)).astype(np.float32)
    source, target = rng.normal(size=(2, 1, 24, 3))
    confidence, out = rng.random((1, 24)), np.empty_like(vertices)
    program = Program()
    program.add("calibrate_f32", *calibrator.arguments(vertices, source, target, confidence, out))
    program()
    np.testing.assert_array_equal(out, calibrator(vertices, source, target, confidence))


def test_small_steps_between(rng):
    joints, translation = rng.normal(size=(3, 6, 3)).astype(np.float32), rng.normal(size=(3, 3))
    translation[:, 2] += 5
    places, wide = np.empty((3, 3)), np.empty((3, 6, 3))
    moved = np.empty((3, 6, 3), np.float32)
    program = Program()
    program.add("joint_places_f64", 3, 6, 2, joints, translation, places)
    program.add("widen_f64", joints.size, joints, wide)
    program.add("move_joints_f32", 3, 6, 4, wide, places, moved)
    program()
    np.testing.assert_array_equal(places, translation + joints[:, 2])
    np.testing.assert_array_equal(wide, joints)
    expected = wide + (places - wide[:, 4])[:, None]
    np.testing.assert_array_equal(moved, expected.astype(np.float32))

    keypoints = geometry.project(joints, translation, LENS)
    points = joints + translation[:, None]
    pixels = points[..., :2] / points[..., 2:] * LENS[:2] + LENS[2:]
    np.testing.assert_allclose(keypoints[..., :2], pixels, rtol=1e-12)
    assert (keypoints[..., 2] == 1).all()


def test_the_clock_is_pythons():
    now = np.zeros(2, np.int64)
    program = Program()
    program.add("clock_ns", now)
    program.add("clock_ns", now[1:])
    before = time.perf_counter_ns()
    program()
    assert before <= now[0] <= now[1] <= time.perf_counter_ns()


def test_a_call_that_fails_ends_the_program_with_its_message(rng):
    skeleton = get_skeleton("smpl24")
    weights = from_dense(rng.dirichlet(np.ones(23), 5), rng.random((5, 23)))
    calibrator, missing = Calibrator(skeleton, weights), np.full((1, 24, 3), np.nan)
    calibrator._bones.joints = 1000  # more than the library takes
    vertices, after = np.zeros((1, 5, 3), np.float32), np.zeros(1, np.int64)
    program = Program()
    arguments = calibrator.arguments(vertices, missing, missing, np.ones((1, 24)), vertices)
    program.add("calibrate_f32", *arguments)
    program.add("clock_ns", after)
    with pytest.raises(ValueError, match="1000"):
        program()
    assert not after.any()


def test_arguments_that_do_not_fit_are_refused(rng):
    """Before anything is read: a network's output of other joints, say."""
    skeleton = get_skeleton("smpl24")
    calibrator = Calibrator(skeleton, from_dense(rng.dirichlet(np.ones(23), 5), np.ones((5, 23))))
    mesh, joints = np.zeros((1, 5, 3), np.float32), np.zeros((1, 24, 3))
    calibrator.arguments(mesh, joints, joints, joints[..., 0].copy(), mesh)
    with pytest.raises(ValueError, match=r"target is float64 \(1, 23, 3\)"):
        calibrator.arguments(mesh, joints, joints[:, 1:], joints[..., 0].copy(), mesh)
    target = ImageTarget(np.ones((24, 33)), np.ones((24, 33)))
    landmarks, root = np.zeros((1, 33, 3)), np.zeros((1, 3))
    arrays = joints, landmarks, landmarks, landmarks, root, joints, joints[..., 0].copy()
    target.arguments(np.zeros(4), *arrays)
    with pytest.raises(ValueError, match=r"joints is float64 \(1, 17, 3\)"):
        target.arguments(np.zeros(4), joints[:, :17], *arrays[1:])
    pose = Joints(np.array([-1, 0]), np.zeros((3, 2, 3)), pose_blends=False)
    with pytest.raises(ValueError, match=r"rotmats is float64 \(1, 3, 3, 3\)"):
        pose.arguments(np.zeros((1, 3, 3, 3)), np.zeros((1, 2)))


def test_what_a_program_refuses(rng):
    program, points = Program(), rng.normal(size=(2, 5, 3))
    with pytest.raises(ValueError, match="no program can call 'run_program'"):
        program.add("run_program", 1, points)
    with pytest.raises(ValueError, match="narrow_f32 takes 3 arguments; got 2"):
        program.add("narrow_f32", points.size, points)
    with pytest.raises(ValueError, match="strides"):
        program.add("narrow_f32", 15, points[:, ::2], points)
    with pytest.raises(TypeError):
        program.add("narrow_f32", "15", points, points)
    program()  # nothing


def test_arguments_of_a_regressor(rng):
    matrix = rng.random((3, 8)) * (rng.random((3, 8)) > 0.5)
    regress, vertices = Regressor(matrix), rng.normal(size=(2, 8, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"vertices is float32 \(2, 7, 3\); expected a C-contig"):
        regress.arguments(vertices[:, 1:], vertices[:, :3])
    with pytest.raises(ValueError, match=r"out is float64 \(2, 3, 3\)"):
        regress.arguments(vertices, np.empty((2, 3, 3)))
    out = np.empty((2, 3, 3), np.float32)
    program = Program()
    program.add("regress_f32", *regress.arguments(vertices, out))
    program()
    np.testing.assert_array_equal(out, regress(vertices))
