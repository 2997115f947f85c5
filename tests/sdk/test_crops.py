"""Crops: affines against hand-computed corners, warps against marked pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pchmr.crops import (
    Roi,
    box_iou,
    clip_box,
    crop_to_image,
    image_to_crop,
    image_to_roi_frame,
    letterbox_roi,
    region_rows,
    roi_box,
    roi_frame_to_image,
    transform_points,
)
from pchmr_kernels.crops import RegionCrops

rois = st.builds(
    Roi,
    st.tuples(st.floats(-500, 8000), st.floats(-500, 8000)),
    st.floats(1, 8000),
    st.floats(-math.pi, math.pi),
)


def test_corners_of_a_quarter_turn() -> None:
    # Turned a quarter clockwise: up in the crop is right in the image.
    affine = crop_to_image(Roi((100.0, 50.0), 40.0, math.pi / 2), 256)
    crop = np.array([[128.0, 128], [128, 0], [0, 0], [256, 256]])
    image = [[100.0, 50], [120, 50], [120, 30], [80, 70]]
    np.testing.assert_allclose(transform_points(affine, crop), image, atol=1e-9)


@given(rois, st.sampled_from([2.0, 224.0, 256.0]))
def test_image_to_crop_inverts_crop_to_image(roi: Roi, size: float) -> None:
    points = np.array([[0.0, 0], [size, 0], [0.3 * size, 1.7 * size], [-size, size]])
    image = transform_points(crop_to_image(roi, size), points)
    back = transform_points(image_to_crop(roi, size), image)
    np.testing.assert_allclose(back, points, atol=1e-6 * size)


@given(rois)
def test_roi_frame(roi: Roi) -> None:
    frame = np.array([[0.0, 0], [0, -1], [1, 0], [-0.5, 0.25]])
    image = roi_frame_to_image(roi, frame)
    np.testing.assert_allclose(image[0], roi.center, atol=1e-6)
    up = [math.sin(roi.angle), -math.cos(roi.angle)]
    np.testing.assert_allclose(image[1] - image[0], np.multiply(up, roi.size / 2), atol=1e-6)
    np.testing.assert_allclose(image_to_roi_frame(roi, image), frame, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(1768, 994), (333, 517), (1, 1), (20, 20)])
def test_letterbox_maps_back(width: int, height: int) -> None:
    roi = letterbox_roi(width, height)
    corners = np.array([[0.0, 0], [width, 0], [width, height], [0, height]])
    crop = transform_points(image_to_crop(roi, 224), corners)
    assert crop.min() == pytest.approx(0.0, abs=1e-9)
    assert crop.max() == pytest.approx(224.0)
    np.testing.assert_allclose(crop.mean(0), 112.0)  # padded alike on both sides
    np.testing.assert_allclose(transform_points(crop_to_image(roi, 224), crop), corners, atol=1e-9)


def test_warp_finds_marked_pixel_and_swaps_channels() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[58:63, 98:103] = (255, 128, 0)  # blue, green, no red; about pixel (100, 60)
    out = np.zeros((1, 64, 64, 3), np.uint8)
    roi = Roi((80.0, 60.0), 64.0, math.pi / 2)  # 20 px right of the middle is up in the crop
    RegionCrops(out)(image, region_rows([roi]))
    assert out[0, 12, 32].tolist() == [0, 128, 255]
    assert out[0, 52, 32].tolist() == [0, 0, 0]
    image[:] = 0
    image[60, 100] = 255
    RegionCrops(out)(image, region_rows([roi]))
    assert np.argwhere(out[0, :, :, 0]).tolist() == [[12, 32]]


def test_warp_beyond_the_edge() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    out = np.zeros((2, 32, 32, 3), np.uint8)
    roi = Roi((0.0, 20.0), 40.0)
    RegionCrops(out)(image, region_rows([roi, roi]))
    assert (out[:, :, :15] == 0).all()
    assert (out[:, 5:25, 17:] == 200).all()
    RegionCrops(out, extend=True)(image, region_rows([roi]))
    assert (out[0] == 200).all()
    assert (out[1, :, :15] == 0).all()  # rows beyond the ROIs are left alone


@pytest.mark.parametrize("shape", [(6000, 8000), (20, 20), (40, 3000)])
def test_warp_any_size(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    out = np.zeros((1, 224, 224, 3), np.uint8)
    RegionCrops(out)(image, region_rows([letterbox_roi(shape[1], shape[0])]))
    assert (out[0, 112, 112] == 7).all()


def test_warp_takes_a_view() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    out, copied = np.zeros((2, 1, 32, 32, 3), np.uint8)
    roi = Roi((30.0, 30.0), 32.0, 0.3)
    RegionCrops(out)(frame[:, ::-1], region_rows([roi]))
    RegionCrops(copied)(frame[:, ::-1].copy(), region_rows([roi]))
    np.testing.assert_array_equal(out, copied)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_warp_refuses_other_images(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        RegionCrops(np.zeros((1, 8, 8, 3), np.uint8))(image, region_rows([Roi((1.0, 1.0), 2.0)]))


def test_boxes() -> None:
    assert roi_box(Roi((10.0, 20.0), 4.0)) == (8, 18, 12, 22)
    half = math.sqrt(2.0) * 2
    turned = roi_box(Roi((10.0, 20.0), 4.0, math.pi / 4))
    assert turned == pytest.approx((10 - half, 20 - half, 10 + half, 20 + half))
    assert clip_box((-5.0, 3.0, 50.0, 70.0), 40, 60) == (0, 3, 40, 60)
    x0, y0, x1, y1 = clip_box((50.0, 0.0, 60.0, 10.0), 40, 60)
    assert (x1 - x0) * (y1 - y0) == 0
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert box_iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
