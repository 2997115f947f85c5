"""`cuda.py` and calibrate.cu on the host (cuda_shim/), against the float64 reference."""

import ctypes

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda, OnlyDlpack
from kernel_cases import TOLERANCE, case, chain, dense, sparse

from pchmr_kernels import cuda, cuda_runtime, cuda_weights, reference
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights

SMPL = get_skeleton("smpl24")
HALF = 2.0**-9  # metres: half a step of float16 between 4 and 8 m


def calibrate(
    c, skeleton=SMPL, confidence=None, alpha=None, dtype=np.float64, half=False, **options
):
    weights = options.pop("weights", c.weights)
    call = cuda.Calibrator(skeleton, weights, **options)
    joints = (c.source, c.target, confidence, alpha)
    arrays = [None if x is None else FakeCuda(x.astype(dtype)) for x in joints]
    return call(FakeCuda(c.vertices.astype(np.float16 if half else np.float32)), *arrays).array


def judged(c, skeleton=SMPL, confidence=None, alpha=None, **options):
    return reference.calibrate(
        *(c.vertices, c.source, c.target, skeleton.bones, c.A, c.W, skeleton.root),
        torso=skeleton.torso,
        axes=skeleton.body_axes,
        confidence=confidence,
        alpha=alpha,
        **options,
    )


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("slots", range(1, 9))
def test_calibration_agrees_with_the_reference(batch, slots, rng, shim):
    c = case(rng, batch=batch, slots=slots)
    moved = calibrate(c)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, judged(c), atol=TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("joints", "vertices", "slots"), [(2, 1, 1), (3, 257, 2), (65, 53, 8), (128, 31, 4)]
)
def test_from_one_bone_to_the_most(joints, vertices, slots, rng, shim):
    skeleton = chain(joints)
    c = case(rng, skeleton, batch=1, vertices=vertices, slots=slots)
    long = 1 + joints / 24  # bodies of 128 joints in a row span more metres
    np.testing.assert_allclose(
        calibrate(c, skeleton), judged(c, skeleton), atol=long * TOLERANCE["float32"]
    )


@pytest.mark.parametrize("name", ["smpl24", "h36m17", "posenet21_muco"])
@pytest.mark.parametrize("prealign", ["none", "torso"])
@pytest.mark.parametrize("scale", ["none", "fit"])
@pytest.mark.parametrize("distance", [0.0, 60.0])
def test_every_option(name, prealign, scale, distance, rng, shim):
    skeleton = get_skeleton(name)
    c = case(rng, skeleton, distance=distance)
    confidence = rng.uniform(0, 1, c.source.shape[:2])
    c.target[rng.random(c.target.shape[:2]) < 0.1] = np.nan
    alpha = rng.uniform(-3, 3, (2, len(skeleton.bones)))
    options = {"prealign": prealign, "scale": scale}
    np.testing.assert_allclose(
        calibrate(c, skeleton, confidence, alpha, **options),
        judged(c, skeleton, confidence, alpha, **options),
        atol=TOLERANCE["float32 at 60 m" if distance else "float32"],
    )


@pytest.mark.parametrize("off", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("flip", [1, -1])
def test_bones_parallel_antiparallel_and_without_length(off, flip, rng, shim):
    c = case(rng, batch=2)
    for parent, child in SMPL.bones:
        bone = c.source[0, parent] - c.source[0, child]
        axis = np.cross(bone, rng.normal(size=3))
        turn = reference.rotation(axis / np.linalg.norm(axis), off)
        c.target[0, child] = c.target[0, parent] - flip * 1.5 * turn @ bone
    c.source[1, SMPL.index("left_hand")] = c.source[1, SMPL.index("left_wrist")]
    c.target[1, SMPL.index("head")] = c.target[1, SMPL.index("neck")]
    np.testing.assert_allclose(calibrate(c), judged(c), atol=TOLERANCE["float32"])


def test_joints_may_be_float32_and_a_target_nobody_saw_changes_nothing(rng, shim):
    c = case(rng)
    c.source[:], c.target[:] = c.source.astype(np.float32), c.target.astype(np.float32)
    np.testing.assert_allclose(calibrate(c, dtype=np.float32), judged(c), atol=3e-6)
    c.target[:] = np.nan
    moved = calibrate(c, prealign="torso", scale="fit")
    np.testing.assert_allclose(moved, c.vertices, atol=TOLERANCE["float32"])


def test_dense_weights_agree_with_sparse_ones(rng, shim):
    c = case(rng, slots=8)
    weights = cuda.DenseWeights(*map(FakeCuda, c.weights.to_dense(23)))
    np.testing.assert_allclose(calibrate(c, weights=weights), judged(c), atol=TOLERANCE["float32"])


def test_half_vertices_are_rounded_once_at_the_end(rng, shim):
    c = case(rng)
    half = FakeCuda(c.vertices.astype(np.float16))
    c.vertices[:] = half.array
    moved = cuda.Calibrator(SMPL, c.weights)(half, FakeCuda(c.source), FakeCuda(c.target))
    assert moved.array.dtype == np.float16
    np.testing.assert_allclose(moved.array, judged(c), atol=HALF)
    assert np.abs(moved.array - judged(c)).max() > TOLERANCE["float32"]


def test_every_finite_half_passes_through(shim):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)][: 3 * 21162].reshape(1, -1, 3)
    V = finite.shape[1]
    one = SparseWeights(
        np.zeros((V, 1), np.int32), np.ones((V, 1), np.float32), np.zeros((V, 1), np.float32)
    )
    same = FakeCuda(np.eye(3, 4, dtype=np.float32)[None, None])
    np.testing.assert_array_equal(cuda.blend(FakeCuda(finite), same, one).array, finite)


@pytest.mark.parametrize("slots", [1, 3, 4, 7, 8])
@pytest.mark.parametrize(
    ("batch", "vertices", "bones"), [(0, 7, 3), (1, 1, 1), (5, 31, 23), (2, 257, 64)]
)
def test_blend_agrees_with_the_reference(batch, vertices, bones, slots, rng, shim):
    weights = sparse(rng, vertices, bones, slots)
    A, W = dense(weights, bones)
    points, transforms, delta, centre = (
        rng.uniform(-1, 1, (batch, *shape)).astype(np.float32)
        for shape in ((vertices, 3), (bones, 3, 4), (bones, 3), (3,))
    )
    arrays = [FakeCuda(array) for array in (points, transforms)]
    R, t = transforms[..., :3].astype(np.float64), transforms[..., 3].astype(np.float64)
    stretched = reference.blend(points, R, t, delta.astype(np.float64), A, W)
    skinned = reference.blend(points, R, t, np.zeros_like(t), A, W)
    moved = cuda.blend(*arrays, weights, FakeCuda(delta)).array
    np.testing.assert_allclose(moved, stretched, atol=TOLERANCE["float32"])
    moved = cuda.blend(*arrays, weights).array
    np.testing.assert_allclose(moved, skinned, atol=TOLERANCE["float32"])
    moved = cuda.blend(*arrays, cuda.DenseWeights(FakeCuda(weights.to_dense(bones)[0]))).array
    np.testing.assert_allclose(moved, skinned, atol=TOLERANCE["float32"])
    off = centre[:, None].astype(np.float64)
    about = reference.blend(points - off, R, t, np.zeros_like(t), A, W) + off
    moved = cuda.blend(*arrays, weights, centre=FakeCuda(centre)).array
    np.testing.assert_allclose(moved, about, atol=TOLERANCE["float32"])


def test_neither_the_grid_nor_the_block_nor_the_place_in_the_batch_shows(rng, shim):
    c = case(rng, batch=9, vertices=601)
    whole = calibrate(c)
    assert shim.launches[-1] == ("pchmr_calibrate", (3, 3))  # four rows a block, the last one alone
    np.testing.assert_allclose(whole, judged(c), atol=TOLERANCE["float32"])
    shim.multiprocessors, shim.threads = 100, cuda_runtime.BLOCK
    np.testing.assert_array_equal(calibrate(c), whole)
    assert shim.launches[-1] == ("pchmr_calibrate", (5, 9))
    call = cuda.Calibrator(SMPL, c.weights)
    alone = call(*(FakeCuda(x[2:3]) for x in (c.vertices, c.source, c.target)))
    np.testing.assert_array_equal(alone.array[0], whole[2])


def test_a_batch_of_thousands(rng, shim):
    c = case(rng, batch=4095, vertices=7)
    moved = calibrate(c)
    assert shim.launches == [("pchmr_calibrate", (1, 1024))]
    some = slice(None, None, 273)  # the reference is slow
    few = type(c)(c.vertices[some], c.source[some], c.target[some], c.weights, c.A, c.W)
    np.testing.assert_allclose(moved[some], judged(few), atol=TOLERANCE["float32"])
    last = type(c)(c.vertices[-2:], c.source[-2:], c.target[-2:], c.weights, c.A, c.W)
    np.testing.assert_allclose(moved[-2:], judged(last), atol=TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("start", "out_start"), [(0, 3), (1, 1), (5, 2)])
def test_meshes_may_start_anywhere_and_nothing_beside_them_is_written(
    start, out_start, dtype, rng, shim
):
    """Neither starts on 16 bytes; an odd number of vertices moves every row by another amount."""
    c = case(rng, batch=5, vertices=1025)
    expected = calibrate(c, half=dtype == np.float16)
    room = np.full((2, 5 * 1025 * 3 + 9), 7, dtype)
    mesh, out = (
        room[i, n : n + expected.size].reshape(expected.shape)
        for i, n in enumerate((start, out_start))
    )
    mesh[:] = c.vertices
    call = cuda.Calibrator(SMPL, c.weights)
    call(*map(FakeCuda, (mesh, c.source, c.target)), out=FakeCuda(out))
    assert shim.launches[-1] == ("pchmr_calibrate", (4, 2))
    np.testing.assert_array_equal(out, expected)
    out[:] = 7
    assert (room[1] == 7).all()
    call(*map(FakeCuda, (mesh, c.source, c.target)), out=FakeCuda(mesh))
    np.testing.assert_array_equal(mesh, expected)


def test_vertices_are_sorted_by_bone_so_that_fewer_reads_fall_on_one_bank(rng, shim):
    """Eight threads read 16 bytes each at a time; bones whose records share banks take turns."""
    weights = sparse(rng, 2 * cuda.TILE + 17, 23, 4)

    def turns(indices):
        eight = indices[: len(indices) // 8 * 8].reshape(-1, 8, indices.shape[1])
        bones = [np.unique(eight[i, :, s]) for i, s in np.ndindex(len(eight), eight.shape[2])]
        return np.mean([np.bincount(5 * x % 8).max() for x in bones])

    order = cuda_weights.tile_order(weights)
    uploaded = cuda_weights.upload_rows(shim, weights, order)
    indices, values, offsets, places = (array.array for array in uploaded.arrays)
    assert turns(indices) < 0.75 * turns(weights.indices)
    tiles = np.arange(len(order)) // cuda.TILE
    np.testing.assert_array_equal(order // cuda.TILE, tiles)
    np.testing.assert_array_equal(cuda.TILE * tiles + places, order)
    again = SparseWeights(*(x[np.argsort(order)] for x in (indices, values, offsets)))
    for got, expected in zip(again.to_dense(23), weights.to_dense(23), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_out_may_be_the_input_and_nothing_is_copied_or_uploaded_twice(rng, shim):
    c = case(rng)
    call = cuda.Calibrator(SMPL, c.weights)
    vertices, source, target = (FakeCuda(x) for x in (c.vertices, c.source, c.target))
    expected = call(vertices, source, target).array
    uploads = shim.uploads
    dlpack = OnlyDlpack(c.source)
    assert call(vertices, dlpack, target, out=vertices, stream=77) is vertices
    np.testing.assert_array_equal(c.vertices, expected)
    assert shim.uploads == uploads
    assert shim.streams == [None, 77]


def test_streams_of_each_library_are_understood():
    streams = {
        "cupy": type("Stream", (), {"ptr": 5}),
        "torch": type("Stream", (), {"cuda_stream": 6}),
        "cuda.core": type("Stream", (), {"__cuda_stream__": lambda self: (0, 7)}),
    }
    assert [cuda_runtime.stream_address(stream()) for stream in streams.values()] == [5, 6, 7]
    assert [cuda_runtime.stream_address(stream) for stream in (None, 0, 9)] == [None, 0, 9]
    with pytest.raises(TypeError, match=r"stream is a builtins\.str; expected a CUDA stream"):
        cuda_runtime.stream_address("default")


def test_structs_and_shared_memory_are_those_of_the_kernels(shim):
    shim.library.shim_job_bytes.restype = ctypes.c_size_t
    assert shim.library.shim_job_bytes() == ctypes.sizeof(cuda.JobStruct)
    for joints, bones, axes, skin, tables, rows in [
        (24, 23, 2, 0, 0, 4),
        (1, 0, 0, 0, 0, 1),
        (128, 128, 128, 128, 1, 1),
        (17, 16, 2, 24, 1, 4),
        (0, 23, 0, 0, 0, 2),
    ]:
        job = cuda.JobStruct(rows=rows, skin_bones=skin)
        job.bones.joints, job.bones.bones, job.bones.n_axes = joints, bones, axes
        job.tables.values = tables or None
        expected = shim.library.pchmr_cuda_shared_bytes(ctypes.byref(job))
        assert cuda.shared_bytes(job) == expected < cuda.SHARED_BYTES


def test_wrong_arrays_are_refused_by_name(rng, shim):
    c = case(rng)
    call = cuda.Calibrator(SMPL, c.weights)
    vertices, source, target = (FakeCuda(x) for x in (c.vertices, c.source, c.target))
    with pytest.raises(TypeError, match=r"source is a numpy\.ndarray on the CPU; expected a CUDA"):
        call(vertices, c.source, target)
    with pytest.raises(TypeError, match=r"vertices is a builtins\.list; expected a CUDA array"):
        call([[1.0]], source, target)
    with pytest.raises(TypeError, match="vertices is float64; expected float32 or float16"):
        call(FakeCuda(c.vertices.astype(np.float64)), source, target)
    with pytest.raises(TypeError, match="target is int64; expected float32 or float64"):
        call(vertices, source, FakeCuda(c.target.astype(np.int64)))
    with pytest.raises(TypeError, match="out is float16; expected float32"):
        call(vertices, source, target, out=FakeCuda(c.vertices.astype(np.float16)))
    with pytest.raises(ValueError, match=r"target is \(2, 17, 3\); expected \(2, 24, 3\)"):
        call(vertices, source, FakeCuda(c.target[:, :17].copy()))
    with pytest.raises(ValueError, match="source is strided; expected C-contiguous"):
        call(vertices, FakeCuda(c.source[..., ::-1]), target)
    with pytest.raises(ValueError, match="target is on device 1; the current one is 0"):
        call(vertices, source, FakeCuda(c.target, device=1))
    with pytest.raises(ValueError, match="out is read-only"):
        call(vertices, source, target, out=FakeCuda(c.vertices, read_only=True))
    with pytest.raises(ValueError, match="source and target must be given"):
        call(vertices, source, None)
    with pytest.raises(ValueError, match=r"vertices is \(53, 3\); expected 3 dimensions"):
        call(FakeCuda(c.vertices[0]), source, target)
    shim.device = lambda: 1
    with pytest.raises(ValueError, match="this Calibrator is of device 0; the current one is 1"):
        call(vertices, source, target)
    assert not shim.launches


def test_too_large_a_job_is_refused(rng, shim):
    c = case(rng)
    long = chain(130)
    with pytest.raises(ValueError, match="130 joints, 129 bones and 0 axes; at most 128 of each"):
        cuda.Calibrator(long, c.weights)
    many = FakeCuda(np.broadcast_to(np.zeros((1, 53, 3), np.float32), (65536, 53, 3)))
    joints = FakeCuda(np.zeros((65536, 24, 3), np.float32))
    with pytest.raises(ValueError, match="a batch of 65536 rows; at most 65535: split it"):
        cuda.Calibrator(SMPL, c.weights)(many, joints, joints)
    transforms = np.zeros((2, 129, 3, 4), np.float32)
    with pytest.raises(ValueError, match="129 bones; at most 128"):
        cuda.blend(FakeCuda(c.vertices), FakeCuda(transforms), c.weights)
    with pytest.raises(ValueError, match="transforms are of 2 bones; weights name 23"):
        cuda.blend(FakeCuda(c.vertices), FakeCuda(transforms[:, :2].copy()), c.weights)
    A, AW = map(FakeCuda, c.weights.to_dense(23))
    with pytest.raises(ValueError, match=r"weights\.values is \(53, 23\); there are 16 bones"):
        cuda.Calibrator(get_skeleton("h36m17"), cuda.DenseWeights(A, AW))
    with pytest.raises(ValueError, match=r"weights\.offsets, A \* W, is missing"):
        cuda.Calibrator(SMPL, cuda.DenseWeights(A))
