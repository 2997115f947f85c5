"""The pipeline on real frames: what a Person holds, and what may and may not change it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr import Camera, Person, Pipeline
from pchmr.bodies import BodyModel
from pchmr.executor import Executor
from pchmr.stages.base import Board
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.manifest import Graph

TOPOLOGIES = ("serial", "parallel", "template", "mesh-only")
CALIBRATED = TOPOLOGIES[:-1]
NEAR = 0.035  # of a person's height: 4 to 6 cm
COUNTED = ("frame", "t_ns", "track_id")
Image = NDArray[np.uint8]
GetPipeline = Callable[[str], Pipeline]
Load = Callable[..., Pipeline]


def assert_same(a: Person, b: Person) -> None:
    """Every field but the time it took, and the names that count up while a pipeline lives."""
    for name in {field.name for field in fields(Person)} - {*COUNTED, "latency_ms"}:
        np.testing.assert_equal(getattr(a, name), getattr(b, name), err_msg=name)


def regress(pipe: Pipeline, skeleton: str, vertices: np.ndarray) -> np.ndarray:
    return pipe.body.regressor(skeleton) @ vertices


def reprojection(pipe: Pipeline, person: Person, vertices: np.ndarray) -> float:
    """Mean distance of the mesh's landmarks from the image's, in heights of the person's box."""
    landmarks = person.camera.project(regress(pipe, "blazepose33", vertices))[11:]
    apart = np.linalg.norm(landmarks - person.keypoints_2d[11:, :2], axis=1)
    height = person.bbox[3] - person.bbox[1]
    return float(np.average(apart, weights=person.keypoints_2d[11:, 2]) / height)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_a_person_holds(topology: str, pipelines: GetPipeline, two_people: Image) -> None:
    pipe = pipelines(topology)
    people = pipe(two_people, t_ns=77)
    V, J, S = len(pipe.body.v_template), 24, pipe.body.num_betas
    assert len(people) == 2
    assert len({person.track_id for person in people}) == 2
    for person in people:
        shapes = {
            "vertices": (V, 3),
            "generator_vertices": (V, 3),
            "joints": (J, 3),
            "target_joints": (J, 3),
            "joint_confidence": (J,),
            "keypoints_2d": (33, 3),
            "rotmats": (24, 3, 3),
            "betas": (S,),
            "transl": (3,),
        }
        if topology == "mesh-only":
            assert person.target_joints is None
            del shapes["target_joints"]
        for name, shape in shapes.items():
            array = getattr(person, name)
            assert (array.shape, array.dtype) == (shape, np.float32), name
            assert np.isfinite(array).all(), name
        assert person.t_ns == 77
        assert person.skeleton == "smpl24"
        assert person.valid
        assert 0.5 < person.score <= 1.0
        assert person.camera == Camera.from_size(1768, 994)
        x0, y0, x1, y1 = person.bbox
        assert 0 <= x0 < x1 <= 1768
        assert 0 <= y0 < y1 <= 994
        assert (person.joint_confidence >= 0).all()
        assert (person.joint_confidence <= 1).all()
        det = np.linalg.det(person.rotmats)
        np.testing.assert_allclose(det, 1.0, atol=1e-4)
        assert person.latency_ms["total"] >= person.latency_ms["find"] > 0
        assert (person.vertices[:, 2] > 1.0).all()
        np.testing.assert_allclose(
            person.joints, regress(pipe, "smpl24", person.vertices), atol=1e-5
        )


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_parameters_are_smpls(
    topology: str, pipelines: GetPipeline, load_open: Load, two_people: Image
) -> None:
    """Anyone's body model makes the generator's mesh of them, smoothed or not."""
    smooth = load_open(topology, smooth=True)
    smooth(two_people)
    for person in [*pipelines(topology)(two_people), *smooth(two_people)]:
        rotmats = np.concatenate([person.global_orient, person.body_pose])[None]
        model = BodyModel(pipelines(topology).body)
        (vertices,) = model.pose(rotmats, person.betas[None], person.transl[None])
        np.testing.assert_allclose(vertices, person.generator_vertices, atol=1e-5)


@pytest.mark.parametrize("topology", CALIBRATED)
def test_the_calibrated_mesh_stands_where_the_generators_does(
    topology: str, pipelines: GetPipeline, two_people: Image
) -> None:
    for person in pipelines(topology)(two_people):
        root = regress(pipelines(topology), "smpl24", person.generator_vertices)[0]
        np.testing.assert_allclose(person.target_joints[0], root, atol=1e-5)
        np.testing.assert_allclose(person.joints[0], root, atol=0.03)
        moved = np.linalg.norm(person.vertices - person.generator_vertices, axis=1)
        assert 0.005 < moved.mean() < (1.0 if topology == "template" else 0.3)


def test_mesh_only_is_the_generators_mesh(pipelines: GetPipeline, two_people: Image) -> None:
    alone, calibrated = pipelines("mesh-only")(two_people), pipelines("serial")(two_people)
    for person, other in zip(alone, calibrated, strict=True):
        np.testing.assert_array_equal(person.vertices, person.generator_vertices)
        np.testing.assert_array_equal(person.vertices, other.generator_vertices)
        assert not person.joint_confidence.any()


def test_calibration_lands_on_its_target(pipelines: GetPipeline, two_people: Image) -> None:
    """The mesh's joints come nearer to the target, where it is trusted, than the generator's."""
    for topology in CALIBRATED:
        pipe = pipelines(topology)
        for person in pipe(two_people):
            trusted = person.joint_confidence > 0.8
            before, after = (
                np.linalg.norm(joints - person.target_joints, axis=1)[trusted].mean()
                for joints in (regress(pipe, "smpl24", person.generator_vertices), person.joints)
            )
            assert after < 0.02
            assert after < 0.5 * before


def test_meshes_lie_on_the_image(pipelines: GetPipeline, two_people: Image) -> None:
    """Absolute camera coordinates: projected by the Person's own camera, a mesh's landmarks meet
    the image's; nearest in the parallel form, whose targets come from there."""
    errors = {}
    for topology in TOPOLOGIES:
        pipe = pipelines(topology)
        people = pipe(two_people)
        errors[topology] = [reprojection(pipe, person, person.vertices) for person in people]
    assert max(errors["parallel"]) < NEAR
    assert max(errors["template"]) < 2 * NEAR
    assert max(errors["serial"] + errors["mesh-only"]) < 3 * NEAR
    assert sum(errors["parallel"]) < sum(errors["mesh-only"])


def test_the_other_camera_moves_the_person_not_the_picture(
    load_open: Load, two_people: Image
) -> None:
    """A longer lens puts people farther away, and onto the same pixels."""
    near = Camera.from_size(1768, 994)
    far = replace(near, fx=2 * near.fx, fy=2 * near.fy)
    people = []
    for camera in (near, far):
        pipe = load_open(camera=camera)
        (person,) = pipe(two_people)
        assert person.camera == camera
        assert reprojection(pipe, person, person.vertices) < NEAR
        people.append(person)
    ratio = people[1].joints[0, 2] / people[0].joints[0, 2]
    assert 1.8 < ratio < 2.2


def test_a_lens_without_distortion_is_no_lens(load_open: Load, two_people: Image) -> None:
    plain = Camera.from_size(1768, 994)
    lenses = (plain, replace(plain, distortion=(0.0,) * 5))
    (a,), (b,) = (load_open(camera=lens)(two_people) for lens in lenses)
    np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-3)


def test_a_distorted_lens_is_undone(load_open: Load, two_people: Image) -> None:
    """Landmarks stay the image's own; the mesh, bent by the lens again, meets them."""
    lens = replace(Camera.from_size(1768, 994), distortion=(-0.15, 0.05, 0.0, 0.0))
    pipe = load_open(camera=lens)
    (person,) = pipe(two_people)
    (plain,) = load_open()(two_people)
    np.testing.assert_array_equal(person.keypoints_2d, plain.keypoints_2d)
    assert reprojection(pipe, person, person.vertices) < NEAR


# What may enter a target


def run_until(pipe: Pipeline, image: Image, last: str) -> tuple[Board, list]:
    """The board after the stage `last`, and what is left, of a pipeline not compiled."""
    assert isinstance(pipe._executor, Executor)
    tracks = pipe._find(image)
    board = pipe._board(image, Camera.from_size(1768, 994), 0, tracks)
    stages = [stage for level in pipe._executor.levels for stage in level]
    first = [stage.name for stage in stages].index(last) + 1
    run(stages[:first], board)
    return board, stages[first:]


def run(stages: list, board: Board) -> None:
    for stage in stages:
        stage.prepare(board)
        stage.enqueue()
        stage.collect(board)


def perturbed_target(pipe: Pipeline, image: Image) -> tuple[np.ndarray, np.ndarray]:
    """The target as it is, and with other image landmarks while the mesh stream's result stays."""
    targets = []
    for shift_px in (0.0, 15.0):
        pipe.reset()
        board, left = run_until(pipe, image, "place")
        board["keypoints"] = board["keypoints"] + np.float32([shift_px, -shift_px, 0])
        board["world"] = board["world"] + np.float32(0.01 * shift_px)
        run([stage for stage in left if "keypoints" not in stage.gives], board)
        targets.append(board["target"].copy())
    return targets[0], targets[1]


def test_no_image_landmark_enters_a_serial_target(load_open: Load, two_people: Image) -> None:
    pipe = load_open("serial", max_people=2, side_by_side=True)
    before, after = perturbed_target(pipe, two_people)
    np.testing.assert_array_equal(before, after)


def test_image_landmarks_enter_a_parallel_target(load_open: Load, two_people: Image) -> None:
    pipe = load_open("parallel", max_people=2, side_by_side=True)
    before, after = perturbed_target(pipe, two_people)
    assert np.abs(after - before).max() > 0.02


def test_a_pose_stream_with_a_network_of_its_own(
    open_bundle: Bundle, load_open: Load, two_people: Image, tmp_path: Path
) -> None:
    """As in open-plus; with the mesh stream's own network in its place, nothing changes."""
    manifest = open_bundle.manifest
    twin = replace(
        open_bundle.stage("landmarks"),
        name="pose_landmarks",
        role="pose2d",
        graphs=(Graph("fp32", "stages/twin.onnx"),),
        parity_data=None,
    )
    files = {ref.file: open_bundle.root / ref.file for ref in manifest.files()}
    files["stages/twin.onnx"] = open_bundle.root / open_bundle.stage("landmarks").graph().file
    bundle = write_bundle(
        tmp_path / "plus", replace(manifest, stages=(*manifest.stages, twin)), files
    )
    plus, plain = load_open(bundle=bundle, max_people=2), load_open(max_people=2)
    people = zip(plus(two_people), plain(two_people), strict=True)
    for person, other in people:
        assert_same(person, other)
        assert "pose_landmarks" in person.latency_ms
    staged = load_open(bundle=bundle, max_people=2, side_by_side=True)
    before, after = perturbed_target(staged, two_people)
    np.testing.assert_array_equal(before, after)


# Repeatability and state


@pytest.mark.parametrize("topology", ["serial", "parallel"])
def test_two_runs_are_equal(
    topology: str, load_open: Load, pipelines: GetPipeline, walk: list[Image]
) -> None:
    fresh = load_open(topology, max_people=2)
    runs = [[pipe(frame) for frame in walk] for pipe in (pipelines(topology), fresh)]
    for first, second in zip(*runs, strict=True):
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("topology", ["parallel", "template"])
def test_branches_side_by_side_change_nothing(
    topology: str, load_open: Load, pipelines: GetPipeline, two_people: Image
) -> None:
    with load_open(topology, max_people=2, side_by_side=True) as pipe:
        people = pipe(two_people)
    for a, b in zip(pipelines(topology)(two_people), people, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_person_does_not_depend_on_who_else_is_there(
    topology: str, pipelines: GetPipeline, two_people: Image
) -> None:
    pipe = pipelines(topology)
    camera = Camera.from_size(1768, 994)
    tracks = pipe._find(two_people)

    def people_of(tracks: list) -> list[Person]:
        board = pipe._board(two_people, camera, 0, tracks)
        pipe._executor.run(board)
        return pipe._people(board, 0, {})

    together = people_of(tracks)
    alone = [*people_of(tracks[:1]), *people_of(tracks[1:])]
    for a, b in zip(together, alone, strict=True):
        for name in ("vertices", "generator_vertices", "joints", "rotmats", "betas"):
            np.testing.assert_allclose(
                getattr(a, name), getattr(b, name), rtol=0, atol=2e-5, err_msg=name
            )


def test_arrays_stay_what_they_were(pipelines: GetPipeline, walk: list[Image]) -> None:
    pipe = pipelines("parallel")
    people = pipe(walk[0])
    kept = deepcopy(people)
    for frame in walk[1:]:
        pipe(frame)
    for person, copy in zip(people, kept, strict=True):
        assert_same(person, copy)


def test_arrays_of_a_person_are_their_own(pipelines: GetPipeline, two_people: Image) -> None:
    first, second = pipelines("mesh-only")(two_people)
    assert not np.shares_memory(first.vertices, first.generator_vertices)
    assert not np.shares_memory(first.vertices, second.vertices)
    first.vertices[:] = 0
    assert first.generator_vertices.all()


def test_tracks_go_on_until_reset(pipelines: GetPipeline, walk: list[Image]) -> None:
    pipe = pipelines("mesh-only")
    begin = pipe.detector_runs
    ids = {person.track_id for frame in walk for person in pipe(frame)}
    assert len(ids) == 1
    looks = pipe.detector_runs - begin
    pipe.reset()
    (again,) = pipe(walk[0])
    assert again.track_id not in ids
    assert pipe.detector_runs - begin > looks


def test_frames_and_times_count_up(load_open: Load, walk: list[Image]) -> None:
    pipe = load_open("mesh-only")
    seen = []
    for frame in (walk[0], np.zeros_like(walk[0]), walk[0]):
        pipe.reset()
        seen += [(person.frame, person.t_ns) for person in pipe(frame)]
    assert seen == [(0, 0), (2, 66_666_666)]
