"""Viewing rays of crops and the body's translation, by hand and by their invariants."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pchmr.camera import Camera
from pchmr.crops import Roi, image_to_roi_frame
from pchmr.placement import NEAREST_M, points_to_crop, ray_rotation, solve_translation, unproject

CAMERA = Camera(1400.0, 1400.0, 960.0, 540.0)
PIXEL = st.tuples(st.floats(-200, 2100), st.floats(-200, 1300))
ANGLE = st.floats(-3.1, 3.1)


def rotation(center: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    return ray_rotation(np.array([center]), np.array([angle]), CAMERA)[0]


def body(rng: np.random.Generator, count: int = 33) -> np.ndarray:
    """(1, count, 3) points of about a person's size."""
    return rng.normal(size=(1, count, 3)) * (0.25, 0.5, 0.2)


@given(PIXEL, ANGLE)
def test_ray_rotation_is_a_rotation_onto_the_ray(center: tuple[float, float], angle: float) -> None:
    R = rotation(center, angle)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    ray = np.linalg.inv(CAMERA.matrix) @ (*center, 1.0)
    np.testing.assert_allclose(R @ (0, 0, 1), ray / np.linalg.norm(ray), atol=1e-12)


def test_ray_rotation_without_roll_is_the_shortest_turn() -> None:
    R = rotation((1500.0, 100.0))
    ray = R[:, 2]
    axis = np.array([-ray[1], ray[0], 0.0])  # (0, 0, 1) x ray
    np.testing.assert_allclose(R @ axis, axis, atol=1e-12)
    assert (np.trace(R) - 1) / 2 == pytest.approx(ray[2])


@given(ANGLE)
def test_roll_is_the_rois_own_turn(angle: float) -> None:
    """On the axis the rotation's x, y part is the linear part of the ROI's affine."""
    roi = Roi((CAMERA.cx, CAMERA.cy), 400.0, angle)
    points = np.array([[1010.0, 500.0], [960.0, 340.0], [700.0, 600.0]])
    R = rotation(roi.center, angle)
    expected = image_to_roi_frame(roi, points)
    got = points_to_crop(points[None], R[None], np.array([roi.size]), CAMERA)[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@given(PIXEL, ANGLE, st.floats(50, 900))
def test_the_middle_of_a_crop_is_its_origin(
    center: tuple[float, float], angle: float, size: float
) -> None:
    got = points_to_crop(
        np.array([[center]]), rotation(center, angle)[None], np.array([size]), CAMERA
    )
    np.testing.assert_allclose(got, 0.0, atol=1e-5)
    assert got.dtype == np.float32


def test_a_small_crop_off_the_axis_keeps_its_own_upright() -> None:
    """Away from the axis the two differ only by the perspective within the crop."""
    roi = Roi((1500.0, 200.0), 60.0, 0.4)
    up = np.array([roi.center]) + 25.0 * np.array([[np.sin(roi.angle), -np.cos(roi.angle)]])
    got = points_to_crop(
        up[None], rotation(roi.center, roi.angle)[None], np.array([roi.size]), CAMERA
    )[0, 0]
    np.testing.assert_allclose(got, image_to_roi_frame(roi, up)[0], atol=0.15)
    assert got[1] < -0.5


def test_points_behind_the_crops_camera_stay_finite() -> None:
    R = rotation((960.0, 540.0)) @ np.diag([-1.0, 1.0, -1.0])
    got = points_to_crop(np.array([[[1000.0, 540.0]]]), R[None], np.array([100.0]), CAMERA)
    assert np.isfinite(got).all()


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(2.5, 60), st.integers(0, 1000))
def test_solve_translation_recovers_what_was_there(x: float, y: float, z: float, seed: int) -> None:
    points, t = body(np.random.default_rng(seed)), np.array([[x, y, z]])
    keypoints = np.ones((1, 33, 3))
    keypoints[..., :2] = CAMERA.project(points + t)
    got, ok = solve_translation(points, keypoints, CAMERA)
    assert ok.all()
    np.testing.assert_allclose(got, t, atol=1e-6)


def test_solve_translation_takes_rows_alone_and_weights_points(rng: np.random.Generator) -> None:
    points, t = np.concatenate([body(rng), body(rng)]), np.array([[0.5, 0.2, 4.0], [-1, 0, 9.0]])
    keypoints = np.ones((2, 33, 3))
    keypoints[..., :2] = CAMERA.project(points + t[:, None])
    keypoints[1, :10, :2] += 500.0  # far off, but not seen
    keypoints[1, :10, 2] = 0.0
    got, ok = solve_translation(points, keypoints, CAMERA)
    assert ok.all()
    np.testing.assert_allclose(got, t, atol=1e-3)
    alone, _ = solve_translation(points[1:], keypoints[1:], CAMERA)
    np.testing.assert_array_equal(alone, got[1:])


def test_solve_translation_bears_noise(rng: np.random.Generator) -> None:
    """A pixel of noise on a person 5 m away moves it by centimetres in depth, not by metres."""
    points, t = body(rng), np.array([[0.3, -0.1, 5.0]])
    keypoints = np.ones((1, 33, 3))
    keypoints[..., :2] = CAMERA.project(points + t) + rng.normal(size=(1, 33, 2))
    got, _ = solve_translation(points, keypoints, CAMERA)
    np.testing.assert_allclose(got[0, :2], t[0, :2], atol=0.01)
    np.testing.assert_allclose(got[0, 2], t[0, 2], atol=0.1)


@pytest.mark.parametrize(
    ("spoil", "placed"),
    [
        pytest.param(lambda k: k * (1, 0, 1) + (0, 540.0, 0), True, id="on one line"),
        pytest.param(lambda k: k * 0 + (960, 540, 1), False, id="on one point"),
        pytest.param(lambda k: (1920, 1080, 2) - k, False, id="upside down"),
        pytest.param(lambda k: k * (100, 100, 1), False, id="far too large"),
        pytest.param(lambda k: k * (1, 1, 0), True, id="nothing seen"),
    ],
)
def test_a_body_that_cannot_be_placed_stands_at_the_nearest_depth(
    spoil: Callable[[np.ndarray], np.ndarray], placed: bool, rng: np.random.Generator
) -> None:
    points = body(rng)
    keypoints = np.ones((1, 33, 3))
    keypoints[..., :2] = CAMERA.project(points + np.array([0.0, 0.0, 4.0]))
    got, ok = solve_translation(points, spoil(keypoints), CAMERA)
    assert ok.tolist() == [placed]
    assert np.isfinite(got).all()
    nearest = NEAREST_M - points[..., 2].min()
    assert got[0, 2] > nearest if placed else got[0, 2] == pytest.approx(nearest)


@given(st.floats(-200, 2100), st.floats(-200, 1300), st.floats(0.2, 50))
def test_unproject_and_project_are_inverse(u: float, v: float, depth: float) -> None:
    points = unproject(np.array([[[u, v]]]), np.array([[depth]]), CAMERA)
    assert points[0, 0, 2] == depth
    np.testing.assert_allclose(CAMERA.project(points)[0, 0], (u, v), atol=1e-8)
