"""The native geometry against plain NumPy; what it means is tested in tests/sdk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pchmr_kernels.geometry import (
    NEAREST_M,
    forward_kinematics,
    points_to_crop,
    ray_rotation,
    rotate,
    solve_translation,
    translate,
)

PARENTS = np.array([-1, 0, 1, 0, 3, 3])
LENS = (900.0, 950.0, 320.0, 250.0)


def rotations(rng: np.random.Generator, *shape: int) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))
    return q * np.sign(np.linalg.det(q))[..., None, None]


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_forward_kinematics_follows_the_chain(rng: np.random.Generator, batch: int) -> None:
    rotmats = rotations(rng, batch, len(PARENTS))
    rest = rng.normal(size=(batch, len(PARENTS), 3))
    transforms, posed = forward_kinematics(rotmats, rest, PARENTS)
    for row in range(batch):
        world = np.zeros((len(PARENTS), 4, 4))
        for j, parent in enumerate(PARENTS):
            local = np.eye(4)
            local[:3, :3] = rotmats[row, j]
            local[:3, 3] = rest[row, j] - (rest[row, parent] if parent >= 0 else 0)
            world[j] = local if parent < 0 else world[parent] @ local
        np.testing.assert_allclose(posed[row], world[:, :3, 3], atol=1e-14)
        np.testing.assert_allclose(transforms[row, ..., :3], world[:, :3, :3], atol=1e-14)
        moved = (transforms[row, ..., :3] @ rest[row, ..., None])[..., 0] + transforms[row, ..., 3]
        np.testing.assert_allclose(moved, posed[row], atol=1e-14)


def test_forward_kinematics_refuses(rng: np.random.Generator) -> None:
    rest = np.zeros((1, 2, 3))
    with pytest.raises(ValueError, match="each before its children"):
        forward_kinematics(rotations(rng, 1, 2), rest, np.array([1, -1]))
    with pytest.raises(ValueError, match=r"rest_joints is \(1, 2, 3\); expected \(1, 3, 3\)"):
        forward_kinematics(rotations(rng, 1, 3), rest, np.array([-1, 0, 1]))


@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_translation_is_the_least_squares_one(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.5, (2, count, 3))
    true = np.array([[0.3, -0.2, 3.0], [-1.0, 0.4, 7.0]])
    placed = points + true[:, None]
    keypoints = np.ones((2, count, 3))
    keypoints[..., :2] = placed[..., :2] / placed[..., 2:] * LENS[:2] + LENS[2:]
    keypoints[..., :2] += rng.normal(0, 1, (2, count, 2))
    keypoints[..., 2] = rng.uniform(0.1, 1, (2, count))
    found, ok = solve_translation(points, keypoints, LENS)
    assert ok.all()
    ray = (keypoints[..., :2] - LENS[2:]) / LENS[:2]
    for row in range(2):
        rows = np.zeros((2, count, 3))
        rows[:, :, 2] = -ray[row].T
        rows[0, :, 0] = rows[1, :, 1] = 1
        right = (ray[row] * points[row, :, 2:] - points[row, :, :2]).T
        weight = np.sqrt(keypoints[row, :, 2])
        matrix, vector = (rows * weight[:, None]).reshape(-1, 3), (right * weight).reshape(-1)
        expected = np.linalg.lstsq(matrix, vector, rcond=None)[0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-7, atol=1e-7)


def test_translation_that_fails_is_the_nearest() -> None:
    points = np.zeros((1, 4, 3))
    points[0, :, 2] = [0.1, 0.2, 0.3, -0.4]
    keypoints = np.full((1, 4, 3), 100.0)  # all on one pixel: no depth can be told
    translation, ok = solve_translation(points, keypoints, LENS)
    assert not ok[0]
    assert translation[0, 2] == pytest.approx(NEAREST_M + 0.4)
    keypoints[0, 1, 0] = np.nan
    assert not solve_translation(points, keypoints, LENS)[1][0]


def test_points_to_crop_projects_into_the_crops_camera(rng: np.random.Generator) -> None:
    points = rng.uniform(0, 500, (3, 7, 2))
    turn, side = rotations(rng, 3), np.array([100.0, 250, 400])
    turn[0] = np.eye(3)
    seen = points_to_crop(points, turn, side, LENS)
    rays = np.concatenate([(points - LENS[2:]) / LENS[:2], np.ones((3, 7, 1))], -1) @ turn
    expected = 2 * LENS[0] / side[:, None, None] * rays[..., :2] / np.maximum(rays[..., 2:], 1e-3)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_points_to_crop_takes_columns_and_weights(rng: np.random.Generator) -> None:
    points = rng.uniform(0, 500, (2, 7, 3))
    turn, side = rotations(rng, 2), np.array([100.0, 250])
    whole = points_to_crop(points, turn, side, LENS)
    np.testing.assert_array_equal(whole[..., 2], points[..., 2].astype(np.float32))
    np.testing.assert_array_equal(whole[..., :2], points_to_crop(points[..., :2], turn, side, LENS))
    columns, out = np.array([5, 0, 5], np.int32), np.empty((2, 3, 3), np.float32)
    assert points_to_crop(points, turn, side, LENS, columns, out) is out
    np.testing.assert_array_equal(out, whole[:, columns])


def test_ray_rotation_turns_the_axis_onto_the_ray_after_the_roll(rng: np.random.Generator) -> None:
    centre, roll = rng.uniform(-500, 1500, (5, 2)), rng.uniform(-3, 3, 5)
    upright = ray_rotation(centre, None, LENS)
    rays = np.concatenate([(centre - LENS[2:]) / LENS[:2], np.ones((5, 1))], 1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    for row, (x, y, z) in enumerate(rays):
        skew = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])  # of (-y, x, 0)
        turn = np.eye(3) + skew + skew @ skew / (1 + z)
        np.testing.assert_allclose(upright[row], turn, atol=1e-14)
        c, s = np.cos(roll[row]), np.sin(roll[row])
        rolled = turn @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
        np.testing.assert_allclose(ray_rotation(centre, roll, LENS)[row], rolled, atol=1e-14)


def test_rotate(rng: np.random.Generator) -> None:
    points, turn = rng.normal(size=(3, 7, 3)).astype(np.float32), rotations(rng, 3)
    np.testing.assert_allclose(rotate(points, turn), points @ turn.swapaxes(1, 2), atol=1e-14)
    halves = points.astype(np.float16)
    np.testing.assert_array_equal(rotate(halves, turn), rotate(halves.astype(np.float32), turn))
    with pytest.raises(ValueError, match=r"points is \(3, 7, 2\); expected \(3, 7, 3\)"):
        rotate(points[..., :2], turn)


def test_translate(rng: np.random.Generator) -> None:
    points, shift = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 7, 3), (3, 3)))
    np.testing.assert_array_equal(translate(points, shift), points + shift[:, None])
    np.testing.assert_array_equal(translate(points[:, ::2], shift), points[:, ::2] + shift[:, None])
    with pytest.raises(TypeError, match="shift is float64"):
        translate(points, shift.astype(np.float64))
