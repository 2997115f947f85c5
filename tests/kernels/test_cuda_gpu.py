"""The CUDA kernels on a GPU: never executed where there is none."""

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda
from kernel_cases import TOLERANCE, case, skinned
from person_cases import CROP, host_arrays

from pchmr_kernels import cuda, cuda_crops, cuda_gradients, cuda_host, cuda_person, reference
from pchmr_kernels.skeletons import get_skeleton

pytestmark = pytest.mark.gpu

SMPL, SKINNED = get_skeleton("smpl24"), get_skeleton("h36m17")


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="not tested: the CUDA kernels on a GPU (no cupy)")


def judged(c, skeleton=SMPL, confidence=None, alpha=None, **options):
    return reference.calibrate(
        *(c.vertices, c.source, c.target, skeleton.bones, c.A, c.W, skeleton.root),
        torso=skeleton.torso,
        axes=skeleton.body_axes,
        confidence=confidence,
        alpha=alpha,
        **options,
    )


@pytest.mark.parametrize("batch", [0, 1, 5, 300])
@pytest.mark.parametrize("slots", [1, 4, 8])
@pytest.mark.parametrize("vertices", [1, 53, 1001])
def test_calibration_agrees_with_the_reference(batch, slots, vertices, rng, cupy):
    c = case(rng, batch=batch, slots=slots, vertices=vertices)
    moved = cuda.Calibrator(SMPL, c.weights)(*map(cupy.asarray, (c.vertices, c.source, c.target)))
    assert moved.dtype == np.float32
    few = slice(None, None, 1 + batch // 5)  # the reference is slow
    np.testing.assert_allclose(moved.get()[few], judged(c)[few], atol=TOLERANCE["float32"])


@pytest.mark.parametrize("name", ["smpl24", "h36m17", "posenet21_muco"])
@pytest.mark.parametrize("prealign", ["none", "torso"])
@pytest.mark.parametrize("scale", ["none", "fit"])
@pytest.mark.parametrize("distance", [0.0, 60.0])
def test_every_option(name, prealign, scale, distance, rng, cupy):
    skeleton = get_skeleton(name)
    c = case(rng, skeleton, distance=distance)
    confidence = rng.uniform(0, 1, c.source.shape[:2])
    c.target[rng.random(c.target.shape[:2]) < 0.1] = np.nan
    alpha = rng.uniform(-3, 3, (2, len(skeleton.bones)))
    arrays = map(cupy.asarray, (c.vertices, c.source, c.target, confidence, alpha))
    moved = cuda.Calibrator(skeleton, c.weights, prealign, scale)(*arrays)
    expected = judged(c, skeleton, confidence, alpha, prealign=prealign, scale=scale)
    tolerance = TOLERANCE["float32 at 60 m" if distance else "float32"]
    np.testing.assert_allclose(moved.get(), expected, atol=tolerance)


def test_antiparallel_bones_and_bones_without_length(rng, cupy):
    c = case(rng)
    c.target[0] = -c.source[0]
    c.source[1, SMPL.index("left_hand")] = c.source[1, SMPL.index("left_wrist")]
    moved = cuda.Calibrator(SMPL, c.weights)(*map(cupy.asarray, (c.vertices, c.source, c.target)))
    np.testing.assert_allclose(moved.get(), judged(c), atol=TOLERANCE["float32"])


def test_half_and_dense(rng, cupy):
    c = case(rng, slots=8)
    joints = [cupy.asarray(x) for x in (c.source, c.target)]
    dense = cuda.DenseWeights(*map(cupy.asarray, c.weights.to_dense(23)))
    moved = cuda.Calibrator(SMPL, dense)(cupy.asarray(c.vertices), *joints)
    np.testing.assert_allclose(moved.get(), judged(c), atol=TOLERANCE["float32"])
    half = c.vertices.astype(np.float16)
    c.vertices[:] = half
    moved = cuda.Calibrator(SMPL, c.weights)(cupy.asarray(half), *joints)
    assert moved.dtype == np.float16
    np.testing.assert_allclose(moved.get(), judged(c), atol=2.0**-9)


def test_every_half_is_converted_as_numpy_does(cupy):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)][: 3 * 21162].reshape(1, -1, 3)
    values = np.ones((finite.shape[1], 1), np.float32)
    one = cuda.DenseWeights(cupy.asarray(values))
    scale = 1.0009765625  # the next float16 after 1: every result is rounded
    scaled = cupy.asarray(scale * np.eye(3, 4, dtype=np.float32)[None, None])
    moved = cuda.blend(cupy.asarray(finite), scaled, one)
    with np.errstate(over="ignore"):
        expected = (finite.astype(np.float32) * np.float32(scale)).astype(np.float16)
    np.testing.assert_array_equal(moved.get(), expected)


def test_the_place_in_the_batch_does_not_show(rng, cupy):
    c = case(rng, batch=40, vertices=6890)
    call = cuda.Calibrator(SMPL, c.weights)
    arrays = [cupy.asarray(x) for x in (c.vertices, c.source, c.target)]
    whole, alone = call(*arrays), call(*(x[17:18] for x in arrays))
    np.testing.assert_array_equal(alone.get()[0], whole.get()[17])


def test_torch_tensors_are_used_where_they_are_on_torchs_stream(rng):
    torch = pytest.importorskip("torch", reason="not tested: torch tensors on a GPU (no torch)")
    if not torch.cuda.is_available():
        pytest.skip("not tested: torch tensors on a GPU (torch sees none)")
    c = case(rng)
    call = cuda.Calibrator(SMPL, c.weights)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        arrays = [torch.from_numpy(x).cuda() for x in (c.vertices, c.source, c.target)]
        assert call(*arrays, out=arrays[0], stream=stream) is arrays[0]
        result = arrays[0].cpu()
    np.testing.assert_allclose(result.numpy(), judged(c), atol=TOLERANCE["float32"])
    with pytest.raises(TypeError, match=r"source is a torch\.Tensor on the CPU; expected a CUDA"):
        call(arrays[0], arrays[1].cpu(), arrays[2])


def test_a_launch_waits_for_what_its_own_stream_does_before_it(rng, cupy):
    c = case(rng)
    call = cuda.Calibrator(SMPL, c.weights)
    arrays = [cupy.asarray(x) for x in (c.vertices, c.source, c.target)]
    late = cupy.zeros_like(arrays[2])
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        busy = cupy.ones((4096, 4096), np.float32)
        for _ in range(100):
            busy = 0.5 * busy + 0.5  # milliseconds before the target is there
        late += arrays[2] + 0 * busy[0, 0]
    moved = call(*arrays[:2], late, stream=stream)
    stream.synchronize()
    np.testing.assert_allclose(moved.get(), judged(c), atol=TOLERANCE["float32"])


def test_a_captured_launch_reads_what_its_buffers_hold_at_each_replay(rng, cupy):
    first, second = case(rng), case(rng)
    call = cuda.Calibrator(SMPL, first.weights)
    arrays = [cupy.asarray(x) for x in (first.vertices, first.source, first.target)]
    out = cupy.empty_like(arrays[0])
    stream = cupy.cuda.Stream(non_blocking=True)
    call(*arrays, out=out, stream=stream)  # compiles and loads
    stream.synchronize()
    with stream:
        stream.begin_capture()
        call(*arrays, out=out, stream=stream)
        graph = stream.end_capture()
    out.fill(0)
    for c in (first, second):
        for buffer, array in zip(arrays, (c.vertices, c.source, c.target), strict=True):
            buffer.set(array)
        cupy.cuda.Device().synchronize()
        graph.launch(stream)
        stream.synchronize()
        expected = judged(type(c)(c.vertices, c.source, c.target, None, first.A, first.W))
        np.testing.assert_allclose(out.get(), expected, atol=TOLERANCE["float32"])


@pytest.mark.parametrize("batch", [1, 2, 77, 4096])
def test_skinning_and_calibration_in_one_launch(batch, rng, cupy):
    s = skinned(rng, min(batch, 8), 1001, 4, 6)
    call = cuda.SkinCalibrator(SKINNED, s.weights, s.lbs_weights, s.tables)
    many = [np.resize(x, (batch, *x.shape[1:])) for x in (s.rest, s.transforms, s.target)]
    coefficients = cupy.asarray(np.resize(s.coefficients, (batch, s.coefficients.shape[1])))
    moved = call(*map(cupy.asarray, many), coefficients).get()
    expected = np.resize(s.expected, moved.shape)
    np.testing.assert_allclose(moved, expected, atol=TOLERANCE["float32"])
    joints = cuda.PoseJoints(s.tables)(coefficients, cupy.asarray(many[1])).get()
    np.testing.assert_allclose(joints, np.resize(s.source, joints.shape), atol=1e-6)


@pytest.mark.parametrize(("start", "out_start"), [(0, 3), (1, 1)])
def test_meshes_may_start_anywhere(start, out_start, rng, cupy):
    c = case(rng, batch=130, vertices=1025)
    room = cupy.zeros((2, c.vertices.size + 4), np.float32)
    mesh, out = (
        room[i, n : n + c.vertices.size].reshape(c.vertices.shape)
        for i, n in enumerate((start, out_start))
    )
    mesh[...] = cupy.asarray(c.vertices)
    call = cuda.Calibrator(SMPL, c.weights)
    call(mesh, cupy.asarray(c.source), cupy.asarray(c.target), out=out)
    np.testing.assert_allclose(out.get()[::40], judged(c)[::40], atol=TOLERANCE["float32"])
    out[...] = 0
    assert not room[1].any()


@pytest.mark.parametrize("kernel", sorted(cuda_person.KERNELS))
def test_sanitized_steps_of_a_person_are_those_of_the_host(kernel, rng, cupy, shim, monkeypatch):
    """The same text, compiled for the CPU, on the same arrays."""
    sizes = {"batch": 3, "joints": 24, "target_joints": 24, "shapes": 10, "terms": 218}
    arrays = host_arrays(rng, kernel, **sizes, vertices=300, **{"1 + shapes": 11})
    host = {name: FakeCuda(array.copy()) for name, array in arrays.items()}
    cuda_person.queue(kernel, host, crop_size=CROP)
    monkeypatch.undo()  # CuPy again
    device = {name: cupy.asarray(array) for name, array in arrays.items()}
    cuda_person.queue(kernel, device, crop_size=CROP)
    for name in cuda_person.KERNELS[kernel].writes:
        found, expected = device[name].get(), host[name].array
        scale = max(1.0, np.nanmax(np.abs(expected)))
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("nv12", [False, True])
def test_crops_are_opencvs(nv12, rng, cupy):
    cv2 = pytest.importorskip("cv2", reason="not tested: crops on a GPU (no OpenCV)")
    planes = rng.integers(0, 256, (450, 400), np.uint8)
    bgr = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)
    matrices = np.array([[[0.9, 0.4, 20], [-0.3, 1.1, 60]], [[3, 0, -50], [0, 3, -70]]])
    frame = cupy.asarray(bgr)
    if nv12:
        frame = cuda_crops.Nv12(cupy.asarray(planes[:300]), cupy.asarray(planes[300:]))
    crops = cuda_crops.crop(frame, cupy.asarray(matrices), size=256).get()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for crop, matrix in zip(crops, matrices, strict=True):
        expected = cv2.warpAffine(bgr, matrix, (256, 256), flags=flags)[..., ::-1]
        assert np.abs(crop.astype(int) - expected).max() <= 1


def test_a_page_locked_frame_is_read_where_it_lies(rng, cupy):
    frame = cuda_host.mapped_array((64, 48, 3))
    frame.host[:] = rng.integers(0, 256, frame.shape, np.uint8)
    crops = cuda_crops.crop(frame, cupy.asarray(np.eye(2, 3)[None]), size=32).get()
    np.testing.assert_array_equal(crops[0], frame.host[:32, :32, ::-1])


def test_sanitized_every_kernel_once(rng, cupy):
    """What `make gpu-check PART=sanitizer` runs: small, but every kernel and more than a tile."""
    c, s = case(rng, batch=5, vertices=300), skinned(rng, 5, 300, 4, 6)
    arrays = [cupy.asarray(x) for x in (c.vertices, c.source, c.target)]
    moved = cuda.Calibrator(SMPL, c.weights, "torso", "fit")(*arrays)
    expected = judged(c, prealign="torso", scale="fit")
    np.testing.assert_allclose(moved.get(), expected, atol=TOLERANCE["float32"])
    call = cuda.SkinCalibrator(SKINNED, s.weights, s.lbs_weights, s.tables)
    given = [cupy.asarray(x) for x in (s.rest, s.transforms, s.target, s.coefficients)]
    np.testing.assert_allclose(call(*given).get(), s.expected, atol=TOLERANCE["float32"])
    cuda.PoseJoints(s.tables)(given[3], given[1])
    frame, same = cupy.zeros((9, 8, 3), np.uint8), cupy.asarray(np.eye(2, 3)[None])
    cuda_crops.crop(frame, same, size=7)
    transforms = cupy.ones((5, 23, 3, 4), np.float32)
    dense = cuda.DenseWeights(*map(cupy.asarray, c.weights.to_dense(23)))
    delta = cupy.ones((5, 23, 3), np.float32)
    cuda.blend(arrays[0], transforms, dense, delta)
    inputs = {"vertices": arrays[0], "transforms": transforms, "delta": delta}
    inputs |= {"values": dense.values, "offsets": dense.offsets}
    out = {name: cupy.empty_like(array) for name, array in inputs.items()}
    cuda_gradients.blend_gradients(arrays[0], arrays[0], transforms, dense, delta, out)
    cupy.cuda.Device().synchronize()
    np.testing.assert_allclose(
        out["vertices"].get(),
        np.broadcast_to(c.vertices.sum(-1, keepdims=True), c.vertices.shape),
        rtol=1e-5,
        atol=1e-5,
    )


def test_arrays_on_the_cpu_are_refused(rng, cupy):
    c = case(rng)
    call = cuda.Calibrator(SMPL, c.weights)
    with pytest.raises(TypeError, match=r"vertices is a numpy\.ndarray on the CPU"):
        call(c.vertices, cupy.asarray(c.source), cupy.asarray(c.target))
