"""The native steps between a person's networks against plain NumPy, over arrays at random."""

import math

import numpy as np
import pytest

from pchmr_kernels.geometry import ray_rotation
from pchmr_kernels.heatmaps import refine_peaks
from pchmr_kernels.person import (
    FOUND,
    LANDMARKS,
    POINTS,
    WORLD,
    ImageTarget,
    LandmarkDecoder,
    pose_rotmats,
    view_people,
)

LENS = (900.0, 950.0, 320.0, 250.0)


def rotations(rng, *shape):
    q, _ = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))
    return q * np.sign(np.linalg.det(q))[..., None, None]


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_landmarks_in_the_frame(batch, refined, rng):
    points = rng.uniform(-20, 280, (4, POINTS, 5)).astype(np.float32)
    points[..., 3:] = rng.normal(0, 4, (4, POINTS, 2))
    world = rng.normal(size=(4, POINTS, 3)).astype(np.float32)
    maps = rng.normal(-1, 2, (4, 64, 64, POINTS)).astype(np.float32) if refined else None
    regions = np.concatenate([rng.uniform(100, 700, (batch, 3)), rng.uniform(-3, 3, (batch, 1))], 1)
    scores = rng.random((4, 1)).astype(np.float32)
    found = LandmarkDecoder(points, scores, world, maps, 256, 4)(regions).view(FOUND)
    assert len(found) == batch
    for row, (x, y, size, angle) in enumerate(regions):
        crop = points[row, :, :2]
        if maps is not None:
            crop = refine_peaks(np.ascontiguousarray(crop), maps[row], 4.0, 4)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        image = (crop.astype(np.float64) - 128) @ turn.T * size / 256 + (x, y)
        (one,) = found[row]
        assert one["score"] == scores[row, 0]
        np.testing.assert_allclose(one["keypoints_2d"][:, :2], image[:LANDMARKS], rtol=1e-5)
        np.testing.assert_allclose(one["auxiliary"], image[LANDMARKS : LANDMARKS + 2], rtol=1e-5)
        logits = points[row, :LANDMARKS, 3:]
        np.testing.assert_allclose(one["keypoints_2d"][:, 2], sigmoid(logits[:, 0]), atol=1e-6)
        np.testing.assert_allclose(one["presence"], sigmoid(logits[:, 1]), atol=1e-6)
        depth = points[row, :LANDMARKS, 2] * size / 256
        np.testing.assert_allclose(one["depth_px"], depth, rtol=1e-6)
        upright = world[row, :LANDMARKS].astype(np.float64)
        upright[:, :2] = upright[:, :2] @ turn.T
        np.testing.assert_allclose(one["world"], upright, atol=1e-6)
        np.testing.assert_array_equal(one["region"], (x, y, size, angle))
        hips, above = one["auxiliary"].astype(np.float64)
        (x, y), (up, left) = above - hips, hips
        expected = (up, left, 2.5 * math.hypot(x, y), math.atan2(x, -y))
        np.testing.assert_allclose(one["next_region"], expected, rtol=1e-12)


def test_points_that_are_no_numbers_stay_none(rng):
    points = np.full((1, POINTS, 5), np.nan, np.float32)
    points[0, 1] = 1e30
    maps = np.zeros((1, 64, 64, POINTS), np.float32)
    world = np.zeros((1, POINTS, 3), np.float32)
    decode = LandmarkDecoder(points, np.ones((1, 1), np.float32), world, maps, 256, 4)
    ((one,),) = decode(np.array([[1.0, 2, 3, 0]])).view(FOUND)
    assert np.isnan(one["keypoints_2d"][0]).all()
    assert one["score"] == 0
    points[:] = 5
    ((one,),) = decode(np.array([[1.0, 2, 3, 0]])).view(FOUND)  # of the array as it is now
    assert one["score"] == 1


def test_landmarks_refuse():
    points, world = np.zeros((1, POINTS, 5), np.float32), np.zeros((1, POINTS, 3), np.float32)
    scores, maps = np.zeros((1, 1), np.float32), np.zeros((1, 8, 9, 39), np.float32)
    decode = LandmarkDecoder(points, scores, world, None, 256, 4)
    with pytest.raises(ValueError, match="2 regions, but points has 1 rows"):
        decode(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"regions is \(1, 3\); expected \(1, 4\)"):
        decode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="heatmaps is"):
        LandmarkDecoder(points, scores, world, maps, 8, 4)
    with pytest.raises(TypeError, match="scores is float64"):
        LandmarkDecoder(points, scores.astype(np.float64), world, None, 8, 4)


@pytest.mark.parametrize("seen", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch", [0, 1, 20])
def test_view_people(batch, seen, rng):
    found = np.zeros(batch, FOUND)
    keypoints, world, regions = found["keypoints_2d"], found["world"], found["region"]
    keypoints[:] = rng.uniform(-50, 700, (batch, LANDMARKS, 3))
    keypoints[..., 2] = rng.uniform(0, 1, (batch, LANDMARKS))
    world[:] = rng.normal(size=(batch, LANDMARKS, 3))
    regions[:, :3], regions[:, 3] = rng.uniform(100, 700, (batch, 3)), rng.uniform(-3, 3, batch)
    raw = found.view(np.uint8).reshape(batch, FOUND.itemsize)
    views = view_people(raw, LENS, seen, (640, 480))
    np.testing.assert_array_equal(views["keypoints"], keypoints)
    np.testing.assert_array_equal(views["size"], regions[:, 2])
    rotation = ray_rotation(regions[:, :2], regions[:, 3], LENS)
    np.testing.assert_array_equal(views["rotation"], rotation)
    upright = ray_rotation(regions[:, :2], None, LENS)
    np.testing.assert_allclose(views["world"], world @ upright.swapaxes(1, 2), atol=1e-14)
    for box, points in zip(views["box"], keypoints, strict=True):
        visible = points[points[:, 2] > seen, :2]
        kept = visible if len(visible) else points[:, :2]
        corners = np.concatenate([kept.min(0), kept.max(0)])
        np.testing.assert_array_equal(box, np.clip(corners, 0, [640, 480, 640, 480]))
    np.testing.assert_array_equal(views["visible"], (keypoints[..., 2] > seen).sum(1))
    with pytest.raises(ValueError, match="expected uint8 of FOUND"):
        view_people(raw[:, 1:], LENS, seen, (640, 480))


def test_pose_rotmats(rng):
    rot6d, root = rng.normal(size=(3, 24, 6)).astype(np.float32), rotations(rng, 3)
    rotmats = pose_rotmats(rot6d, root)
    first, second = rot6d[..., 0::2].astype(np.float64), rot6d[..., 1::2].astype(np.float64)
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    y = second - (x * second).sum(-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    expected = np.stack([x, y, np.cross(x, y)], -1)
    expected[:, 0] = root @ expected[:, 0]
    np.testing.assert_allclose(rotmats, expected, atol=1e-12)
    assert not pose_rotmats(np.zeros((1, 2, 6), np.float32), root[:1]).any()
    with pytest.raises(ValueError, match=r"rot6d is \(3, 24, 3\); expected \(3, 24, 6\)"):
        pose_rotmats(rot6d[..., :3], root)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_image_target(batch, rng):
    joints, landmarks = rng.normal(size=(batch, 24, 3)), rng.normal(size=(batch, LANDMARKS, 3))
    keypoints = rng.uniform(0, 600, (batch, LANDMARKS, 3))
    keypoints[..., 2] = rng.uniform(0, 1, (batch, LANDMARKS))
    world, root = rng.normal(size=(batch, LANDMARKS, 3)), rng.normal(size=(batch, 3))
    root[1:, 2] += 5  # the first is partly behind the camera
    carry, trust = rng.random((2, 24, LANDMARKS)).astype(np.float32)
    carry[carry < 0.7] = 0
    target, confidence = ImageTarget(carry, trust)(joints, landmarks, keypoints, world, root, LENS)
    hips = landmarks[:, 23:25].mean(1, keepdims=True)
    depth = (1 - WORLD) * landmarks[..., 2] + WORLD * (world + hips)[..., 2] + root[:, 2:]
    rays = np.ones((batch, LANDMARKS, 3))
    rays[..., :2] = (keypoints[..., :2] - LENS[2:]) / LENS[:2]
    seen = rays * np.maximum(depth, 0.1)[..., None]
    residual = (seen - root[:, None] - landmarks) * keypoints[..., 2:]
    np.testing.assert_allclose(target, joints + carry.astype(np.float64) @ residual, atol=1e-9)
    np.testing.assert_allclose(confidence, keypoints[..., 2] @ trust.T.astype(np.float64))
    with pytest.raises(ValueError, match="landmarks, keypoints and world are"):
        ImageTarget(carry, trust)(joints, landmarks, keypoints, world[:, 1:], root, LENS)
    with pytest.raises(ValueError, match=r"trust is \(24, 32\); expected \(24, 33\)"):
        ImageTarget(carry, trust[:, 1:])
