"""Motion as BVH and SMPL parameters, read back by what their users have: joints and vertices lie
where the calibrated mesh is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bvh_reader import read_bvh
from hypothesis import given
from hypothesis import strategies as st
from people_made_up import make_person

from pchmr.bodies import Body, BodyModel, body_from_arrays
from pchmr.exchange.amass import TO_Z_UP, write_amass
from pchmr.exchange.bvh import rotmat_to_zxy, write_bvh
from pchmr.exchange.ik import Fit
from pchmr.exchange.motion import Motion, body_of, evenly, fit_motion
from pchmr.exchange.recording import Recording, read_recording
from pchmr.geometry import rotmat_to_rotvec, rotvec_to_rotmat
from pchmr.results import ResultWriter
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import BundleError, InputError
from pchmr_kernels.skeletons import get_skeleton

SEEN = [0, 1, 2, 5]  # the person is lost in frames 3 and 4
PERIOD_NS = 33_333_333


@pytest.fixture(scope="module")
def body(open_bundle: Bundle) -> Body:
    return body_from_arrays(open_bundle.body())


@pytest.fixture(scope="module")
def results(open_bundle: Bundle, body: Body, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Person 3 waves one arm; person 4 is seen once."""
    path = tmp_path_factory.mktemp("motion") / "run.npz"
    model = BodyModel(body)
    betas = np.random.default_rng(0).normal(size=(1, 10))
    with ResultWriter(path, body.faces, bundle=open_bundle) as writer:
        for frame in SEEN:
            rotvecs = np.zeros((1, 24, 3))
            rotvecs[0, 16] = (0.2, 0.1, 0.25 * frame)  # the left shoulder
            rotmats = rotvec_to_rotmat(rotvecs)
            rotmats[:, 0] = np.diag([1.0, -1, -1])  # upright before a camera
            vertices = model.pose(rotmats, betas, np.array([[0.1 * frame, 0.2, 4.0]]))[0]
            fields = {
                "vertices": vertices,
                "rotmats": rotmats[0],
                "betas": betas[0],
                "t_ns": frame * PERIOD_NS,
            }
            people = [make_person(3, track_id=3, **fields)]
            if frame == 2:
                people.append(make_person(4, track_id=4, **fields))
            writer.add(frame, people)
    return path


@pytest.fixture(scope="module")
def recording(results: Path) -> Recording:
    return read_recording(results)


@pytest.fixture(scope="module")
def motion(recording: Recording, body: Body) -> Motion:
    return fit_motion(recording, body)


def posed_joints(motion: Motion) -> np.ndarray:
    """(F, 24, 3) of the body model, camera frame."""
    model = BodyModel(motion.body)
    model.pose(motion.rotmats, np.tile(motion.betas, (len(motion.transl), 1)), motion.transl)
    return model.joints


def test_frames_are_even_and_gaps_filled_and_told(motion: Motion, recording: Recording) -> None:
    assert motion.fps == pytest.approx(30)
    assert len(motion.transl) == 6
    np.testing.assert_array_equal(np.isnan(motion.residual_mean_mm), [0, 0, 0, 1, 1, 0])
    assert motion.mean_mm < 0.1
    assert motion.max_mm < 1
    angles = rotmat_to_rotvec(motion.rotmats[:, 16])[:, 2]
    np.testing.assert_allclose(angles, 0.25 * np.arange(6), atol=0.02)
    np.testing.assert_allclose(np.diff(motion.transl[:, 0]), 0.1, atol=2e-3)


def test_a_bone_that_moves_nothing_ends_at_its_joint(motion: Motion, tmp_path: Path) -> None:
    weights, hand = motion.body.lbs_weights.copy(), 23
    weights[:, hand] = 0
    write_bvh(tmp_path / "m.bvh", replace(motion, body=replace(motion.body, lbs_weights=weights)))
    text = (tmp_path / "m.bvh").read_text()
    assert "OFFSET 0.000000 0.000000 0.000000" in text.split("JOINT right_hand")[1]
    assert "nan" not in text


def test_angles_of_bvh_go_on_through_the_half_turn(motion: Motion, tmp_path: Path) -> None:
    """Programs interpolate them one by one: a jump of 360 degrees would be a spin."""
    rotvecs = np.zeros((6, 24, 3))
    rotvecs[:, 16, 1] = np.radians(np.arange(120, 300, 30))
    write_bvh(tmp_path / "m.bvh", replace(motion, rotmats=rotvec_to_rotmat(rotvecs)))
    rows = (tmp_path / "m.bvh").read_text().split("Frame Time")[1].splitlines()[1:]
    turned = np.diff(np.array([row.split() for row in rows], float)[:, 3:], axis=0)
    assert np.abs(turned).max() == pytest.approx(30, abs=0.01)


def test_bvh_holds_the_joints(motion: Motion, tmp_path: Path) -> None:
    write_bvh(tmp_path / "motion.bvh", motion)
    bvh = read_bvh(tmp_path / "motion.bvh")
    assert bvh.frame_time == pytest.approx(1 / 30)
    names = get_skeleton("smpl24").joints
    assert {joint.name for joint in bvh.joints} == set(names)
    assert [joint.name for joint in bvh.joints if joint.parent < 0] == ["pelvis"]
    expected = posed_joints(motion) * (1, -1, -1)  # y up, z towards the viewer
    positions = bvh.positions()
    for number, name in enumerate(names):
        np.testing.assert_allclose(positions[name], expected[:, number], atol=2e-5, err_msg=name)
    assert (positions["head"][:, 1] > positions["pelvis"][:, 1] + 0.4).all()
    lengths = np.linalg.norm(bvh.ends, axis=1)  # toes, hands and the top of the head
    assert len(lengths) == 5
    assert (lengths > 0.02).all()
    assert (lengths < 0.35).all()


def test_smpl_parameters_give_the_mesh(
    motion: Motion, recording: Recording, tmp_path: Path
) -> None:
    write_amass(tmp_path / "smpl.npz", motion, recording)
    with np.load(tmp_path / "smpl.npz", allow_pickle=False) as stored:
        file = dict(stored)
    assert file["poses"].shape == (6, 72)
    assert file["betas"].shape == (10,)
    assert str(file["gender"]) == "neutral"
    assert file["mocap_framerate"] == file["mocap_frame_rate"] == pytest.approx(30)
    assert str(file["body"]) == "open"
    assert file["residual_mean_mm"].shape == file["residual_max_mm"].shape == (6,)
    rotmats = rotvec_to_rotmat(file["poses"].reshape(6, 24, 3))
    vertices = BodyModel(motion.body).pose(rotmats, np.tile(file["betas"], (6, 1)), file["trans"])
    expected = recording.track(3).vertices @ TO_Z_UP.T
    np.testing.assert_allclose(vertices[SEEN], expected, atol=1e-3)
    heights = vertices[0, :, 2]  # z is up
    assert 1.4 < np.ptp(heights) < 2
    assert np.ptp(vertices[0, :, 1]) < 0.6


def test_uneven_times_are_made_even(recording: Recording, body: Body) -> None:
    """A camera that stutters: turns are interpolated to the time they are asked for."""
    track = recording.track(3)
    seconds = np.array([0.0, 0.011, 0.02, 0.042, 0.05])
    angles = 10 * seconds
    rotmats = np.tile(np.eye(3), (5, 24, 1, 1))
    rotvecs = np.zeros((5, 3))
    rotvecs[:, 1] = angles
    rotmats[:, 5] = rotvec_to_rotmat(rotvecs)
    fit = Fit(rotmats, np.zeros(10), seconds[:, None] * (1, 2, 3), np.ones(5), np.ones(5))
    track = replace(track, t_ns=np.round(seconds * 1e9).astype(np.int64), frame=np.arange(5))
    even = evenly(fit, body, track, 100.0)
    np.testing.assert_allclose(rotmat_to_rotvec(even.rotmats[:, 5])[:, 1], np.arange(6) / 10)
    np.testing.assert_allclose(even.transl[:, 2], 0.03 * np.arange(6))
    assert np.isfinite(even.residual_mean_mm).sum() >= 5


@pytest.mark.parametrize(
    ("seconds", "filled"),
    [
        ([0.0, 0.1, 0.2, 0.5], [3, 4]),  # nobody was seen in two frames
        ([0.0, 0.03, 0.17, 0.2], []),  # frames may come unevenly: 1.4 of their time apart
        ([0.0, 0.16, 0.3], [1]),  # 1.6 apart, and 0.6 from the next
        ([0.0, 0.1, 0.17, 0.33, 0.4], []),  # 1.6 apart, but each near to one that was seen
    ],
)
def test_frames_that_were_filled_in_have_no_residual(
    seconds: list[float], filled: list[int], recording: Recording, body: Body
) -> None:
    count = len(seconds)
    track = replace(
        recording.track(3),
        t_ns=np.round(np.array(seconds) * 1e9).astype(np.int64),
        frame=np.arange(count),
    )
    still = np.tile(np.eye(3), (count, 24, 1, 1))
    fit = Fit(still, np.zeros(10), np.zeros((count, 3)), np.ones(count), 2 * np.ones(count))
    even = evenly(fit, body, track, 10.0)
    assert np.flatnonzero(np.isnan(even.residual_mean_mm)).tolist() == filled
    assert np.flatnonzero(np.isnan(even.residual_max_mm)).tolist() == filled


def test_one_frame_is_a_motion_too(recording: Recording, body: Body, tmp_path: Path) -> None:
    motion = fit_motion(recording, body, person=4)
    assert len(motion.transl) == 1
    write_bvh(tmp_path / "one.bvh", motion)
    assert len(read_bvh(tmp_path / "one.bvh").rows) == 1


angle = st.floats(-np.pi, np.pi)


@given(st.tuples(angle, angle, angle))
def test_zxy_angles_give_the_rotation(rotvec: tuple[float, float, float]) -> None:
    check_zxy(rotvec_to_rotmat(np.array(rotvec)))


@pytest.mark.parametrize("x", [np.pi / 2, -np.pi / 2, np.pi / 2 - 1e-7])
@pytest.mark.parametrize("y", [0.0, 0.3, -3.0])
def test_zxy_angles_where_two_axes_fall_together(x: float, y: float) -> None:
    z = rotvec_to_rotmat(np.array([0, 0, 0.7]))
    turn = rotvec_to_rotmat(np.array([x, 0, 0])) @ rotvec_to_rotmat(np.array([0, y, 0]))
    check_zxy(z @ turn)


def check_zxy(rotmat: np.ndarray) -> None:
    z, x, y = rotmat_to_zxy(rotmat)
    axes = np.array([[0, 0, z], [x, 0, 0], [0, y, 0]])
    a, b, c = rotvec_to_rotmat(axes)
    np.testing.assert_allclose(a @ b @ c, rotmat, atol=1e-6)


def test_the_body_is_the_one_the_results_name(
    recording: Recording, open_bundle: Bundle, body: Body
) -> None:
    np.testing.assert_array_equal(body_of(recording).v_template, body.v_template)
    other = replace(recording, body_sha256="0" * 64)
    with pytest.raises(
        InputError, match=r"of an older build of bundle open, .* with --bundle open"
    ):
        body_of(other)
    assert body_of(other, str(open_bundle.root)).num_betas == 10  # the user's word for it
    with pytest.raises(InputError, match="another body"):
        body_of(replace(recording, faces=recording.faces[1:]), "open")
    with pytest.raises(InputError, match=r"do not name their bundle: .*--bundle"):
        body_of(replace(recording, bundle=""))
    with pytest.raises(BundleError, match="does not exist"):
        body_of(replace(recording, bundle="lost"))
