"""BlazePose's arithmetic: hand-computed cases, and MediaPipe's own answers on real frames.

The golden values are those of MediaPipe 0.10.21 (`pose_landmark_cpu`, static images, complexity 1).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from blazepose_networks import BlazePose
from numpy.typing import NDArray

from pchmr.blazepose import (
    LandmarkDecoder,
    closer_rois,
    decode_detections,
    refine_landmarks,
    roi_from_alignment,
    ssd_anchors,
    weighted_nms,
)
from pchmr.crops import Roi, crop_to_image, image_to_roi_frame, letterbox_roi, transform_points
from pchmr_kernels.skeletons import get_skeleton

Image = NDArray[np.uint8]


def index(*names: str) -> list[int]:
    return [get_skeleton("blazepose33").index(name) for name in names]


def test_anchors() -> None:
    anchors = ssd_anchors()
    # 28^2 x 2 + 14^2 x 2 + 7^2 x 2 x 3
    assert anchors.shape == (1568 + 392 + 294, 2)
    assert anchors[:3].tolist() == [[4, 4], [4, 4], [12, 4]]
    assert anchors[1567].tolist() == [220, 220]
    assert anchors[1568].tolist() == [8, 8]
    assert anchors[1960:1967].tolist() == [[16, 16]] * 6 + [[48, 16]]
    assert anchors[-1].tolist() == [208, 208]


def empty_output() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((2254, 12), np.float32), np.full((2254, 1), -20, np.float32)


def test_decode_detections_by_hand() -> None:
    boxes, scores = empty_output()
    anchor = 1568 + 2 * (14 * 6 + 7)  # stride 16, row 6, column 7: centre (120, 104)
    boxes[anchor] = [1, 2, 40, 40, 0, 8, 0, -42, -4, 0, 3, 5]
    scores[anchor] = math.log(3)  # probability 3/4
    (person,) = decode_detections(boxes, scores, 448, 224)
    # 448 x 224 is letterboxed by a half, 56 detector pixels above it.
    assert person.score == pytest.approx(0.75)
    np.testing.assert_allclose(person.keypoints, [[240, 112], [240, 12], [232, 96], [246, 106]])
    assert person.box == pytest.approx((140, 12, 340, 212))
    assert person.roi == Roi((240.0, 112.0), 250.0, 0.0)
    (closer,) = decode_detections(boxes, scores, 448, 224, roi=Roi((100.0, 100.0), 112.0))
    np.testing.assert_allclose(closer.keypoints[:2], [[104, 100], [104, 75]])


def test_box_is_clipped_to_the_frame() -> None:
    boxes, scores = empty_output()
    boxes[0] = [0, 0, 40, 40, 100, 210, 100, 90, 100, 150, 100, 100]
    scores[0] = 200  # clipped, not overflowing
    (person,) = decode_detections(boxes, scores, 224, 224)
    assert person.score == 1.0
    assert person.box == pytest.approx((0, 94, 224, 224))


def test_threshold_and_extreme_logits() -> None:
    boxes, scores = empty_output()
    scores[:] = -1e4
    assert decode_detections(boxes, scores, 64, 48) == []
    scores[7] = -0.01
    assert decode_detections(boxes, scores, 64, 48) == []
    assert len(decode_detections(boxes, scores, 64, 48, threshold=0.4)) == 1


def test_weighted_nms_by_hand() -> None:
    # B overlaps A by 2/3, C is far; D overlaps A by 1/4 and no other.
    boxes = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60], [0, 6, 10, 16]])
    scores = np.array([0.6, 0.9, 0.8, 0.5])
    values = np.array([[1.0], [6.0], [9.0], [4.0]])
    (b, ab), (c, only_c), (d, only_d) = weighted_nms(boxes, scores, values)
    assert (b, c, d) == (0.9, 0.8, 0.5)
    assert ab[0] == pytest.approx((0.6 * 1 + 0.9 * 6) / 1.5)
    assert only_c[0] == pytest.approx(9)
    assert only_d[0] == pytest.approx(4)


def test_weighted_nms_without_area_ends() -> None:
    assert len(weighted_nms(np.zeros((3, 4)), np.ones(3), np.ones((3, 1)))) == 3
    assert weighted_nms(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 1))) == []


@pytest.mark.parametrize(
    ("above", "angle"),
    [
        ((300, 150), 0.0),
        ((350, 200), math.pi / 2),  # head to the right: the crop is turned clockwise
        ((250, 200), -math.pi / 2),
        ((300 + 30, 200 - 40), math.atan2(30, 40)),
        ((300, 250), math.pi),
    ],
)
def test_roi_from_two_points(above: tuple[int, int], angle: float) -> None:
    center = np.array([300, 200])
    roi = roi_from_alignment(center, np.array(above))
    assert roi.center == (300.0, 200.0)
    assert roi.size == pytest.approx(2.5 * 50)
    assert roi.angle == pytest.approx(angle)
    # `above` is straight up in the crop, 1 / 1.25 of the way to its edge.
    np.testing.assert_allclose(image_to_roi_frame(roi, np.array(above)), [0, -0.8], atol=1e-9)


def test_roi_of_one_point_has_a_size() -> None:
    assert roi_from_alignment(np.ones(2), np.ones(2)).size >= 1


@pytest.mark.parametrize("size", [(1768, 994), (1080, 1920), (500, 500), (640, 100)])
def test_roi_does_not_depend_on_the_aspect(size: tuple[int, int]) -> None:
    """The same geometry in pixels gives the same ROI: nothing is divided by width and height."""
    boxes, scores = empty_output()
    scores[0] = 5
    scale = 224 / max(size)
    center, above = np.array([200.0, 60.0]), np.array([230.0, 20.0])
    shift = (224 - scale * np.array(size)) / 2 - ssd_anchors()[0]
    boxes[0, 2:4] = 40
    boxes[0, 4:8] = np.concatenate([center * scale + shift, above * scale + shift])
    (person,) = decode_detections(boxes, scores, *size)
    assert person.roi.center == pytest.approx((200, 60), abs=1e-3)
    assert person.roi.size == pytest.approx(2.5 * 50, abs=1e-3)
    assert person.roi.angle == pytest.approx(math.atan2(30, 40), abs=1e-5)


def test_closer_rois_cover_the_frame() -> None:
    for width, height in [(1768, 994), (500, 500), (90, 2000), (20, 20)]:
        rois = closer_rois(width, height)
        assert len(rois) <= 4
        size = 0.6 * max(width, height)
        assert all(roi.size == size and roi.angle == 0 for roi in rois)
        for axis, length in enumerate((width, height)):
            middles = sorted({roi.center[axis] for roi in rois})
            assert middles[0] <= size / 2
            assert middles[-1] >= length - size / 2 - 1e-9
            assert all(np.diff(middles) <= size * 2 / 3 + 1e-9)


def raw_landmarks(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    points = np.zeros((rows, 39, 5), np.float32)
    points[..., :3] = rng.uniform(0, 256, (rows, 39, 3))
    return {
        "landmarks": points,
        "presence": rng.uniform(0, 1, (rows, 1)).astype(np.float32),
        "world": rng.normal(size=(rows, 39, 3)).astype(np.float32),
    }


def test_decode_landmarks_by_hand() -> None:
    raw = raw_landmarks(3)
    raw["landmarks"][1, 0] = [128, 64, 10, math.log(3), -math.log(3)]
    raw["landmarks"][1, 34, :2] = [228, 128]
    raw["world"][1, 0] = [0.0, -1.0, 0.25]
    quarter = Roi((400.0, 300.0), 512.0, math.pi / 2)
    plain, turned = LandmarkDecoder(**raw)([Roi((128.0, 128.0), 256.0), quarter])
    np.testing.assert_allclose(plain.keypoints_2d[:, :2], raw["landmarks"][0, :33, :2], rtol=1e-5)
    np.testing.assert_array_equal(plain.world, raw["world"][0, :33])
    # 64 crop pixels above the middle are 128 pixels to its right.
    np.testing.assert_allclose(turned.keypoints_2d[0], [528, 300, 0.75], atol=1e-4)
    assert turned.presence[0] == pytest.approx(0.25)
    assert turned.depth_px[0] == pytest.approx(20)
    np.testing.assert_allclose(turned.world[0], [1.0, 0.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(turned.auxiliary[1], [400, 500], atol=1e-4)
    assert turned.score == raw["presence"][1, 0]
    assert turned.roi is quarter


def test_landmarks_outlive_the_buffers() -> None:
    raw = raw_landmarks(1)
    (person,) = LandmarkDecoder(**raw)([Roi((1.0, 2.0), 3.0)])
    before = person.world.copy(), person.keypoints_2d.copy(), person.depth_px.copy()
    for buffer in raw.values():
        buffer[:] = -1
    for array, kept in zip(
        (person.world, person.keypoints_2d, person.depth_px), before, strict=True
    ):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(("point", "number"), [(5, 0), (5, 1), (5, 3), (33, 0), (34, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nobody_is_believed_who_is_no_number(point: int, number: int, value: float) -> None:
    raw = raw_landmarks(2)
    raw["landmarks"][1, point, number] = value
    roi = Roi((1.0, 2.0), 3.0)
    sane, broken = LandmarkDecoder(**raw)([roi, roi])
    assert sane.score == raw["presence"][0]
    expected = raw["presence"][1] if number == 3 and value > 0 else 0  # visible for sure
    assert broken.score == expected


def test_refine_landmarks_by_hand() -> None:
    heatmap = np.full((64, 64, 4), -30, np.float32)
    heatmap[20, 30, 0] = heatmap[20, 32, 0] = 30  # two sure cells: their middle
    heatmap[20, 36, 0] = 30  # outside the window about (31, 21)
    heatmap[0, 1, 1] = 30  # at the border of the map
    heatmap[10, 10, 2] = -0.1  # unsure: stays
    heatmap[40, 40, 3] = 30
    points = np.array([[125.0, 86], [2, 3], [40, 40], [-3, 160]])
    moved = refine_landmarks(points, heatmap)
    np.testing.assert_allclose(moved, [[124, 80], [4, 0], [40, 40], [-3, 160]], atol=1e-3)


@dataclass(frozen=True)
class Golden:
    """Rows of `landmarks` are NAMES: x px, y px, depth px, visibility; world x, y, z in metres."""

    score: float
    roi: Roi
    auxiliary: list[tuple[float, float]]
    landmarks: list[tuple[float, ...]]


NAMES = ("nose", "left_shoulder", "right_shoulder", "left_wrist", "left_hip", "right_hip")
NAMES = (*NAMES, "left_ankle", "right_ankle")
GOLDEN = {
    "walking": Golden(  # frame 115 of the demo video
        score=0.967,
        roi=Roi((860.0, 750.2), 542.0, 0.2379),
        auxiliary=[(880.9, 725.7), (907.3, 515.6)],
        landmarks=[
            (859.5, 557.1, -42.1, 1.000, -0.110, -0.635, -0.048),
            (904.5, 597.6, -138.2, 1.000, 0.120, -0.488, -0.142),
            (886.6, 603.3, 110.3, 1.000, -0.009, -0.474, 0.101),
            (969.6, 715.1, -168.7, 0.992, 0.315, -0.048, -0.195),
            (881.5, 726.8, -84.6, 1.000, 0.012, -0.003, -0.086),
            (879.1, 725.6, 84.6, 0.999, -0.012, 0.003, 0.087),
            (793.1, 901.3, -48.0, 0.997, -0.343, 0.668, -0.044),
            (951.2, 901.2, 166.8, 0.945, 0.328, 0.768, 0.203),
        ],
    ),
    "landing": Golden(  # frame 207: crouched, the crop turned by 69 degrees
        score=0.790,
        roi=Roi((1141.7, 766.7), 741.8, 1.2053),
        auxiliary=[(1207.6, 730.4), (1449.2, 638.2)],
        landmarks=[
            (1346.1, 698.9, 81.9, 1.000, 0.582, -0.070, 0.087),
            (1300.8, 688.1, 229.7, 1.000, 0.381, -0.138, 0.278),
            (1313.5, 690.1, -72.6, 1.000, 0.400, -0.160, -0.086),
            (1243.7, 798.8, 227.5, 0.644, 0.194, 0.259, 0.237),
            (1210.5, 726.6, 94.1, 1.000, -0.003, 0.028, 0.118),
            (1204.7, 732.8, -94.0, 1.000, 0.003, -0.029, -0.116),
            (1167.8, 849.9, 66.5, 0.859, -0.143, 0.523, 0.078),
            (1118.7, 867.8, -434.6, 0.998, -0.287, 0.525, -0.408),
        ],
    ),
    "astronaut": Golden(  # half a body: hips and below are guessed
        score=0.807,
        roi=Roi((158.7, 524.0), 1254.9, 0.1601),
        auxiliary=[(190.4, 530.0), (222.0, 18.4)],
        landmarks=[
            (222.7, 128.0, -425.1, 0.999, 0.061, -0.614, -0.273),
            (306.2, 256.6, -84.8, 0.998, 0.202, -0.460, -0.051),
            (112.7, 240.0, -181.0, 0.998, -0.126, -0.458, -0.108),
            (326.4, 461.3, -196.0, 0.126, 0.219, -0.124, -0.175),
            (241.9, 501.7, 15.9, 0.220, 0.118, 0.014, 0.015),
            (128.3, 531.4, -14.7, 0.265, -0.118, -0.021, -0.013),
            (237.1, 918.5, 347.7, 0.008, 0.068, 0.611, 0.080),
            (127.3, 923.6, 291.8, 0.006, -0.063, 0.455, -0.048),
        ],
    ),
}


@pytest.fixture(params=list(GOLDEN))
def golden(
    request: pytest.FixtureRequest, demo_frames: list[Image], astronaut: Image
) -> tuple[Image, Golden]:
    images = {"walking": demo_frames[2], "landing": demo_frames[4], "astronaut": astronaut}
    return images[request.param], GOLDEN[request.param]


def test_detection_is_mediapipes(golden: tuple[Image, Golden], blazepose: BlazePose) -> None:
    image, expected = golden
    detection = blazepose.detect(image)[0]
    assert detection.score == pytest.approx(expected.score, abs=0.01)
    roi = detection.roi
    # The detector sees the frame 4 to 8 times smaller and wavers with the last bit of a pixel.
    np.testing.assert_allclose(roi.center, expected.roi.center, atol=1.5)
    assert roi.size == pytest.approx(expected.roi.size, rel=0.006)
    assert roi.angle == pytest.approx(expected.roi.angle, abs=0.01)


def test_landmarks_are_mediapipes(golden: tuple[Image, Golden], blazepose: BlazePose) -> None:
    image, expected = golden
    (person,) = blazepose.pose(image, [expected.roi])
    rows = index(*NAMES)
    # The golden values are rounded to 0.1 px; half a crop pixel is the scale of the warp's own
    # rounding (1/32 px) seen through the network.
    tolerance_px = 0.5 * expected.roi.size / 256
    golden_rows = np.array(expected.landmarks)
    found = person.keypoints_2d[rows]
    np.testing.assert_allclose(found[:, :2], golden_rows[:, :2], atol=tolerance_px)
    np.testing.assert_allclose(person.depth_px[rows], golden_rows[:, 2], atol=3 * tolerance_px)
    np.testing.assert_allclose(found[:, 2], golden_rows[:, 3], atol=0.02)
    np.testing.assert_allclose(person.world[rows], golden_rows[:, 4:], atol=0.006)
    np.testing.assert_allclose(person.auxiliary, expected.auxiliary, atol=tolerance_px)
    assert person.score > 0.9


def test_left_and_right_and_near_and_far(blazepose: BlazePose, astronaut: Image) -> None:
    """Facing the camera: her left is at the image's right, her nose nearer than her shoulders."""
    (person,) = blazepose.pose(astronaut, [GOLDEN["astronaut"].roi])
    nose, left, right = person.world[index("nose", "left_shoulder", "right_shoulder")]
    assert left[0] - right[0] > 0.25
    assert nose[1] < left[1]
    assert nose[2] < min(left[2], right[2]) - 0.1


@pytest.mark.parametrize("turn", [-1.0, 0.0, 0.4, 2.5])
def test_turned_image_turns_the_answer(
    blazepose: BlazePose, demo_frames: list[Image], turn: float
) -> None:
    """The ROI's roll is undone: world landmarks turn with the image, depth stays."""
    import cv2

    roi = GOLDEN["walking"].roi
    affine = cv2.getRotationMatrix2D(roi.center, -math.degrees(turn), 1.0)
    turned = np.asarray(cv2.warpAffine(demo_frames[2], affine, (1768, 994)), np.uint8)
    (upright,) = blazepose.pose(demo_frames[2], [roi])
    (person,) = blazepose.pose(turned, [Roi(roi.center, roi.size, roi.angle + turn)])
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    limbs = slice(11, 33)
    expected = upright.world[limbs, :2] @ spin.T
    np.testing.assert_allclose(person.world[limbs, :2], expected, atol=0.06)
    np.testing.assert_allclose(person.world[limbs, 2], upright.world[limbs, 2], atol=0.12)
    expected_px = transform_points(affine, upright.keypoints_2d[limbs, :2])
    apart = np.linalg.norm(person.keypoints_2d[limbs, :2] - expected_px, axis=1)
    assert apart.mean() < 3


@pytest.mark.parametrize("size", [(994, 1768), (6000, 8000), (20, 20)])
@pytest.mark.parametrize("level", [0, 128])
def test_plain_images_hold_nobody(blazepose: BlazePose, size: tuple[int, int], level: int) -> None:
    assert blazepose.detect(np.full((*size, 3), level, np.uint8)) == []


def test_person_of_any_size(blazepose: BlazePose, astronaut: Image) -> None:
    import cv2

    for side in (100, 4000):
        image = np.asarray(cv2.resize(astronaut, (side, side)), np.uint8)
        detection = blazepose.detect(image)[0]
        expected = np.multiply(GOLDEN["astronaut"].roi.center, side / 512)
        np.testing.assert_allclose(detection.roi.center, expected, atol=0.1 * side)


def test_whole_frame_is_the_default_view(blazepose: BlazePose, astronaut: Image) -> None:
    (default,) = blazepose.detect(astronaut)
    (asked,) = blazepose.detect(astronaut, letterbox_roi(512, 512))
    assert default.roi == asked.roi
    middle = transform_points(crop_to_image(asked.roi, 256), np.array([128.0, 128.0]))
    np.testing.assert_allclose(middle, asked.keypoints[0], atol=1e-3)
