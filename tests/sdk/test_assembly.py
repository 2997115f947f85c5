"""Bundles of networks over crops: the stages of each topology, and what they give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crop_graphs import (
    Head,
    MadeUp,
    array_graph,
    image_graph,
    make_bundle,
)
from crop_stages import (
    CAMERA,
    GENERATOR,
    SQUARE,
    assemble,
    assembly_of,
    body_arrays,
    lifter,
    mesh_heads,
    pose2d,
    pose3d,
    without,
)

from pchmr.assembly import GIVEN, Assembly
from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.camera import Camera
from pchmr.detections import DetectedKeypoints
from pchmr.executor import Executor
from pchmr.stages.base import Board, Row
from pchmr.stages.smoothed import smoothed
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import BundleError
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton

SIZE = (640, 480)
BOXES = np.array([[100.0, 60, 260, 420], [400, 100, 500, 400], [500.0, 20, 640, 470]])


def run(
    assembly: Assembly,
    camera: Camera | None = None,
    boxes: np.ndarray = BOXES,
    smooth: bool = False,
) -> Board:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    image = np.ascontiguousarray(image[::20, ::20].repeat(20, 0).repeat(20, 1))
    rows = [Row(0, 0, row, row) for row in range(len(boxes))]
    board = Board(image, camera or Camera.from_size(*SIZE), rows, [])
    board["box"] = boxes
    board["crop_rotation"] = np.tile(np.eye(3), (len(boxes), 1, 1))
    draw = np.random.default_rng(1)
    points = (
        boxes[:, None, :2]
        + draw.random((len(boxes), 33, 2)) * (boxes[:, 2:] - boxes[:, :2])[:, None]
    )
    board["keypoints"] = np.concatenate([points, np.ones((len(boxes), 33, 1))], -1)
    stages = assembly.stages()
    Executor(smoothed(stages, assembly.skeleton) if smooth else stages, GIVEN, False).run(board)
    return board


STREAMS = {
    "mesh-only": ["generator", "view", "body"],
    "serial": [
        "generator",
        "view",
        "body",
        "project",
        "normalise",
        "lifter",
        "target",
        "calibrate",
    ],
    "parallel": [
        "generator",
        "view",
        "body",
        "pose2d",
        "normalise",
        "lifter",
        "target",
        "calibrate",
    ],
    "template": [
        "generator",
        "body",
        "pose2d",
        "normalise",
        "lifter",
        "target",
        "place",
        "calibrate",
    ],
}


@pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")
@pytest.mark.parametrize("topology", STREAMS)
def test_stages_of_a_topology_in_the_papers_order(topology: str, tmp_path: Path) -> None:
    assembly = assemble(tmp_path / "b", [GENERATOR, pose2d(), lifter()], topology)
    assert [stage.name for stage in assembly.stages()] == STREAMS[topology]
    board = run(assembly)
    assert board["placed"].all() == (topology != "template")  # noise of heat maps is no body
    if topology != "mesh-only":
        assert board["calibrated"].shape == (3, 48, 3)
        assert np.isfinite(board["calibrated"]).all()


def test_the_open_default_is_assembled_as_before(open_bundle: Bundle) -> None:
    names = {
        topology: [stage.name for stage in assembly_of(open_bundle, topology).stages()]
        for topology in ("serial", "parallel", "template")
    }
    mesh = ["generator", "body", "place"]
    assert names["serial"] == [*mesh, "lifter", "calibrate"]
    assert names["parallel"] == [*mesh, "lifter", "target", "calibrate"]
    assert names["template"] == ["generator", "body", "lifter", "target", "place", "calibrate"]


def test_approximate_conversions_warn_once_and_say_which(tmp_path: Path) -> None:
    assembly = assemble(tmp_path / "b", [GENERATOR, pose2d(), lifter()], "parallel")
    with pytest.warns(ApproximateConversion, match="coco17 -> h36m17") as caught:
        assembly.stages()
    assert len(caught) == 1


@pytest.mark.filterwarnings("error::pchmr_kernels.conversions.ApproximateConversion")
def test_exact_conversions_do_not_warn(tmp_path: Path) -> None:
    """Seventeen joints for a calibration of SemGCN's sixteen: all but the nose."""
    stages = [GENERATOR, lifter("h36m17", "h36m17")]
    board = run(assemble(tmp_path / "b", stages, "serial", "semgcn16"))
    assert board["target"].shape == (3, 16, 3)
    nose = get_skeleton("h36m17").index("nose")
    kept = [joint for joint in range(17) if joint != nose]
    np.testing.assert_allclose(board["target"], board["lifted"][:, kept], atol=1e-6)


def test_the_calibration_of_the_pose_streams_own_joints(tmp_path: Path) -> None:
    stages = [GENERATOR, lifter(), pose3d()]
    bundle = make_bundle(tmp_path / "b", stages, body_arrays(), "smpl24", "semgcn16", "h36m17")
    assert assembly_of(bundle, "serial").skeleton.name == "h36m17"
    bundle = make_bundle(tmp_path / "c", [GENERATOR, pose2d()], body_arrays(), "smpl24", "h36m17")
    assert assembly_of(bundle, "parallel").skeleton.name == "smpl24"


def test_a_mesh_only_bundle_needs_no_calibration(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", [GENERATOR], body_arrays())
    board = run(assembly_of(bundle, "mesh-only"))
    assert board["source"].shape == (3, len(assembly_of(bundle, "mesh-only").skeleton), 3)
    with pytest.raises(BundleError, match=r"'made-up' has no lifter.*generator \(mesh-gen"):
        assembly_of(bundle, "serial").stages()
    bundle = make_bundle(tmp_path / "c", [GENERATOR, lifter()], body_arrays())
    with pytest.raises(BundleError, match="no calibration weights: choose topology mesh-only"):
        assembly_of(bundle, "serial").stages()


# What stands in for what


def test_features_of_an_encoder(tmp_path: Path) -> None:
    """Image -> features -> pose gives what image -> pose gives."""
    heads = mesh_heads()
    identity = Head((48,), np.eye(48, dtype=np.float32), np.zeros(48, np.float32))
    encoder = MadeUp(
        "encoder", "encoder", image_graph(SQUARE.size, {"features": identity}), crop=SQUARE
    )
    head = MadeUp(
        "generator",
        "mesh-generator",
        array_graph("features", (48,), heads),
        "smpl24",
        settings=CAMERA,
    )
    board = run(assemble(tmp_path / "b", [encoder, head, lifter()], "serial"))
    expected = run(assemble(tmp_path / "c", [GENERATOR, lifter()], "serial"))
    for name in ("vertices", "translation", "calibrated"):
        np.testing.assert_allclose(board[name], expected[name], atol=1e-5)
    with pytest.raises(BundleError, match="has no encoder"):
        assemble(tmp_path / "d", [head, lifter()], "serial").stages()


def test_a_camera_without_a_size_is_the_crops(tmp_path: Path) -> None:
    stages = [without(GENERATOR, "camera_size"), lifter()]
    board = run(assemble(tmp_path / "b", stages, "serial"))
    expected = run(assemble(tmp_path / "c", [GENERATOR, lifter()], "serial"))
    np.testing.assert_array_equal(board["translation"], expected["translation"])


def test_a_generator_of_vertices(tmp_path: Path) -> None:
    """What the body would have been, given by the network: turned, calibrated and placed alike."""
    heads = mesh_heads()
    still = {name: replace(head, weight=0 * head.weight) for name, head in heads.items()}
    posed = MadeUp(
        "generator", "mesh-generator", image_graph(SQUARE.size, still), "smpl24", SQUARE, CAMERA
    )
    model = BodyModel(body_from_arrays(body_arrays()))
    rotmats, betas = still["rotmats"].bias.reshape(1, 24, 3, 3), still["betas"].bias[None]
    vertices = model.pose(rotmats, betas)[0]
    answers = {"vertices": Head((48, 3), np.zeros((48, 144), np.float32), vertices.reshape(-1))}
    answers["cam"] = still["cam"]
    given = MadeUp(
        "generator", "mesh-generator", image_graph(SQUARE.size, answers), None, SQUARE, CAMERA
    )
    board = run(assemble(tmp_path / "b", [given, lifter()], "serial"))
    expected = run(assemble(tmp_path / "c", [posed, lifter()], "serial"))
    assert board["rotmats"].shape == (3, 0, 3, 3)
    assert board["betas"].shape == (3, 0)
    np.testing.assert_allclose(board["mesh_keypoints"], expected["mesh_keypoints"], atol=1e-3)
    # The body's pelvis and Human3.6M's, about which each is turned, are the same joint here.
    np.testing.assert_allclose(board["calibrated"], expected["calibrated"], atol=2e-3)
    np.testing.assert_allclose(board["translation"], expected["translation"])
    first = run(assemble(tmp_path / "e", [given, lifter()], "serial"), smooth=True)
    np.testing.assert_array_equal(first["calibrated"], board["calibrated"])
    perceptron = {
        f"h36m17_perceptron.self_rotation.{layer}.{part}": np.zeros((2, 2), np.float32)
        for layer in ("hidden", "last")
        for part in ("weight", "bias")
    }
    bundle = make_bundle(tmp_path / "d", [given, lifter()], body_arrays() | perceptron, "h36m17")
    with pytest.raises(BundleError, match="perceptrons take a pose and a shape, but the mesh gen"):
        assembly_of(bundle, "serial").stages()


def test_detections_in_place_of_a_2d_network(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    clips = [draw.random((1, 17, 3)).astype(np.float32) * 300 for _ in BOXES]
    detections = DetectedKeypoints(clips, "h36m17")
    stages = [GENERATOR, lifter()]
    board = run(assemble(tmp_path / "b", stages, "parallel", pose2d=detections))
    expected = np.stack([clip[0] for clip in clips])
    np.testing.assert_allclose(board["lifter_keypoints"], expected, rtol=1e-6)


def test_the_trackers_landmarks_in_place_of_a_2d_network(tmp_path: Path) -> None:
    with pytest.warns(ApproximateConversion, match="blazepose33 -> h36m17"):
        board = run(assemble(tmp_path / "b", [GENERATOR, lifter()], "parallel"))
    left = get_skeleton("blazepose33").index("left_knee")
    np.testing.assert_allclose(
        board["lifter_keypoints"][:, get_skeleton("h36m17").index("left_knee")],
        board["keypoints"][:, left],
    )


def test_joints_of_a_3d_network_are_turned_onto_the_ray(tmp_path: Path) -> None:
    stages = [GENERATOR, pose3d("joints", "posenet18")]
    board = run(assemble(tmp_path / "b", stages, "parallel"))
    for row, box in enumerate(BOXES):
        ray = np.array([*(box[:2] + box[2:]) / 2 - np.array(SIZE) / 2, np.hypot(*SIZE)])
        ray /= np.linalg.norm(ray)
        ahead = board["target"][row, 1] - board["target"][row, 0]
        seen = board["pose3d"][row, 1] - board["pose3d"][row, 0]
        assert ahead @ ray == pytest.approx(seen[2], abs=2e-3)


def test_a_template_stands_where_the_joints_are_seen(tmp_path: Path) -> None:
    """Its root falls on PoseNet's, and its bones are as long, in the sum of squares."""
    board = run(assemble(tmp_path / "b", [pose3d()], "template"))
    skeleton, camera = get_skeleton("h36m17"), Camera.from_size(*SIZE)
    assert board["placed"].all()
    stands = board["translation"] + board["source"][:, 0]
    np.testing.assert_allclose(board["target"][:, 0], stands, atol=1e-3)
    parent, child = skeleton.bones.T
    lengths = [
        ((x[:, parent] - x[:, child]) ** 2).sum((1, 2)) for x in (board["target"], board["source"])
    ]
    np.testing.assert_allclose(*lengths, rtol=1e-6)
    seen = camera.project(stands)
    assert ((seen > BOXES[:, :2]) & (seen < BOXES[:, 2:])).all()
    with pytest.raises(BundleError, match="expected posenet, which says where a template stands"):
        assemble(tmp_path / "c", [pose3d("joints")], "template").stages()


def test_lens_distortion_is_undone(tmp_path: Path) -> None:
    """The crop shows what a bent lens made of a person: rays and keypoints come free of it."""
    plain = Camera.from_size(*SIZE)
    bent = replace(plain, distortion=(-0.2, 0.05, 0.0, 0.0))
    stages = [GENERATOR, lifter()]
    board, other = (
        run(assemble(tmp_path / name, stages, "serial"), camera)
        for name, camera in (("plain", plain), ("bent", bent))
    )
    straight = bent.undistort(board["mesh_keypoints"][..., :2])
    np.testing.assert_allclose(other["mesh_keypoints"][..., :2], straight, atol=1e-2)
    assert np.abs(straight - board["mesh_keypoints"][..., :2]).max() > 5
    root = other["translation"] + other["source"][:, 0]
    middle = bent.undistort((BOXES[:, :2] + BOXES[:, 2:]) / 2)
    ahead = bent.pinhole.project(root)
    assert np.abs(ahead - middle).max() < 60
    assert np.abs(other["translation"] - board["translation"]).max() > 0.02


@pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")
def test_lens_distortion_is_taken_out_of_image_keypoints(tmp_path: Path) -> None:
    plain = Camera.from_size(*SIZE)
    bent = replace(plain, distortion=(-0.2, 0.05, 0.0, 0.0))
    stages = [GENERATOR, pose2d(), lifter()]
    seen, straight = (
        run(assemble(tmp_path / name, stages, "parallel"), camera)["pose_keypoints"][..., :2]
        for name, camera in (("plain", plain), ("bent", bent))
    )
    np.testing.assert_allclose(straight, bent.undistort(seen), atol=1e-2)
    assert np.abs(straight - seen).max() > 1


@pytest.mark.parametrize(
    "box", [(640.0, 100, 640, 200), (-50.0, -60, -50, -60), (600.0, 480, 640, 480)]
)
@pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")
def test_a_person_at_the_frames_edge_stops_nothing(box: tuple[float, ...], tmp_path: Path) -> None:
    """Boxes clipped to nothing."""
    stages = [GENERATOR, pose2d(), lifter()]
    board = run(assemble(tmp_path / "b", stages, "parallel"), boxes=np.array([box]))
    assert np.isfinite(board["calibrated"]).all()
    board = run(assemble(tmp_path / "c", [GENERATOR, pose3d()], "parallel"), boxes=np.array([box]))
    assert np.isfinite(board["calibrated"]).all()
