"""Pose and shape found again from vertices, and an honest residual where they do not fit."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_body import tiny_arrays

from pchmr.bodies import Body, BodyModel, body_from_arrays
from pchmr.exchange import ik, pose_solver
from pchmr.exchange.ik import fit_body
from pchmr.exchange.pose_solver import Pose
from pchmr.geometry import rotmat_to_rotvec, rotvec_to_rotmat
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError


@pytest.fixture(scope="module")
def open_body(open_bundle: Bundle) -> Body:
    return body_from_arrays(open_bundle.body())


def made_up_pose(rng: np.random.Generator, frames: int, spread: float) -> tuple[np.ndarray, ...]:
    """rotmats (F, 24, 3, 3), one shape (10,), transl (F, 3) before a camera."""
    rotmats = rotvec_to_rotmat(spread * rng.standard_normal((frames, 24, 3)))
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ rotmats[:, 0]
    return rotmats, rng.standard_normal(10), rng.normal((0, 0, 4), 0.3, (frames, 3))


def pose(body: Body, rotmats: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> np.ndarray:
    return BodyModel(body).pose(rotmats, np.tile(betas, (len(rotmats), 1)), transl)


def angles_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    turn = rotmat_to_rotvec(one.swapaxes(-1, -2) @ other)
    return np.degrees(np.linalg.norm(turn, axis=-1))


@pytest.mark.parametrize("guessed", [True, False])
def test_parameters_are_found_again(
    guessed: bool, open_body: Body, rng: np.random.Generator
) -> None:
    rotmats, betas, transl = made_up_pose(rng, 3, 0.25)
    vertices = pose(open_body, rotmats, betas, transl)
    wrong = rotmats @ rotvec_to_rotmat(0.1 * rng.standard_normal((3, 24, 3)))
    fit = fit_body(open_body, vertices, wrong.astype(np.float32) if guessed else None)
    assert fit.residual_mean_mm.max() < 0.05
    assert fit.residual_max_mm.max() < 0.5
    np.testing.assert_allclose(fit.betas, betas, atol=0.02)
    assert angles_deg(fit.rotmats, rotmats).max() < 0.5
    turned = fit.rotmats @ fit.rotmats.swapaxes(-1, -2)
    np.testing.assert_allclose(turned, np.broadcast_to(np.eye(3), turned.shape), atol=1e-9)


def test_a_body_with_pose_blend_shapes(open_body: Body, rng: np.random.Generator) -> None:
    """Blend shapes of SMPL's kind: up to a few centimetres, where the joint's own skin is."""
    posedirs = np.zeros((*open_body.v_template.shape, 9 * 23), np.float32)
    for joint in range(1, 24):
        bulge = 0.01 * rng.standard_normal((1, 3, 9))
        columns = slice(9 * (joint - 1), 9 * joint)
        posedirs[..., columns] = open_body.lbs_weights[:, joint, None, None] * bulge
    body = replace(open_body, posedirs=posedirs)
    rotmats, betas, transl = made_up_pose(rng, 1, 0.25)
    vertices = pose(body, rotmats, betas, transl)
    bulged = pose(open_body, rotmats, betas, transl) - vertices
    assert 1e3 * np.linalg.norm(bulged, axis=2).max() > 10
    fit = fit_body(body, vertices)
    without = fit_body(open_body, vertices)
    assert fit.residual_mean_mm.max() < 1
    assert without.residual_mean_mm.min() > 3 * fit.residual_mean_mm.max()


def test_a_guess_is_never_made_worse(rng: np.random.Generator) -> None:
    """Two vertices a joint leave turns open, and blend shapes of noise punish a wrong one."""
    body = body_from_arrays(tiny_arrays())
    rotmats, betas, transl = made_up_pose(rng, 6, 0.15)
    vertices = pose(body, rotmats, 0.1 * betas, transl)
    fit = fit_body(body, vertices, rotmats, 0.1 * betas)
    assert fit.residual_mean_mm.max() < 1e-2


def test_a_joint_may_move_nothing(rng: np.random.Generator) -> None:
    body = body_from_arrays(tiny_arrays())
    weights, leaf = body.lbs_weights.copy(), 23
    weights[:, body.parents[leaf]] += weights[:, leaf]
    weights[:, leaf] = 0
    body = replace(body, lbs_weights=weights)
    rotmats, betas, transl = made_up_pose(rng, 2, 0.1)
    vertices = pose(body, rotmats, 0.1 * betas, transl)
    assert fit_body(body, vertices, rotmats, 0.1 * betas).residual_mean_mm.max() < 1e-2


def test_the_squares_are_those_of_the_mesh_and_their_gradient_is_right(
    open_body: Body, rng: np.random.Generator
) -> None:
    rotmats, betas, transl = made_up_pose(rng, 2, 0.3)
    target = pose(open_body, rotmats, betas, transl)
    target += (0.05 * rng.standard_normal(target.shape)).astype(np.float32)
    frames = ik._Frames(BodyModel(open_body), target)
    sums = frames._sums(betas, rotmats)
    there = Pose(*made_up_pose(rng, 2, 0.3)[::2])
    there = Pose(there.rotmats, there.transl - frames.middle)
    made = pose(open_body, there.rotmats, betas, there.transl + frames.middle)
    expected = ((made.astype(float) - target) ** 2).sum((1, 2))
    np.testing.assert_allclose(pose_solver.squares(sums, there), expected, rtol=1e-5)

    mesh = pose_solver._Mesh(sums, there)
    width, step = 75, 1e-5
    slopes = np.empty((2, width))
    for number in range(width):
        nudge = np.zeros((2, width))
        nudge[:, number] = step
        up = pose_solver.squares(sums, mesh.moved(nudge))
        down = pose_solver.squares(sums, mesh.moved(-nudge))
        slopes[:, number] = (up - down) / (2 * step)
    np.testing.assert_allclose(mesh.pull, -slopes / 2, rtol=1e-4, atol=1e-3)


def test_the_normal_equations_are_those_of_the_vertices(
    open_body: Body, rng: np.random.Generator
) -> None:
    """J^T J of the derivatives of the vertices themselves, by differences."""
    rotmats, betas, transl = made_up_pose(rng, 1, 0.3)
    frames = ik._Frames(BodyModel(open_body), pose(open_body, rotmats, betas, transl))
    sums = frames._sums(betas, rotmats)
    mesh = pose_solver._Mesh(sums, Pose(rotmats, transl - frames.middle))
    arms = sums.arms[0]

    def vertices(step: np.ndarray) -> np.ndarray:
        moved = pose_solver._Mesh(sums, mesh.moved(step[None]))
        transforms = moved._moves[0, :, :3].transpose(0, 2, 1)  # (K, 4, 3)
        return (arms @ transforms.reshape(-1, 3)).reshape(-1)

    some = [0, 2, 10, 40, 60, 74]
    steps = 1e-5 * np.eye(75)[some]
    J = np.stack([(vertices(step) - vertices(-step)) / 2e-5 for step in steps])
    np.testing.assert_allclose(mesh.normal[0][np.ix_(some, some)], J @ J.T, rtol=1e-5, atol=1e-3)


def test_each_bone_alone_turns_as_its_vertices(open_body: Body, rng: np.random.Generator) -> None:
    """Of a body that is cut apart at its joints, each bone's own fit is exact."""
    rigid = np.eye(24, dtype=np.float32)[open_body.lbs_weights.argmax(1)]
    assert (rigid.sum(0) > 3).all()
    body = replace(open_body, lbs_weights=rigid)
    rotmats, betas, transl = made_up_pose(rng, 3, 1.0)
    frames = ik._Frames(BodyModel(body), pose(body, rotmats, betas, transl))
    found = pose_solver.bones_apart(frames._sums(betas, rotmats))
    assert angles_deg(found.rotmats, rotmats).max() < 0.01
    # The same with a shape before skinning in every frame, as pose blend shapes make it
    blended = replace(body, posedirs=np.zeros((*body.v_template.shape, 9 * 23), np.float32))
    frames = ik._Frames(BodyModel(blended), pose(body, rotmats, betas, transl))
    found = pose_solver.bones_apart(frames._sums(betas, rotmats))
    assert angles_deg(found.rotmats, rotmats).max() < 0.01


def test_what_the_body_cannot_follow_is_reported(open_body: Body, rng: np.random.Generator) -> None:
    rotmats, betas, transl = made_up_pose(rng, 2, 0.2)
    vertices = pose(open_body, rotmats, betas, transl)
    vertices[1] += (0.03 * rng.standard_normal(vertices[1].shape)).astype(np.float32)
    fit = fit_body(open_body, vertices, rotmats)
    made = pose(open_body, fit.rotmats, fit.betas, fit.transl)
    apart = 1e3 * np.linalg.norm(made.astype(float) - vertices, axis=2)
    np.testing.assert_allclose(fit.residual_mean_mm, apart.mean(1), atol=1e-2)
    np.testing.assert_allclose(fit.residual_max_mm, apart.max(1), atol=1e-2)
    assert fit.residual_mean_mm[0] < 1
    assert fit.residual_mean_mm[1] == pytest.approx(30 * np.sqrt(8 / np.pi), rel=0.03)


def test_vertices_of_another_body_are_refused(open_body: Body) -> None:
    with pytest.raises(InputError, match=r"vertices are \(2, 6890, 3\); expected \(F, 13492, 3\)"):
        fit_body(open_body, np.zeros((2, 6890, 3), np.float32))
