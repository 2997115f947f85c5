"""Skinning, mesh-to-pose and calibration in one launch, on the host, against the steps."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda
from kernel_cases import TOLERANCE, dense, sparse

from pchmr_kernels import cuda, reference
from pchmr_kernels.joint_tables import JointTables, joint_tables
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights

SKELETON = get_skeleton("h36m17")
BODY_BONES = 24


@dataclass(frozen=True)
class Skinned:
    rest: np.ndarray  # (B, V, 3) float32
    transforms: np.ndarray  # (B, 24, 3, 4) float32
    coefficients: np.ndarray  # (B, N) float32
    target: np.ndarray  # (B, 17, 3)
    weights: SparseWeights
    lbs_weights: SparseWeights
    tables: JointTables
    source: np.ndarray  # by the steps one by one
    expected: np.ndarray


def skinned(rng, batch=2, vertices=53, slots=4, lbs_slots=4, terms=3, **options) -> Skinned:
    weights = sparse(rng, vertices, len(SKELETON.bones), slots)
    lbs_weights = sparse(rng, vertices, BODY_BONES, lbs_slots)
    basis = np.concatenate(
        [rng.normal(size=(1, vertices, 3)) * 0.4, 0.05 * rng.normal(size=(terms - 1, vertices, 3))]
    )
    coefficients = np.pad(rng.normal(size=(batch, terms - 1)), ((0, 0), (1, 0)), constant_values=1)
    coefficients = coefficients.astype(np.float32)
    rest = np.einsum("bn,nvc->bvc", coefficients, basis).astype(np.float32)
    R = np.linalg.qr(rng.normal(size=(batch, BODY_BONES, 3, 3)))[0]
    t = 0.3 * rng.normal(size=(batch, BODY_BONES, 3, 1))
    transforms = np.concatenate([R, t], -1).astype(np.float32)
    U = rng.dirichlet(np.full(vertices, 0.1), len(SKELETON))
    lbs, _ = dense(lbs_weights, BODY_BONES)

    still = np.zeros((batch, BODY_BONES, 3))
    moves = transforms.astype(np.float64)
    mesh = reference.blend(rest, moves[..., :3], moves[..., 3], still, lbs, 0 * lbs)
    source = U @ mesh
    target = source + 0.1 * rng.normal(size=source.shape)
    A, W = dense(weights, len(SKELETON.bones))
    expected = reference.calibrate(
        *(mesh, source, target, SKELETON.bones, A, W, SKELETON.root),
        torso=SKELETON.torso,
        axes=SKELETON.body_axes,
        **options,
    )
    tables = joint_tables(U, lbs, basis)
    return Skinned(
        *(rest, transforms, coefficients, target, weights, lbs_weights, tables, source, expected)
    )


@pytest.mark.parametrize(("slots", "lbs_slots"), [(4, 4), (3, 6), (8, 2)])
@pytest.mark.parametrize(("batch", "vertices"), [(0, 7), (1, 1), (5, 1000)])
def test_one_launch_agrees_with_the_steps(batch, vertices, slots, lbs_slots, rng, shim):
    s = skinned(rng, batch, vertices, slots, lbs_slots)
    call = cuda.SkinCalibrator(SKELETON, s.weights, s.lbs_weights, s.tables)
    given = [FakeCuda(x) for x in (s.rest, s.transforms, s.target)]
    moved = call(*given, FakeCuda(s.coefficients)).array
    np.testing.assert_allclose(moved, s.expected, atol=TOLERANCE["float32"])
    with_source = call(*given, source=FakeCuda(s.source)).array
    np.testing.assert_allclose(with_source, s.expected, atol=TOLERANCE["float32"])
    kernels = [kernel for kernel, _ in shim.launches]
    assert kernels == ["pchmr_skin_calibrate"] * (2 if batch else 0)


@pytest.mark.parametrize("options", [{"prealign": "torso"}, {"scale": "fit"}], ids=str)
def test_options_of_the_calibration(options, rng, shim):
    s = skinned(rng, **options)
    call = cuda.SkinCalibrator(SKELETON, s.weights, s.lbs_weights, s.tables, **options)
    moved = call(*map(FakeCuda, (s.rest, s.transforms, s.target, s.coefficients))).array
    np.testing.assert_allclose(moved, s.expected, atol=TOLERANCE["float32"])


def test_half_meshes(rng, shim):
    s = skinned(rng)
    call = cuda.SkinCalibrator(SKELETON, s.weights, s.lbs_weights, s.tables)
    rest = FakeCuda(s.rest.astype(np.float16))
    moved = call(rest, *map(FakeCuda, (s.transforms, s.target, s.coefficients))).array
    assert moved.dtype == np.float16
    np.testing.assert_allclose(moved, s.expected, atol=4e-3)  # rounded before and after, at 2 m


@pytest.mark.parametrize("terms", [1, 11])
def test_joints_alone_for_the_serial_topology(terms, rng, shim):
    s = skinned(rng, batch=3, terms=terms)
    call = cuda.PoseJoints(s.tables)
    joints = call(FakeCuda(s.coefficients), FakeCuda(s.transforms), stream=7).array
    np.testing.assert_allclose(joints, s.source, atol=1e-6)
    on_the_cpu = s.tables(s.coefficients, s.transforms)
    np.testing.assert_allclose(on_the_cpu, s.source, atol=1e-6)
    assert shim.streams[-1] == 7
    assert shim.launches == [("pchmr_pose_joints", (1, 3))]


def test_wrong_calls_are_refused(rng, shim):
    s = skinned(rng)
    rest, transforms, target, coefficients, source = map(
        FakeCuda, (s.rest, s.transforms, s.target, s.coefficients, s.source)
    )
    call = cuda.SkinCalibrator(SKELETON, s.weights, s.lbs_weights)
    with pytest.raises(ValueError, match="one of source and coefficients must be given"):
        call(rest, transforms, target)
    with pytest.raises(ValueError, match="one of source and coefficients must be given"):
        call(rest, transforms, target, coefficients, source)
    with pytest.raises(ValueError, match="coefficients need tables: give them when"):
        call(rest, transforms, target, coefficients)
    with pytest.raises(ValueError, match="target must be given"):
        call(rest, transforms, None, source=source)
    with pytest.raises(ValueError, match="transforms are of 3 bones; the body names 24"):
        call(rest, FakeCuda(s.transforms[:, :3].copy()), target, source=source)
    with pytest.raises(TypeError, match=r"transforms is a numpy\.ndarray on the CPU"):
        call(rest, s.transforms, target, source=source)
    other = skinned(rng, vertices=20)
    with pytest.raises(ValueError, match="lbs_weights are of 20 vertices; weights of 53"):
        cuda.SkinCalibrator(SKELETON, s.weights, other.lbs_weights)
    smpl = get_skeleton("smpl24")
    with pytest.raises(ValueError, match="tables are of 17 joints; the skeleton has 24"):
        cuda.SkinCalibrator(smpl, s.weights, s.lbs_weights, s.tables)
    wrong = re.escape("coefficients is (2, 2); expected (2, 3)")
    with pytest.raises(ValueError, match=wrong):
        cuda.PoseJoints(s.tables)(FakeCuda(s.coefficients[:, :2].copy()), transforms)
