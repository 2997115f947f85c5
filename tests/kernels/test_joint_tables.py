"""Joints by contracted tables against joints regressed from the skinned mesh."""

import numpy as np
import pytest

from pchmr_kernels import reference
from pchmr_kernels.joint_tables import joint_tables

V, K, J, N = 71, 6, 5, 4


@pytest.fixture
def body(rng):
    """Regressor, skinning weights, basis, coefficients and bone transforms at random."""
    U = rng.dirichlet(np.full(V, 0.1), J) * (rng.random((J, V)) < 0.3)
    U[:, 0] += 1 - U.sum(1)
    w = rng.dirichlet(np.full(K, 0.2), V)
    w[w < 0.1] = 0
    w /= w.sum(1, keepdims=True)
    coefficients = rng.normal(size=(3, N))
    coefficients[:, 0] = 1
    return U, w, rng.normal(size=(N, V, 3)), coefficients, rng.normal(size=(3, K, 3, 4))


def in_two_steps(U, w, basis, coefficients, transforms):
    rest = np.einsum("bn,nvc->bvc", coefficients, basis)
    zero = np.zeros((len(transforms), K, 3))
    mesh = reference.blend(rest, transforms[..., :3], transforms[..., 3], zero, w, np.zeros_like(w))
    return U @ mesh


def test_the_reference_is_exact(body):
    U, w, basis, coefficients, transforms = body
    joints = reference.pose_joints(reference.joint_tables(U, w, basis), coefficients, transforms)
    np.testing.assert_allclose(joints, in_two_steps(*body), atol=1e-13)


def test_tables_leave_out_what_is_zero_and_nothing_else(body):
    U, w, basis, coefficients, transforms = body
    U[2], U[3, 1:] = 0, 0  # a joint of nothing, and one of a single vertex
    tables = joint_tables(U, w, basis)
    assert tables.first[3] == tables.first[2]
    assert tables.first[4] - tables.first[3] == np.count_nonzero(w[0])
    assert len(tables.bones) < J * K
    # Float32 tables of values of some units.
    joints = tables(coefficients, transforms)
    np.testing.assert_allclose(joints, in_two_steps(*body), atol=1e-5)


def test_shapes_that_do_not_fit_are_named(body):
    U, w, basis, *_ = body
    with pytest.raises(ValueError, match=r"basis \(4, 70, 3\); expected \(J, V\), \(V, K\) and"):
        joint_tables(U, w, basis[:, 1:])
