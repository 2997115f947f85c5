"""Stages alone, on boards made by hand and networks that are plain functions."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from pchmr.blazepose import Landmarks
from pchmr.camera import Camera
from pchmr.crops import Roi
from pchmr.placement import ray_rotation
from pchmr.stages.base import BatchedEngine, Board, KeypointEngine, Row, Stage
from pchmr.stages.blazepose import put_landmarks
from pchmr.stages.body import PlaceStage, TemplateStage
from pchmr.stages.calibrate import CalibrateStage, ImageTarget
from pchmr.stages.keypoint_generator import KeypointGenerator
from pchmr.stages.lifter import KeypointLifter, MeshLifter
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.person import WORLD
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights

CAMERA = Camera(1000.0, 1000.0, 640.0, 360.0)
SMPL, BLAZEPOSE = get_skeleton("smpl24"), get_skeleton("blazepose33")
NAMES = ("left_knee", "nose", "right_wrist")

Arrays = Mapping[str, np.ndarray]


class FakeEngine:
    """A network that is a function of its one input; notes which contexts were made."""

    def __init__(
        self, function: Callable[[np.ndarray], Arrays] = lambda x: {}, **outputs: tuple[int, ...]
    ) -> None:
        self.function, self.outputs = function, outputs
        self.made: list[tuple[int, int]] = []

    def context(self, batch: int, stream: object = None, threads: int = 0) -> SimpleNamespace:
        self.made.append((batch, threads))
        buffers = {"keypoints": np.full((batch, len(NAMES), 3), np.nan, np.float32)}
        buffers |= {name: np.zeros((batch, *shape)) for name, shape in self.outputs.items()}

        def enqueue() -> None:
            for name, array in self.function(buffers["keypoints"]).items():
                buffers[name][:] = array

        return SimpleNamespace(buffers=buffers, enqueue=enqueue, freeze=lambda: None, batch=batch)


def make_board(rois: list[Roi], camera: Camera = CAMERA) -> Board:
    rows = [Row(0, 0, track, track) for track in range(len(rois))]
    board = Board(np.zeros((720, 1280, 3), np.uint8), camera, rows, rois)
    centres, angles = np.array([roi.center for roi in rois]), np.array([r.angle for r in rois])
    board["crop_rotation"] = ray_rotation(camera.undistort(centres), angles, camera)
    board["crop_size"] = np.array([roi.size for roi in rois])
    return board


def run(stage: Stage, board: Board) -> Board:
    stage.prepare(board)
    stage.enqueue()
    stage.collect(board)
    return board


ROIS = [Roi((900.0, 200.0), 300.0, 0.4), Roi((200.0, 500.0), 200.0), Roi((640.0, 360.0), 100.0, -1)]


# Batches


@pytest.mark.parametrize(
    ("max_people", "batches"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 4]), (4, [1, 2, 4])]
)
def test_a_context_for_each_power_of_two(max_people: int, batches: list[int]) -> None:
    engine = FakeEngine()
    batched = BatchedEngine(engine, max_people, threads=3)
    assert engine.made == [(batch, 3) for batch in batches]
    for people in range(1, max_people + 1):
        chosen = batched.context(people).batch
        assert chosen >= people
        assert chosen < 2 * people


def test_a_network_takes_its_own_landmarks_as_the_crop_sees_them(rng: np.random.Generator) -> None:
    """The middle of a crop is (0, 0), half a crop up along its own upright about (0, -1)."""
    network = KeypointEngine(FakeEngine(), NAMES, 4, 1)
    board = make_board(ROIS)
    keypoints = rng.random((3, 33, 3)).astype(np.float32)
    for row, roi in enumerate(ROIS):
        up = np.array([np.sin(roi.angle), -np.cos(roi.angle)]) * roi.size / 2
        keypoints[row, BLAZEPOSE.index("left_knee"), :2] = roi.center
        keypoints[row, BLAZEPOSE.index("nose"), :2] = np.array(roi.center) + up
    network.feed(board, keypoints)
    fed = network._context.buffers["keypoints"]
    assert len(fed) == 4
    np.testing.assert_allclose(fed[:3, 0, :2], 0, atol=1e-4)
    np.testing.assert_allclose(fed[:3, 1, :2], [[0, -1]] * 3, atol=0.15)
    indices = [BLAZEPOSE.index(name) for name in NAMES]
    np.testing.assert_array_equal(fed[:3, :, 2], keypoints[:, indices, 2])
    assert np.isnan(fed[3]).all()


# Mesh stream


def test_the_generators_pose_is_turned_onto_the_ray() -> None:
    identity = np.tile([1.0, 0, 0, 1, 0, 0], (24, 1))
    engine = FakeEngine(lambda _: {"rot6d": identity, "betas": 0.5}, rot6d=(24, 6), betas=(10,))
    stage = KeypointGenerator(KeypointEngine(engine, NAMES, 4, 1))
    board = make_board(ROIS)
    board["keypoints"] = np.ones((3, 33, 3), np.float32)
    run(stage, board)
    assert board["rotmats"].shape == (3, 24, 3, 3)
    np.testing.assert_allclose(board["rotmats"][:, 0], board["crop_rotation"], atol=1e-6)
    np.testing.assert_allclose(
        board["rotmats"][:, 1:], np.tile(np.eye(3), (3, 23, 1, 1)), atol=1e-6
    )
    betas = board["betas"]
    run(stage, board)
    assert not np.shares_memory(betas, board["betas"])


def test_the_template_stands_upright_in_its_crop_and_faces_the_camera() -> None:
    """A body file is y up and looks along z; the camera is y down and looks along z."""
    board = run(TemplateStage(24, 10), make_board(ROIS))
    first = board["rotmats"][:, 0]
    np.testing.assert_allclose(first @ (0, 1, 0), -board["crop_rotation"][..., 1], atol=1e-6)
    np.testing.assert_allclose(first @ (0, 0, 1), -board["crop_rotation"][..., 2], atol=1e-6)
    assert not board["betas"].any()


def test_a_mesh_is_placed_on_the_image_keypoints(rng: np.random.Generator) -> None:
    board = make_board(ROIS)
    t = np.array([[0.5, -0.2, 4.0], [-1.0, 0.3, 6.0], [0.0, 0.0, 9.0]])
    board["landmarks"] = rng.normal(size=(3, 33, 3)) * 0.4
    board["source"] = rng.normal(size=(3, 24, 3))
    keypoints = np.ones((3, 33, 3))
    keypoints[..., :2] = CAMERA.project(board["landmarks"] + t[:, None])
    board["keypoints"] = keypoints
    run(PlaceStage("landmarks", 0), board)
    np.testing.assert_allclose(board["translation"], t, atol=1e-6)
    assert board["placed"].all()


def test_a_template_is_placed_by_the_pose_streams_landmarks(rng: np.random.Generator) -> None:
    """They are about the pelvis joint: that is what has to come to stand at t."""
    board = make_board(ROIS[:1])
    t = np.array([[0.5, -0.2, 4.0]])
    board["pose_landmarks"] = rng.normal(size=(1, 33, 3)) * 0.4
    board["source"] = rng.normal(size=(1, 24, 3))
    keypoints = np.ones((1, 33, 3))
    keypoints[..., :2] = CAMERA.project(board["pose_landmarks"] + t[:, None])
    board["keypoints"] = keypoints
    run(PlaceStage("pose_landmarks", SMPL.root), board)
    np.testing.assert_allclose(board["translation"] + board["source"][:, 0], t, atol=1e-6)


# Pose stream


def person_in(roi: Roi, hips: np.ndarray, points: np.ndarray, camera: Camera) -> Landmarks:
    """What the landmark network says of a person with landmarks `points` (33, 3) about the hips,
    camera frame, whose hips are at `hips`: its world landmarks are upright along the ray."""
    upright = ray_rotation(camera.undistort(np.array([roi.center])), np.zeros(1), camera)[0]
    keypoints = np.concatenate([camera.project(points + hips), np.ones((33, 1))], 1)
    return Landmarks.of(
        keypoints_2d=keypoints.astype(np.float32),
        presence=np.ones(33, np.float32),
        depth_px=np.zeros(33, np.float32),
        auxiliary=np.zeros((2, 2), np.float32),
        world=(points @ upright).astype(np.float32),
        score=1.0,
        roi=roi,
    )


@pytest.fixture
def in_perfect_agreement(rng: np.random.Generator) -> Callable[[Camera], Board]:
    """`board(camera)`: image, world landmarks and lifter agree on bodies before the camera."""

    def make(camera: Camera = CAMERA) -> Board:
        board = make_board(ROIS, camera)
        board["joints_3d"] = rng.normal(size=(3, 24, 3)) * 0.3
        lifted = rng.normal(size=(3, 33, 3)) * 0.3
        board["pose_landmarks"] = lifted
        board["source"] = rng.normal(size=(3, 24, 3)) * 0.3
        board["translation"] = np.array([[0.5, -0.2, 4.0], [-1.0, 0.3, 6.0], [0.0, 0.0, 9.0]])
        pelvis = board["translation"] + board["source"][:, 0]
        hips = lifted[:, 23:25].mean(1)
        people = [
            person_in(roi, pelvis[i] + hips[i], lifted[i] - hips[i], camera)
            for i, roi in enumerate(ROIS)
        ]
        board.found = people
        put_landmarks(board)
        return board

    return make


def carry(joint: str = "left_knee", landmark: str = "left_knee", weight: float = 1.0) -> np.ndarray:
    rows = np.zeros((24, 33), np.float32)
    rows[SMPL.index(joint), BLAZEPOSE.index(landmark)] = weight
    return rows


@pytest.mark.parametrize(
    "camera", [CAMERA, Camera(1000, 1000, 640, 360, (-0.1, 0.02, 0.0, 0.0))], ids=["plain", "lens"]
)
def test_what_agrees_is_not_moved(
    camera: Camera, in_perfect_agreement: Callable[[Camera], Board]
) -> None:
    board = run(ImageTarget(carry(), "keypoints", "world"), in_perfect_agreement(camera))
    np.testing.assert_allclose(board["target"], board["joints_3d"], atol=2e-5)
    np.testing.assert_allclose(board["confidence"][:, SMPL.index("left_knee")], 1.0)


def test_a_joint_follows_its_landmark_in_the_image(
    in_perfect_agreement: Callable[[Camera], Board],
) -> None:
    """Sideways by the pixels at its depth, the other joints not at all."""
    knee, landmark = SMPL.index("left_knee"), BLAZEPOSE.index("left_knee")
    board = in_perfect_agreement(CAMERA)
    pelvis = board["translation"] + board["source"][:, 0]
    depth = (board["pose_landmarks"][:, landmark] + pelvis)[:, 2]
    board["keypoints"][:, landmark, 0] += 20.0
    run(ImageTarget(carry(weight=0.5), "keypoints", "world"), board)
    moved = board["target"] - board["joints_3d"]
    np.testing.assert_allclose(moved[:, knee, 0], 0.5 * 20.0 * depth / CAMERA.fx, atol=1e-4)
    np.testing.assert_allclose(np.delete(moved, knee, 1), 0, atol=1e-6)
    np.testing.assert_allclose(moved[:, knee, 1], 0, atol=1e-4)


def test_depth_is_the_mean_of_lifter_and_world(
    in_perfect_agreement: Callable[[Camera], Board],
) -> None:
    """A world landmark that is farther away takes the joint along by its share."""
    knee, landmark = SMPL.index("left_knee"), BLAZEPOSE.index("left_knee")
    board = in_perfect_agreement(CAMERA)
    board["world"][:, landmark, 2] += 0.2
    run(ImageTarget(carry(), "keypoints", "world"), board)
    moved = (board["target"] - board["joints_3d"])[:, knee]
    np.testing.assert_allclose(moved[:, 2], 0.2 * WORLD, atol=1e-4)
    pelvis = board["translation"] + board["source"][:, 0]
    before = board["pose_landmarks"][:, landmark] + pelvis
    np.testing.assert_allclose(CAMERA.project(before + moved), CAMERA.project(before), atol=0.01)


def test_an_unseen_landmark_neither_moves_nor_convinces(
    in_perfect_agreement: Callable[[Camera], Board],
) -> None:
    knee, landmark = SMPL.index("left_knee"), BLAZEPOSE.index("left_knee")
    board = in_perfect_agreement(CAMERA)
    board["keypoints"][:, landmark] = (0.0, 0.0, 0.0)
    run(ImageTarget(carry(weight=0.5), "keypoints", "world"), board)
    np.testing.assert_allclose(board["target"][:, knee], board["joints_3d"][:, knee], atol=1e-6)
    assert not board["confidence"].any()


def test_a_lifters_joints_are_turned_as_the_camera_is_held() -> None:
    joints, landmarks = np.arange(72.0).reshape(24, 3), np.arange(99.0).reshape(33, 3)
    engine = FakeEngine(
        lambda _: {"joints": joints, "landmarks": landmarks}, joints=(24, 3), landmarks=(33, 3)
    )
    board = make_board(ROIS)
    board["other"] = np.ones((3, 33, 3), np.float32)
    run(KeypointLifter(KeypointEngine(engine, NAMES, 4, 1), "other"), board)
    for row in range(3):
        turn = board["crop_rotation"][row]
        np.testing.assert_allclose(board["joints_3d"][row], joints @ turn.T)
        np.testing.assert_allclose(board["pose_landmarks"][row], landmarks @ turn.T)


def test_the_serial_lifter_sees_the_meshs_own_projection(rng: np.random.Generator) -> None:
    engine = FakeEngine(lambda x: {"joints": x.sum((1, 2))[:, None, None]}, joints=(24, 3))
    network = KeypointEngine(engine, NAMES, 4, 1)
    stage = MeshLifter(network)
    assert not stage.needs & {"keypoints", "world", "pose_keypoints", "pose_world"}
    board = make_board(ROIS)
    points = (rng.normal(size=(3, 33, 3)) * 0.3).astype(np.float32)
    board["translation"] = np.array([[0.5, -0.2, 4.0], [-1.0, 0.3, 6.0], [0.0, 0.0, 9.0]])
    board["landmarks"] = points
    run(stage, board)
    fed = network._context.buffers["keypoints"].copy()
    keypoints = np.ones((3, 33, 3))
    keypoints[..., :2] = CAMERA.project(points + board["translation"][:, None])
    network.feed(board, keypoints)
    np.testing.assert_array_equal(fed, network._context.buffers["keypoints"])
    assert (fed[:3, :, 2] == 1).all()
    assert board["target"].shape == (3, 24, 3)
    assert (board["confidence"] == 1).all()


# Calibration


def test_a_target_of_no_confidence_leaves_the_mesh(rng: np.random.Generator) -> None:
    """One vertex a bone, on the bone's child."""
    bones = len(SMPL.bones)
    weights = SparseWeights(
        np.arange(bones, dtype=np.int32)[:, None],
        np.ones((bones, 1), np.float32),
        np.ones((bones, 1), np.float32),
    )
    stage = CalibrateStage(Calibrator(SMPL, weights))
    board = make_board(ROIS)
    board["source"] = rng.normal(size=(3, 24, 3))
    board["vertices"] = board["source"][:, SMPL.bones[:, 1]].astype(np.float32)
    board["target"] = rng.normal(size=(3, 24, 3))
    board["confidence"] = np.stack([np.zeros(24), np.ones(24), np.ones(24)])
    run(stage, board)
    np.testing.assert_allclose(board["calibrated"][0], board["vertices"][0], atol=1e-5)
    shift = board["source"][:, :1] - board["target"][:, :1]
    expected = (board["target"] + shift)[:, SMPL.bones[:, 1]]
    np.testing.assert_allclose(board["calibrated"][1:], expected[1:], atol=1e-5)
