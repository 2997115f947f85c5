import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pchmr.geometry import (
    rot6d_to_rotmat,
    rotmat_to_rot6d,
    rotmat_to_rotvec,
    rotvec_to_rotmat,
)

VECTORS = arrays(np.float64, (2, 3), elements=st.floats(-3, 3, width=32))
# float64: a few roundings of numbers near 1; angles near pi cost the square root of that
EXACT, NEAR_PI = 1e-12, 1e-7


@given(VECTORS)
def test_rotvec_to_rotmat_is_the_matrix_exponential(rotvec):
    from scipy.linalg import expm

    for vector, rotmat in zip(rotvec, rotvec_to_rotmat(rotvec), strict=True):
        x, y, z = vector
        np.testing.assert_allclose(
            rotmat, expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])), atol=EXACT
        )


@given(VECTORS)
def test_rotvec_survives_the_matrix_up_to_full_turns(rotvec):
    back = rotmat_to_rotvec(rotvec_to_rotmat(rotvec))
    assert (np.linalg.norm(back, axis=-1) <= np.pi + EXACT).all()
    np.testing.assert_allclose(rotvec_to_rotmat(back), rotvec_to_rotmat(rotvec), atol=NEAR_PI)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi - 1e-6, np.pi])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -1, 0), (0.6, 0, 0.8), (-0.48, 0.6, 0.64)])
def test_small_and_half_turns_come_back(axis, angle):
    rotvec = angle * np.array(axis)
    back = rotmat_to_rotvec(rotvec_to_rotmat(rotvec))
    if angle == np.pi and back @ rotvec < 0:  # a half turn about either end of its axis
        back = -back
    np.testing.assert_allclose(back, rotvec, atol=1e-9)


@given(arrays(np.float64, 6, elements=st.floats(-2, 2, width=32)))
def test_rot6d_gives_a_rotation_or_zero_and_never_nan(rot6d):
    rotmat = rot6d_to_rotmat(rot6d)
    assert np.isfinite(rotmat).all()
    a1, a2 = rot6d[0::2], rot6d[1::2]
    if np.linalg.norm(np.cross(a1, a2)) > 1e-3:
        np.testing.assert_allclose(rotmat @ rotmat.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotmat) == pytest.approx(1)
        assert rotmat[:, 0] @ a1 == pytest.approx(np.linalg.norm(a1))


def test_the_two_layouts_of_rot6d_are_told_apart():
    quarter_about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    interleaved, columns = np.array([0.0, -1, 1, 0, 0, 0]), np.array([0.0, 1, 0, -1, 0, 0])
    np.testing.assert_array_equal(rot6d_to_rotmat(interleaved), quarter_about_z)
    np.testing.assert_array_equal(rot6d_to_rotmat(columns, layout="columns"), quarter_about_z)
    np.testing.assert_array_equal(rotmat_to_rot6d(quarter_about_z), interleaved)
    np.testing.assert_array_equal(rotmat_to_rot6d(quarter_about_z, "columns"), columns)
    assert not np.allclose(rot6d_to_rotmat(columns), quarter_about_z)


def test_shapes_and_float_types_are_kept():
    rng = np.random.default_rng(0)
    rot6d = rng.standard_normal((2, 24, 6)).astype(np.float32)
    rotmat = rot6d_to_rotmat(rot6d)
    rotvec = rotmat_to_rotvec(rotmat)
    assert rotmat.shape == (2, 24, 3, 3)
    assert rotvec.shape == (2, 24, 3)
    assert rotmat.dtype == rotvec.dtype == rotvec_to_rotmat(rotvec).dtype == np.float32
    np.testing.assert_allclose(rotvec_to_rotmat(rotvec), rotmat, atol=2e-6)


def test_wrong_shapes_and_layouts_say_what_came():
    with pytest.raises(ValueError, match=r"rot6d is \(24, 9\); expected \(\.\.\., 6\)"):
        rot6d_to_rotmat(np.zeros((24, 9)))
    with pytest.raises(ValueError, match="'rows'; expected 'interleaved' or 'columns'"):
        rot6d_to_rotmat(np.zeros(6), layout="rows")
