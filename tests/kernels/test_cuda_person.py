"""person.cu on the host, each kernel against plain NumPy or the SDK's own functions."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda
from person_cases import CROP, person_arrays

from pchmr.blazepose import LandmarkDecoder
from pchmr.camera import Camera
from pchmr.crops import Roi, crop_to_image
from pchmr.geometry import rot6d_to_rotmat
from pchmr.placement import points_to_crop, ray_rotation, solve_translation
from pchmr_kernels import cuda_person
from pchmr_kernels.cuda_person import ARRAYS, KERNELS, PersonStruct
from pchmr_kernels.geometry import forward_kinematics
from pchmr_kernels.person import ImageTarget

CAMERA = Camera(900.0, 950.0, 320.0, 250.0)
LENS = FakeCuda(np.array(CAMERA.lens))


def run(arrays, kernel, crop_size=CROP):
    """The arrays after the kernel, on the CPU."""
    if "lens" in KERNELS[kernel].reads:
        arrays["lens"] = LENS
    cuda_person.queue(kernel, arrays, crop_size=crop_size)
    return SimpleNamespace(**{name: array.array for name, array in arrays.items()})


def turns(rng, *shape):
    q, _ = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))
    return q * np.sign(np.linalg.det(q))[..., None, None]


def regions(rng, batch=2):
    return np.concatenate([rng.uniform(100, 500, (batch, 3)), rng.uniform(-3, 3, (batch, 1))], 1)


def rois_of(array):
    return [Roi((x, y), size, angle) for x, y, size, angle in array.tolist()]


def test_crops_look_where_the_hosts_do(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_crops", batch=300)
    arrays["next_roi"] = FakeCuda(regions(rng, 300))
    a = run(arrays, "pchmr_person_crops")
    np.testing.assert_array_equal(a.roi, a.next_roi)
    expected = [crop_to_image(roi, CROP) for roi in rois_of(a.roi)]
    np.testing.assert_allclose(a.affine, expected, atol=1e-9)
    expected = ray_rotation(a.roi[:, :2], a.roi[:, 3], CAMERA)
    np.testing.assert_allclose(a.rotation, expected, atol=1e-12)


@pytest.mark.parametrize("heatmaps", [True, False])
@pytest.mark.parametrize("follow", [True, False])
def test_landmarks_and_the_next_region(heatmaps, follow, rng, shim):
    arrays = person_arrays(rng, "pchmr_person_landmarks", map_size=64)
    arrays["roi"] = FakeCuda(regions(rng))
    arrays["landmarks"].array[...] = rng.normal(128, 90, arrays["landmarks"].shape)
    arrays["landmarks"].array[..., 3:] = rng.normal(0, 3, (2, 39, 2))
    arrays["world"].array[...] = rng.normal(size=arrays["world"].shape)
    arrays["heatmaps"].array[...] = rng.normal(0, 2, arrays["heatmaps"].shape)
    if not heatmaps:
        del arrays["heatmaps"]
    if not follow:
        for name in ("world_upright", "presence", "depth", "auxiliary", "next_roi"):
            del arrays[name]
    a = run(arrays, "pchmr_person_landmarks", 256)
    maps = a.heatmaps if heatmaps else None
    ones = np.ones((2, 1), np.float32)
    found = LandmarkDecoder(a.landmarks, ones, a.world, maps)(rois_of(a.roi))
    for row, person in enumerate(found):
        np.testing.assert_allclose(a.keypoints[row], person.keypoints_2d, rtol=2e-6, atol=1e-6)
        upright = ray_rotation(a.roi[row : row + 1, :2], np.zeros(1), CAMERA)[0]
        np.testing.assert_allclose(a.world_view[row], person.world @ upright.T, atol=1e-6)
        if not follow:
            continue
        np.testing.assert_allclose(a.world_upright[row], person.world, atol=1e-6)
        np.testing.assert_allclose(a.presence[row], person.presence, atol=1e-6)
        np.testing.assert_allclose(a.depth[row], person.depth_px, rtol=1e-6)
        np.testing.assert_allclose(a.auxiliary[row], person.auxiliary, rtol=1e-6, atol=1e-4)
        roi = person.next_roi
        expected = (*roi.center, roi.size, roi.angle)
        np.testing.assert_allclose(a.next_roi[row], expected, rtol=1e-5, atol=1e-4)


def test_keypoints_as_the_crop_sees_them(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_points")
    arrays["rotation"] = FakeCuda(turns(rng, 2))
    a = run(arrays, "pchmr_person_points")
    taken = a.keypoints[:, a.columns]
    expected = points_to_crop(taken[..., :2], a.rotation, a.roi[:, 2], CAMERA)
    np.testing.assert_allclose(a.points[..., :2], expected, rtol=1e-6)
    np.testing.assert_array_equal(a.points[..., 2], taken[..., 2].astype(np.float32))


def test_the_meshs_own_image(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_projection")
    arrays["rotation"] = FakeCuda(turns(rng, 2))
    arrays["translation"].array[0, 2] = -1e4  # behind the camera
    a = run(arrays, "pchmr_person_projection")
    placed = (a.mesh_landmarks + a.translation[:, None])[:, a.columns]
    seen = CAMERA.project(placed)
    expected = points_to_crop(seen, a.rotation, a.roi[:, 2], CAMERA)
    np.testing.assert_allclose(a.points[..., :2], expected, rtol=1e-6)
    assert (a.points[..., 2] == 1).all()


@pytest.mark.parametrize("terms", [3, 3 + 9 * 23])
def test_pose_and_shape(terms, rng, shim):
    arrays = person_arrays(rng, "pchmr_person_pose", joints=24, terms=terms)
    parents = np.array([-1, *(rng.integers(0, j) for j in range(1, 24))])
    arrays["parents"].array[:] = parents
    arrays["rot6d"].array[:] = rng.normal(size=(2, 24, 6))
    arrays["rot6d"].array[0, 5] = 0  # no direction at all
    arrays["betas"].array[:] = rng.normal(size=(2, 2))
    arrays["rest"].array[:] = rng.normal(size=(3, 24, 3))
    arrays["rotation"] = FakeCuda(turns(rng, 2))
    a = run(arrays, "pchmr_person_pose")
    expected = rot6d_to_rotmat(a.rot6d.astype(np.float64))
    expected[:, 0] = a.rotation @ expected[:, 0]
    np.testing.assert_allclose(a.rotmats, expected, atol=1e-12)
    rest = a.rest[0] + np.einsum("bs,sjc->bjc", a.betas.astype(np.float64), a.rest[1:])
    transforms, _ = forward_kinematics(expected, rest, parents)
    np.testing.assert_allclose(a.transforms, transforms, rtol=1e-6, atol=2e-6)
    feature = (expected[:, 1:] - np.eye(3)).reshape(2, -1)
    coefficients = np.concatenate([np.ones((2, 1)), a.betas, feature], 1)[:, :terms]
    np.testing.assert_allclose(a.coefficients, coefficients, atol=1e-6)
    arrays = person_arrays(rng, "pchmr_person_shape", terms=terms, vertices=211)
    arrays["coefficients"] = FakeCuda(a.coefficients)
    a = run(arrays, "pchmr_person_shape")
    expected = np.einsum("bn,nvc->bvc", a.coefficients.astype(np.float64), a.basis)
    np.testing.assert_allclose(a.shaped, expected, atol=1e-3, rtol=1e-5)  # of hundreds of terms


def test_where_a_body_stands(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_place")
    arrays["mesh_landmarks"].array[:] = rng.normal(0, 0.5, (2, 33, 3))
    placed = arrays["mesh_landmarks"].array + np.array([[0.3, -0.2, 4.0]])
    arrays["keypoints"].array[..., :2] = CAMERA.project(placed)
    arrays["keypoints"].array[1, :, :2] = 100  # all on one pixel: its depth cannot be told
    a = run(arrays, "pchmr_person_place")
    translation, ok = solve_translation(a.mesh_landmarks, a.keypoints, CAMERA)
    np.testing.assert_allclose(a.translation, translation, atol=1e-9)
    assert a.placed.tolist() == ok.tolist() == [1, 0]


def test_a_lifted_pose_is_trusted_throughout(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_lifted")
    a = run(arrays, "pchmr_person_lifted")
    expected = a.lifted_joints @ a.rotation.transpose(0, 2, 1)
    np.testing.assert_allclose(a.target, expected, rtol=1e-12)
    assert (a.confidence == 1).all()


def test_a_target_of_image_and_lifter(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_target")
    arrays["rotation"] = FakeCuda(turns(rng, 2))
    for name in ("lifted_joints", "lifted_landmarks", "world_view", "source"):
        arrays[name].array[:] = rng.normal(0, 0.5, arrays[name].shape)
    arrays["translation"].array[:, 2] = [4, -9]  # the second is behind the camera
    for name in ("carry", "trust"):
        arrays[name].array[:] = rng.dirichlet(np.full(33, 0.1), 5)
    a = run(arrays, "pchmr_person_target")
    turn = a.rotation.transpose(0, 2, 1)
    target, confidence = ImageTarget(a.carry, a.trust)(
        *(a.lifted_joints @ turn, a.lifted_landmarks @ turn, a.keypoints, a.world_view),
        root=a.translation + a.source[:, 0],
        lens=CAMERA.lens,
    )
    np.testing.assert_allclose(a.target, target, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.confidence, confidence, rtol=1e-6)


def test_the_struct_is_the_kernels(shim):
    shim.library.shim_person_bytes.restype = ctypes.c_size_t
    assert shim.library.shim_person_bytes() == ctypes.sizeof(PersonStruct)
    assert {name for k in KERNELS.values() for name in (*k.reads, *k.writes)} == ARRAYS.keys()


def test_wrong_calls_are_refused(rng, shim):
    arrays = person_arrays(rng, "pchmr_person_place")
    only = {name: arrays[name] for name in ("mesh_landmarks", "translation", "placed")}
    with pytest.raises(ValueError, match="pchmr_person_place lacks keypoints, lens"):
        cuda_person.queue("pchmr_person_place", only)
    with pytest.raises(ValueError, match="pchmr_person_place takes no roi"):
        cuda_person.queue("pchmr_person_place", {**arrays, "roi": LENS})
    arrays["placed"] = FakeCuda(np.zeros(3))
    with pytest.raises(ValueError, match=r"out placed is \(3,\); expected \(2,\)"):
        cuda_person.queue("pchmr_person_place", arrays)
    arrays["placed"] = np.zeros(2)
    with pytest.raises(TypeError, match=r"out placed is a numpy\.ndarray"):
        cuda_person.queue("pchmr_person_place", arrays)
    assert not shim.launches
