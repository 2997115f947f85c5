"""The native forward pass of a body against plain NumPy; what it means is tested in tests/sdk."""

import numpy as np
import pytest
from kernel_cases import dense, sparse

from pchmr_kernels import native, reference
from pchmr_kernels.body import Joints, Regressor, pack_basis, skin
from pchmr_kernels.geometry import forward_kinematics

PARENTS = np.array([-1, 0, 1, 0, 3, 3])


def rotations(rng, *shape):
    q, _ = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))
    return q * np.sign(np.linalg.det(q))[..., None, None]


@pytest.mark.parametrize("pose_blends", [True, False])
@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_joints(batch, moved, pose_blends, rng):
    rotmats, betas = rotations(rng, batch, 6), rng.normal(size=(batch, 2))
    rest = rng.normal(size=(3, 6, 3))
    transl = rng.normal(size=(batch, 3)) if moved else None
    transforms, coefficients, joints = Joints(PARENTS, rest, pose_blends)(rotmats, betas, transl)
    shaped = rest[0] + np.einsum("bs,sjc->bjc", betas, rest[1:])
    expected, posed = forward_kinematics(rotmats, shaped, PARENTS)
    shift = transl[:, None] if moved else 0
    np.testing.assert_allclose(transforms[..., :3], expected[..., :3], atol=1e-6)
    np.testing.assert_allclose(transforms[..., 3], expected[..., 3] + shift, atol=2e-6)
    np.testing.assert_allclose(joints, posed + shift, atol=1e-14)
    feature = (rotmats[:, 1:] - np.eye(3)).reshape(batch, 45)
    terms = [np.ones((batch, 1)), betas, *([feature] if pose_blends else [])]
    np.testing.assert_allclose(coefficients, np.concatenate(terms, 1), atol=1e-7)


def test_joints_refuse(rng):
    with pytest.raises(ValueError, match="each before its children"):
        Joints(np.array([1, -1]), np.zeros((1, 2, 3)), False)
    joints = Joints(PARENTS, np.zeros((3, 6, 3)), False)
    with pytest.raises(ValueError, match=r"betas is \(1, 3\); expected \(1, 2\)"):
        joints(rotations(rng, 1, 6), np.zeros((1, 3)))


@pytest.mark.parametrize(("batch", "vertices", "terms"), [(0, 7, 3), (1, 1, 1), (3, 1201, 12)])
def test_skin_is_the_blend_of_the_shaped_mesh(batch, vertices, terms, rng, each_isa):
    weights = sparse(rng, vertices, 5, 4)
    basis = rng.uniform(-1, 1, (terms, vertices, 3)).astype(np.float32)
    coefficients = rng.normal(size=(batch, terms)).astype(np.float32)
    coefficients[:, 1::3] = 0
    transforms = rng.uniform(-1, 1, (batch, 5, 3, 4)).astype(np.float32)
    shaped = np.einsum("bn,nvc->bvc", coefficients.astype(np.float64), basis)
    A, W = dense(weights, 5)
    R, t = transforms[..., :3].astype(np.float64), transforms[..., 3].astype(np.float64)
    expected = reference.blend(shaped, R, t, np.zeros_like(t), A, W)
    packed, alone = pack_basis(basis), pack_basis(basis[:1])
    for out in each_isa(lambda: skin(coefficients, packed, transforms, weights)).values():
        np.testing.assert_allclose(out, expected, atol=2e-5)
    for out in each_isa(lambda: skin(coefficients[:, :1], alone, transforms, weights)).values():
        one = coefficients[:, :1, None] * basis[:1]
        np.testing.assert_allclose(out, native.blend(one, transforms, weights), atol=1e-6)


def test_skin_depends_neither_on_threads_nor_on_the_place_in_the_batch(rng, each_isa):
    weights = sparse(rng, 20_000, 5, 4)
    basis = pack_basis(rng.uniform(-1, 1, (4, 20_000, 3)))
    coefficients = rng.normal(size=(2, 4)).astype(np.float32)
    transforms = rng.uniform(-1, 1, (2, 5, 3, 4)).astype(np.float32)

    def check():
        whole = skin(coefficients, basis, transforms, weights)
        out = np.empty_like(whole)
        skin(coefficients, basis, transforms, weights, out, threads=3)
        np.testing.assert_array_equal(out, whole)
        alone = skin(coefficients[1:], basis, transforms[1:], weights)
        np.testing.assert_array_equal(alone[0], whole[1])

    each_isa(check)


def test_skin_refuses(rng):
    weights, basis = sparse(rng, 9, 3, 2), pack_basis(np.zeros((2, 9, 3)))
    transforms, one = np.zeros((1, 3, 3, 4), np.float32), np.zeros((1, 2), np.float32)
    with pytest.raises(TypeError, match="coefficients is float64"):
        skin(one.astype(np.float64), basis, transforms, weights)
    with pytest.raises(ValueError, match=r"basis is \(1, 2, 16\); expected \(2, 2, 16\)"):
        skin(one, basis[:1], transforms, weights)
    with pytest.raises(ValueError, match="transforms are of 1 bones"):
        skin(one, basis, transforms[:, :1], weights)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_regressor(batch, rng):
    matrix = rng.normal(size=(7, 40)).astype(np.float32) * (rng.random((7, 40)) < 0.2)
    matrix[3] = 0  # a joint of no vertex
    vertices = rng.normal(size=(batch, 40, 3)).astype(np.float32)
    joints = Regressor(matrix)(vertices)
    expected = np.einsum("jv,bvc->bjc", matrix.astype(np.float64), vertices)
    np.testing.assert_allclose(joints, expected, atol=1e-6)
    np.testing.assert_allclose(Regressor(matrix)(vertices[:, ::-1][:, ::-1]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="vertices is"):
        Regressor(matrix)(vertices[:, 1:])
