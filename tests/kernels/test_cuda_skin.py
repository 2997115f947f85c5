"""Skinning, mesh-to-pose and calibration in one launch, on the host, against the steps."""

import re

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda
from kernel_cases import TOLERANCE, skinned

from pchmr_kernels import cuda
from pchmr_kernels.skeletons import get_skeleton

SKELETON = get_skeleton("h36m17")


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
