"""Crops, decoding, flips and cameras of the official networks: hand-computed cases and traps."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pchmr.crops import transform_points
from pchmr.prepost import (
    CROPS,
    cameras,
    cpn,
    crop_person,
    flips,
    hmr,
    hmr2,
    hrnet,
    normalise,
    posenet,
    resize,
    sequences,
    spin,
)
from pchmr.prepost.boxes import box_from_keypoints, box_to_aspect, roi_box
from pchmr.prepost.h36m import StudioCamera, rotate, stand_up
from pchmr.prepost.heatmaps import (
    decode_argmax,
    decode_dark,
    decode_quarter_offset,
    soft_argmax_3d,
)
from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton

boxes = st.tuples(  # their middle lies in the image
    st.floats(-50, 200), st.floats(-50, 150), st.floats(110, 200), st.floats(110, 170)
).map(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]))
IMAGE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)


def bump(x: float, y: float, size: tuple[int, int] = (64, 48), sigma: float = 2.0) -> np.ndarray:
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


# crops


@pytest.mark.parametrize("rule", sorted(CROPS))
def test_a_marked_pixel_lies_where_the_affine_says(rule: str) -> None:
    image = np.full((400, 500, 3), 90, np.uint8)
    image[0, 0], image[399, 499] = 0, 255  # so that SPIN stretches nothing
    cv2.circle(image, (260, 190), 5, (255, 255, 255), -1)
    crop = crop_person(image, (150, 40, 350, 390), rule, (256, 256))
    bright = crop.pixels.min(-1) > 150
    rows, columns = np.nonzero(bright[20:-20, 20:-20])
    place = np.array([columns.mean() + 20, rows.mean() + 20])
    np.testing.assert_allclose(place, transform_points(crop.affine, np.array([260, 190])), atol=0.8)
    np.testing.assert_allclose(crop.to_image(transform_points(crop.affine, place)), place)


@pytest.mark.parametrize("rule", sorted(CROPS))
def test_colours_come_out_as_rgb(rule: str) -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    image[:150, :150] = 255
    image[:] = np.where(image == 0, (10, 120, 240), image)  # BGR
    crop = crop_person(image, (200, 200, 280, 280), rule, (256, 256))
    red, green, blue = crop.pixels[128, 128]
    assert red > green > blue


@settings(max_examples=20, deadline=None)
@given(boxes)
def test_any_box_over_the_image_can_be_cropped(box: tuple[float, float, float, float]) -> None:
    for rule in CROPS.values():
        assert rule(IMAGE, box, (64, 48)).pixels.shape == (64, 48, 3)


def test_spin_cuts_edges_towards_zero_and_whole_ones_not_at_all() -> None:
    window = spin.window_from_box((-90.6, -20.4, 29.4, 99.4))
    assert window.rectangle == (-90, -20, 29, 99)
    assert spin.window_from_image((480, 640)).rectangle == (0, -80, 640, 560)
    for side in range(10, 400, 2):  # by round-off alone some would end a pixel early
        assert spin.window_from_box((7, 9, 7 + side, 9 + side)).rectangle == (
            *(7, 9, 7 + side, 9 + side),
        )


def test_spin_stretches_what_it_sees_to_the_whole_range() -> None:
    pixels = np.array([[[20, 30, 120]]], np.uint8)
    assert spin.stretch(pixels).tolist() == [[[0, 26, 255]]]  # 10 * 2.55 rounds up
    whole = np.array([[[0, 77, 255]]], np.uint8)
    assert spin.stretch(whole).tolist() == whole.tolist()
    assert spin.stretch(np.full((1, 1, 3), 9, np.uint8)).max() == 0


def test_spin_keypoints_have_a_margin_boxes_none() -> None:
    keypoints = np.array([[10.0, 10, 1], [110, 210, 1], [60, 50, 1], [900, 900, 0.1]])
    window = spin.window_from_keypoints(keypoints)
    assert window.center == (60, 90)
    assert window.side == pytest.approx(240)
    assert spin.window_from_box((10, 10, 110, 210)).side == pytest.approx(200)


def test_pillow_resize_by_hand() -> None:
    row = np.array([0, 0, 100, 200], np.uint8)
    image = np.repeat(row[None, :, None], 3, 2)
    # Shrunk by two: a triangle of half width 2 about 1 and 3, its ends beyond the edge left out.
    weights = np.array([0.25, 0.75, 0.75, 0.25])
    left = (weights[1] * 0 + weights[1] * 0 + weights[3] * 100) / 1.75
    right = (0.25 * 0 + 0.75 * 100 + 0.75 * 200) / 1.75
    expected = [round(left), round(right)]
    assert resize.resize_like_pillow(image, (1, 2))[0, :, 0].tolist() == expected


def test_hmr_scales_the_diagonal_to_150_pixels_and_repeats_the_edge() -> None:
    placement = hmr.place_box((100, 100, 190, 220), (400, 400))
    assert placement.scale == 1.0
    assert placement.middle == (145, 160)
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, 0] = 200
    crop = hmr.crop_hmr(image, hmr.place_box((-45, 100, 45, 220), (400, 400)))
    assert (crop.pixels[:, :112] == 200).all()


def test_hmr2_blurs_large_boxes_only() -> None:
    assert hmr2.blur_sigma(563.2) == 0
    assert hmr2.blur_sigma(664.0) == pytest.approx((664 / 512 - 1) / 2)
    assert hmr2.square_side((0, 0, 300, 100)) == 400
    image = np.random.default_rng(1).integers(0, 255, (1500, 1500, 3), np.uint8)
    part = hmr2.crop_hmr2(image, (300, 100, 900, 1300))
    smooth = resize.gaussian_blur(image, (2 * (hmr2.blur_sigma(1200),))[:2], cv2.BORDER_REPLICATE)
    matrix = part.affine
    whole = cv2.warpAffine(smooth, matrix, (256, 256))[..., ::-1]
    np.testing.assert_allclose(part.pixels, whole, atol=4)  # OpenCV 4 samples on a grid


def test_cpn_never_leaves_the_padded_image() -> None:
    x0, y0, x1, y1 = cpn.rectangle((-300, -900, 700, 1200), (300, 400), (384, 288))
    assert (x0, y0) >= (-400, -400)
    assert x1 <= 800
    assert y1 <= 700
    inner = cpn.rectangle((100.5, 50.5, 140.5, 130.5), (300, 400), (384, 288))
    assert inner[3] - inner[1] == 104  # 1.3 times the height
    assert (inner[2] - inner[0]) * 4 == (inner[3] - inner[1]) * 3


def test_posenet_moves_boxes_in_and_loses_a_pixel() -> None:
    inside = posenet.square_box((50, 60, 150, 160), (480, 640))
    assert inside[2] - inside[0] == pytest.approx(1.25 * 99)
    moved = posenet.square_box((-40, 60, 60, 160), (480, 640))
    assert (moved[0] + moved[2]) / 2 == pytest.approx(99 / 2)  # not 30, as if it were cut
    with pytest.raises(InputError, match="no area"):
        posenet.square_box((700, 10, 800, 100), (480, 640))


def test_unusable_boxes_images_and_rules_are_named() -> None:
    with pytest.raises(InputError, match="no area"):
        hrnet.crop_hrnet(IMAGE, (10, 10, 10, 50))
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) uint8 BGR"):
        spin.crop_spin(IMAGE[..., 0], (10, 10, 50, 50))
    with pytest.raises(InputError, match="too far outside"):
        cpn.crop_cpn(IMAGE, (0, 210, 20, 2000))
    with pytest.raises(InputError, match="no crop rule is called 'alexnet'; known: cpn"):
        crop_person(IMAGE, (10, 10, 50, 50), "alexnet", (224, 224))
    with pytest.raises(InputError, match=r"no keypoint scores above 0\.2"):
        box_from_keypoints(np.zeros((17, 3)))


def test_boxes_to_an_aspect() -> None:
    assert box_to_aspect((0, 0, 75, 50), 0.75) == (0, -25, 75, 75)
    assert box_to_aspect((0, 0, 10, 100), 0.75, 2.0) == (-70, -50, 80, 150)
    assert roi_box.__module__ == "pchmr.crops"


# numbers


def test_posenet_numbers_are_not_divided_by_255() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    posenet_values = normalise(pixels, value_range=(0, 255))
    np.testing.assert_allclose(posenet_values[:, 0, 0], [-2.118, -2.036, -1.804], atol=1e-3)
    assert posenet_values.max() > 1100
    ordinary = normalise(pixels)
    np.testing.assert_allclose(ordinary[:, 0, 1], [2.249, 2.429, 2.640], atol=1e-3)


def test_colour_order_and_layout() -> None:
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    bgr = normalise(pixels, (0, 0, 0), (1, 1, 1), colour="bgr", layout="NHWC")
    np.testing.assert_allclose(bgr, [[[0.2, 0, 1]]], atol=1e-6)
    assert normalise(np.zeros((2, 8, 6, 3))).shape == (2, 3, 8, 6)


# heat maps


def test_quarter_offset_by_hand_and_its_edge() -> None:
    maps = np.zeros((4, 8, 8))
    maps[0, 4, 4], maps[0, 4, 5], maps[0, 3, 4] = 1, 0.5, 0.25  # right and up
    maps[1, 4, 1], maps[1, 4, 2] = 1, 0.5  # column 1 is too near the edge
    maps[2, 6, 6] = 1  # equal neighbours
    maps[3] = -1
    cells, scores = decode_quarter_offset(maps)
    assert cells.tolist() == [[4.25, 3.75], [1, 4], [6, 6], [0, 0]]
    assert scores.tolist() == [1, 1, 1, -1]


@given(st.floats(5, 42), st.floats(5, 58))
def test_dark_finds_the_middle_of_a_bump(x: float, y: float) -> None:
    maps = bump(x, y)[None]
    cells, _ = decode_dark(maps)
    np.testing.assert_allclose(cells[0], [x, y], atol=0.02)


def test_dark_leaves_empty_and_edge_maps() -> None:
    maps = np.stack([np.zeros((64, 48)), -bump(20, 20), bump(0, 30)])
    cells, scores = decode_dark(maps)
    assert cells.tolist() == [[0, 0], [0, 0], [0, 30]]
    assert np.isfinite(scores).all()


def test_soft_argmax_counts_cells_without_a_half() -> None:
    volumes = np.zeros((2, 64, 64, 64), np.float32)
    volumes[1, 5, 9, 40] = 1000
    np.testing.assert_allclose(soft_argmax_3d(volumes), [[31.5] * 3, [40, 9, 5]], atol=1e-4)


def test_cpn_turns_a_negative_map_upside_down() -> None:
    maps = -5.0 - 200 * np.stack([bump(20.0, 30.0)])
    np.testing.assert_allclose(cpn.peaks(maps)[0], [20, 30], atol=0.3)


def test_cpn_score_is_of_the_map_itself() -> None:
    maps = 100 * np.stack([bump(20.1, 30.0)])
    found = cpn.decode_cpn(maps, cpn.crop_cpn(IMAGE, (50, 50, 100, 200), (256, 192)))
    assert found[0, 2] == pytest.approx(maps[0, 30, 20] / 255 + 0.5)


# flips


def test_hrnet_shift_moves_all_but_the_first_column() -> None:
    mirrored = np.arange(6.0)[::-1].reshape(1, 1, 6).copy()  # mirrored back: 0 1 2 3 4 5
    order = np.array([0])
    assert flips.unmirror_heatmaps(mirrored, order)[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    shifted = flips.unmirror_heatmaps(mirrored, order, shift=True)[0, 0]
    assert shifted.tolist() == [0, 0, 1, 2, 3, 4]
    assert mirrored[0, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_left_and_right_are_swapped() -> None:
    skeleton = get_skeleton("h36m17")
    order = flips.mirror_order(skeleton)
    assert order[skeleton.index("left_hip")] == skeleton.index("right_hip")
    assert order[order].tolist() == list(range(17))
    points = np.random.default_rng(0).normal(size=(3, 17, 3))
    mirrored = flips.mirror_points(points, order)
    np.testing.assert_allclose(flips.average_points(points, mirrored, order), points)


def test_posenet_flip_is_about_31_and_a_half() -> None:
    cells = np.array([[[10.0, 20, 30]]])
    other = np.array([[[53.0, 20, 30]]])
    np.testing.assert_allclose(
        flips.average_points(cells, other, np.array([0]), width=posenet.CELLS - 1), cells
    )


# cameras


def test_posenet_depth_is_metres_about_the_root() -> None:
    cells = np.array([[31.5, 31.5, 32.0], [31.5, 31.5, 64.0], [31.5, 31.5, 0.0]])
    np.testing.assert_allclose(posenet.cells_to_depth(cells), [0, 1, -1])
    crop = posenet.crop_posenet(IMAGE, (60, 40, 161, 141))
    camera = posenet.cells_to_camera(cells, crop, 3.0, 1000.0, np.array([160.0, 120.0]))
    pixels = posenet.cells_to_pixels(cells, crop)
    np.testing.assert_allclose(camera[0, 2], 3)
    np.testing.assert_allclose(camera[:, :2] / camera[:, 2:] * 1000 + (160, 120), pixels)


def test_the_full_frame_camera_sees_the_crop_in_its_place() -> None:
    cam = np.array([[0.9, 0.02, -0.1]])
    center, side = np.array([[500.0, 300.0]]), np.array([350.0])
    focal = cameras.full_frame_focal((1080, 1920), 256)
    full = cameras.full_frame_translation(cam, center, side, (1080, 1920), focal)
    middle = cameras.project(np.zeros((1, 1, 3)), full, focal)[0, 0] + (960, 540)
    weak = cameras.project_weak(np.zeros((1, 1, 3)), cam)[0, 0]
    np.testing.assert_allclose(middle, center[0] + weak * side / 2, atol=1e-6)
    assert full[0, 2] == pytest.approx(2 * focal / (350 * 0.9), rel=1e-9)


def test_weak_and_crop_cameras_agree_to_first_order() -> None:
    cam, points = np.array([[1.0, 0.1, 0.2]]), np.random.default_rng(0).normal(0, 0.3, (1, 9, 3))
    translation = cameras.crop_translation(cam, 224)
    crop = cameras.project(points, translation, cameras.CROP_FOCAL_PX) / 112
    np.testing.assert_allclose(crop, cameras.project_weak(points, cam), atol=0.02)


def test_fit_translation_finds_what_it_projected() -> None:
    random = np.random.default_rng(0)
    points, translation = random.normal(0, 0.4, (3, 12, 3)), random.normal(0, 0.3, (3, 3))
    translation[:, 2] += 40
    pixels = cameras.project(points, translation, 5000) + 112
    confidence = random.uniform(0.2, 1, (3, 12))
    pixels[:, 0], confidence[:, 0] = 1e4, 0  # does not count
    found = cameras.fit_translation(points, pixels, confidence, 5000, 224)
    np.testing.assert_allclose(found, translation, atol=1e-6)


# sequences and Human3.6M


def test_screen_keeps_the_aspect() -> None:
    screen = sequences.pixels_to_screen(np.array([[0.0, 0], [1920, 1080]]), 1920, 1080)
    np.testing.assert_allclose(screen, [[-1, -0.5625], [1, 0.5625]])
    np.testing.assert_allclose(
        sequences.screen_to_pixels(screen, 1920, 1080), [[0, 0], [1920, 1080]]
    )


def test_padding_repeats_the_ends() -> None:
    sequence = np.arange(3.0)[:, None]
    assert sequences.receptive_pad(243) == (121, 121)
    assert sequences.receptive_pad(27, causal=True) == (26, 0)
    assert sequences.pad_edges(sequence, (2, 1))[:, 0].tolist() == [0, 0, 0, 1, 2, 2]
    rows = sequences.windows(sequence, (1, 1))[..., 0].tolist()
    assert rows == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]


def test_studio_camera_there_and_back() -> None:
    random = np.random.default_rng(0)
    quaternion = random.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    intrinsic = np.array([1145.0, 1143, 512, 515, -0.2, 0.25, -0.07, -0.0009, -0.0016])
    camera = StudioCamera.from_pixels(quaternion, random.normal(size=3), (1000, 1002), intrinsic)
    world = random.normal(size=(5, 17, 3))
    np.testing.assert_allclose(camera.to_world(camera.to_camera(world)), world, atol=1e-12)
    ahead = np.array([[0.0, 0, 4]])
    np.testing.assert_allclose(camera.project_to_pixels(ahead), [[512, 515]], atol=1e-9)
    side = camera.project(np.array([[0.4, 0.1, 4.0]]))
    mirrored = camera.flipped().project(np.array([[-0.4, 0.1, 4.0]]))
    np.testing.assert_allclose(mirrored, side * (-1, 1), atol=1e-12)


def test_quaternions_turn_and_clips_stand_on_the_ground() -> None:
    half = np.sqrt(0.5)
    turned = rotate(np.array([half, 0, 0, half]), np.array([1.0, 0, 0]))
    np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-12)
    poses = np.random.default_rng(0).normal(size=(4, 17, 3))
    assert stand_up(poses, np.array([1.0, 0, 0, 0]))[..., 2].min() == 0


def test_argmax_takes_the_first_of_equal_peaks() -> None:
    maps = np.zeros((1, 4, 4))
    maps[0, 1, 2] = maps[0, 3, 0] = 5
    assert decode_argmax(maps)[0].tolist() == [[2, 1]]
