"""crop.cu on the host, against OpenCV: crops within 1 level, NV12 exactly."""

import ctypes

import cv2
import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda

from pchmr.crops import Roi, crop_to_image, region_rows
from pchmr_kernels import cuda_crops
from pchmr_kernels.crops import RegionCrops

ROIS = (
    Roi((200, 150), 180, 0.3),
    Roi((10, 20), 156.7, -1.2),  # over a corner
    Roi((200.5, 150.5), 64),
    Roi((350, 290), 700, 2.0),  # smaller than the frame is
    Roi((9000, 9000), 50),  # nowhere near it
)


@pytest.fixture
def frame(rng):
    """(302, 400, 3) BGR noise: the worst there is for an interpolation."""
    return rng.integers(0, 256, (302, 400, 3), np.uint8)


def affines(size, dtype=np.float64):
    return FakeCuda(np.stack([crop_to_image(roi, size) for roi in ROIS]).astype(dtype))


def pitched(array, apart=13):
    """The same array with bytes between its rows, as decoders give frames."""
    height, row = len(array), array[0].size
    room = np.full((height, row + apart), 99, np.uint8)
    room[:, :row] = array.reshape(height, row)
    return np.lib.stride_tricks.as_strided(room, array.shape, (room.strides[0], *array.strides[1:]))


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [64, 37])
def test_crops_are_opencvs(size, dtype, extend, frame, shim):
    expected = np.zeros((len(ROIS), size, size, 3), np.uint8)
    RegionCrops(expected, extend)(frame, region_rows(ROIS))
    given = affines(size, dtype)
    for picture in (frame, pitched(frame)):
        crops = cuda_crops.crop(FakeCuda(picture), given, size=size, extend=extend).array
        difference = np.abs(crops.astype(int) - expected)
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 1e-3
    assert crops[-1].any() == extend  # what lies outside is black, or the last pixels


def test_crops_need_not_be_square_and_only_they_are_written(frame, shim):
    matrix = np.array([[0.9, 0.4, 20], [-0.3, 1.1, 60]])
    room = np.full(48 * 31 * 3 + 7, 99, np.uint8)
    out = room[5:-2].reshape(1, 31, 48, 3)
    assert cuda_crops.crop(FakeCuda(frame), FakeCuda(matrix[None]), FakeCuda(out)).array is out
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(frame, matrix, (48, 31), flags=flags)[..., ::-1]
    assert np.abs(out[0].astype(int) - expected).max() <= 1
    assert (room[:5] == 99).all()
    assert (room[-2:] == 99).all()


@pytest.mark.parametrize("pairs", [True, False])
def test_nv12_is_converted_as_opencv_does(pairs, rng, shim):
    """Every luma beside many chromas; at whole pixels nothing is interpolated."""
    luma = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    chroma = rng.integers(0, 256, (128, 256), np.uint8)
    expected = cv2.cvtColorTwoPlane(luma, chroma.reshape(128, 128, 2), cv2.COLOR_YUV2RGB_NV12)
    shape = (128, 128, 2) if pairs else (128, 256)
    planes = (pitched(luma), pitched(chroma.reshape(shape), apart=6))
    same = FakeCuda(np.eye(2, 3)[None])
    crops = cuda_crops.crop(cuda_crops.Nv12(*map(FakeCuda, planes)), same, size=256)
    np.testing.assert_array_equal(crops.array[0], expected)


@pytest.mark.parametrize("extend", [False, True])
def test_crops_of_nv12_are_those_of_the_converted_frame(extend, rng, shim):
    planes = rng.integers(0, 256, (450, 400), np.uint8)
    bgr = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)
    expected = np.zeros((len(ROIS), 48, 48, 3), np.uint8)
    RegionCrops(expected, extend)(bgr, region_rows(ROIS))
    frame = cuda_crops.Nv12(FakeCuda(planes[:300]), FakeCuda(planes[300:]))
    crops = cuda_crops.crop(frame, affines(48), size=48, extend=extend).array
    assert np.abs(crops.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e30])
def test_a_region_that_is_nowhere_gives_a_black_crop(wrong, frame, shim):
    matrices = np.stack([np.eye(2, 3), np.full((2, 3), wrong), np.eye(2, 3)])
    crops = cuda_crops.crop(FakeCuda(frame), FakeCuda(matrices), size=16, extend=True).array
    assert not crops[1].any()
    np.testing.assert_array_equal(crops[2], frame[:16, :16, ::-1])


def test_regions_are_read_on_the_device_and_the_stream_is_the_callers(frame, shim):
    given = FakeCuda(np.eye(2, 3)[None])
    cuda_crops.crop(FakeCuda(frame), given, size=8, stream=5)
    assert shim.uploads == 0
    assert shim.streams == [5]
    none = cuda_crops.crop(FakeCuda(frame), FakeCuda(np.zeros((0, 2, 3))), size=8)
    assert none.array.shape == (0, 8, 8, 3)
    assert len(shim.launches) == 1


def test_the_struct_is_the_kernels(shim):
    shim.library.shim_crops_bytes.restype = ctypes.c_size_t
    assert shim.library.shim_crops_bytes() == ctypes.sizeof(cuda_crops.CropsStruct)


def test_wrong_frames_are_refused(frame, shim):
    given = affines(8)
    with pytest.raises(TypeError, match=r"frame is a numpy\.ndarray on the CPU; expected a CUDA"):
        cuda_crops.crop(frame, given, size=8)
    with pytest.raises(TypeError, match="frame is float32; expected uint8"):
        cuda_crops.crop(FakeCuda(frame.astype(np.float32)), given, size=8)
    with pytest.raises(ValueError, match="frame has 4 channels; expected 3, BGR"):
        cuda_crops.crop(FakeCuda(np.zeros((4, 4, 4), np.uint8)), given, size=8)
    with pytest.raises(ValueError, match="frame is strided"):
        cuda_crops.crop(FakeCuda(frame[..., ::-1]), given, size=8)
    with pytest.raises(ValueError, match="the frame is empty"):
        cuda_crops.crop(FakeCuda(frame[:0]), given, size=8)
    with pytest.raises(ValueError, match="either out or size must be given"):
        cuda_crops.crop(FakeCuda(frame), given)
    with pytest.raises(TypeError, match="out is float32; expected uint8"):
        cuda_crops.crop(FakeCuda(frame), given, FakeCuda(np.zeros((5, 8, 8, 3), np.float32)))
    odd = cuda_crops.Nv12(
        FakeCuda(np.zeros((5, 4), np.uint8)), FakeCuda(np.zeros((2, 4), np.uint8))
    )
    with pytest.raises(ValueError, match=r"luma is \(5, 4\); NV12 has an even height and width"):
        cuda_crops.crop(odd, given, size=8)
    short = cuda_crops.Nv12(
        FakeCuda(np.zeros((4, 4), np.uint8)), FakeCuda(np.zeros((1, 4), np.uint8))
    )
    with pytest.raises(ValueError, match=r"chroma is \(1, 4\); expected \(2, 4\)"):
        cuda_crops.crop(short, given, size=8)
