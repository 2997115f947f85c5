"""Networks over crops alone: what they are fed, and cameras of crops."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pchmr.camera import Camera
from pchmr.crop_camera import CropCamera
from pchmr.prepost import crop_person
from pchmr.prepost.cameras import full_frame_translation
from pchmr.stages.base import Board, Row
from pchmr.stages.network import CropNetwork, CropStage, NetworkStage
from pchmr.stages.pose2d import decode_keypoints
from pchmr.stages.skeletons import normalise_keypoints
from pchmr_engines.manifest import Crop

BOXES = np.array([[100.0, 60, 260, 420], [400, 100, 500, 400], [500.0, 20, 640, 470]])
CAMERA = Camera.from_size(640, 480)


class Engine:
    """Notes what each context was fed; gives the number of its row."""

    outputs = ("row",)

    def __init__(self, name: str, *shape: int) -> None:
        self.name, self.shape = name, shape
        self.contexts: list[Any] = []

    def context(self, batch: int, stream: object = None, threads: int = 1) -> SimpleNamespace:
        kind = np.uint8 if self.name == "image" else np.float32
        fed = np.full((batch, *self.shape), 77, kind)
        buffers = {self.name: fed, "row": np.arange(batch, dtype=np.float32)[:, None]}
        context = SimpleNamespace(buffers=buffers, enqueue=lambda: None, freeze=lambda: None)
        self.contexts.append(context)
        return context


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def board_of(boxes: np.ndarray = BOXES) -> Board:
    board = Board(image(), CAMERA, [Row(0, 0, n, n) for n in range(len(boxes))], [])
    board["box"] = boxes
    return board


def run(stage: Any, board: Board) -> Board:
    stage.prepare(board)
    stage.enqueue()
    stage.collect(board)
    return board


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_people_are_cropped_and_padding_is_left_alone(colour: Any) -> None:
    engine = Engine("image", 256, 192, 3)
    network = CropNetwork(engine, Crop((192, 256), colour, "hrnet"), 4, 1)
    stage = CropStage("encoder", network, {"row": "features"}, "crop_affine")
    board = run(stage, board_of())
    fed = engine.contexts[-1].buffers["image"]
    for row, box in enumerate(BOXES):
        crop = crop_person(board.image, tuple(box), "hrnet", (256, 192))
        expected = crop.pixels if colour == "rgb" else crop.pixels[..., ::-1]
        np.testing.assert_array_equal(fed[row], expected)
        corner = board["crop_affine"][row] @ np.array([192.0, 256, 1])
        np.testing.assert_allclose(crop.affine @ np.array([*corner, 1]), [192, 256])
    assert (fed[3] == 77).all()
    assert board["features"].tolist() == [[0], [1], [2]]
    network.output("row")[:] = -1  # the board's arrays are its own
    assert board["features"].tolist() == [[0], [1], [2]]


def test_a_box_is_grown_about_its_middle() -> None:
    engine = Engine("image", 224, 224, 3)
    for scale, factor in ((1.0, 1.0), (1.2, 1.2)):
        network = CropNetwork(engine, Crop((224, 224), "rgb", "vibe"), 1, 1, scale)
        network.prepare(image(), BOXES[:1])
        side = 1.1 * 360 * factor
        assert network.affine[0, 0, 0] == pytest.approx(side / 224)
        middle = network.to_frame(np.array([[[112.0, 112.0]]]))[0, 0]
        np.testing.assert_allclose(middle, [180, 240])


@pytest.mark.parametrize(
    ("box", "grown"),
    [
        ((640.0, 480, 640, 480), (638, 478, 640, 480)),  # what is left of a box outside the frame
        ((0.0, 0, 0, 0), (0, 0, 2, 2)),
        ((100.0, 60, 100, 420), (100, 60, 102, 420)),
        ((639.5, 60, 640, 420), (638, 60, 640, 420)),
        ((100.0, 60, 103, 64), (100, 60, 103, 64)),  # larger ones stay
    ],
)
def test_a_box_has_two_pixels_of_the_frame(box: tuple, grown: tuple) -> None:
    network = CropNetwork(Engine("image", 224, 224, 3), Crop((224, 224), "rgb", "vibe"), 1, 1)
    network.prepare(image(), np.array([box]))
    x0, y0, x1, y1 = grown
    assert network.affine[0, 0, 0] == pytest.approx(1.1 * max(x1 - x0, y1 - y0) / 224)
    middle = network.to_frame(np.array([[[112.0, 112.0]]]))[0, 0]
    np.testing.assert_allclose(middle, [(x0 + x1) / 2, (y0 + y1) / 2])


def test_rows_may_be_shaped_otherwise() -> None:
    engine = Engine("keypoints", 34)
    stage = NetworkStage("lifter", engine, {"keypoints": "given"}, {"row": "out"}, 4, 1)
    board = board_of()
    board["given"] = np.arange(3 * 34.0).reshape(3, 17, 2)
    run(stage, board)
    fed = engine.contexts[-1].buffers["keypoints"]
    np.testing.assert_array_equal(fed[:3], board["given"].reshape(3, 34))
    assert (fed[3] == 77).all()
    assert board["out"].tolist() == [[0], [1], [2]]


# Cameras


def affines(boxes: np.ndarray, size: int) -> np.ndarray:
    """(B, 2, 3), crop pixels to frame pixels, of squares of each box's height about its middle."""
    side = boxes[:, 3] - boxes[:, 1]
    affine = np.zeros((len(boxes), 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = side / size
    affine[..., 2] = (boxes[:, :2] + boxes[:, 2:]) / 2 - side[:, None] / 2
    return affine


@pytest.mark.parametrize("focal_px", [5000.0, None])
def test_a_body_stands_where_its_crop_shows_it(focal_px: float | None) -> None:
    cam = np.array([[0.9, 0.1, -0.2], [0.7, 0.0, 0.3], [1.1, -0.1, 0.0]])
    camera, affine = CropCamera(224, focal_px), affines(BOXES, 224)
    stands, ok = camera.translation(cam, affine, CAMERA)
    assert ok.all()
    centre, side = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 3] - BOXES[:, 1]
    expected = full_frame_translation(cam, centre, side, (480, 640), CAMERA.fx)
    np.testing.assert_allclose(stands, expected, rtol=1e-6)
    turned = camera.turn(affine, CAMERA)[:, :, 2]
    ray = np.concatenate([centre - (320, 240), np.full((3, 1), CAMERA.fx)], 1)
    np.testing.assert_allclose(turned, ray / np.linalg.norm(ray, axis=1)[:, None], atol=1e-12)
    seen = camera.project(np.zeros((3, 1, 3)), cam)[:, 0]
    shown = 112 + 112 * cam[:, :1] * cam[:, 1:]
    np.testing.assert_allclose(seen, shown, atol=1e-4)


@pytest.mark.parametrize("s", [0.0, -0.9, np.nan, 1e9])
def test_a_camera_that_cannot_be_is_said(s: float) -> None:
    cam = np.array([[s, 0.1, 0.1]])
    stands, ok = CropCamera(224, 5000.0).translation(cam, affines(BOXES[:1], 224), CAMERA)
    assert not ok.any()
    assert np.isfinite(stands).all()


def test_pixels_need_not_be_square() -> None:
    """Other focal lengths along x and y: the root is seen at the crop's middle all the same."""
    camera = Camera(500.0, 900.0, 300.0, 260.0)
    cam, affine = np.array([[0.9, 0.0, 0.0]] * 3), affines(BOXES, 224)
    stands, _ = CropCamera(224, 5000.0).translation(cam, affine, camera)
    np.testing.assert_allclose(camera.project(stands), (BOXES[:, :2] + BOXES[:, 2:]) / 2)


# Keypoints


def test_keypoints_of_a_crop() -> None:
    crop = crop_person(image(), (100.0, 60.0, 260.0, 420.0), "posenet", (256, 256))
    points = np.array([[128.0, 128.0, 0.9], [0.0, 0.0, 0.2]])
    found = decode_keypoints(points, crop)
    np.testing.assert_allclose(found[:, 2], [0.9, 0.2])
    np.testing.assert_allclose(found[0, :2], [179.5, 239.5], atol=0.51)


def test_joints_on_one_spot_stay_finite() -> None:
    points = np.full((2, 17, 2), 40.0)
    assert np.isfinite(normalise_keypoints(points, "pose2mesh", 640, 480)).all()
    middle = normalise_keypoints(np.array([[[320.0, 240.0]]]), "screen", 640, 480)
    np.testing.assert_allclose(middle, 0)
