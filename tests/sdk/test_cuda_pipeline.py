"""`Pipeline.load(..., device="cuda")` without a GPU: the same people as on the CPU, in any order of
work that streams and events allow, and nothing allocated for a frame."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from cuda_recorder import Recorder
from cuda_shim.shim_runtime import FakeCuda, build, find_compiler
from cuda_stand_in import cuda_pipeline

from pchmr import Person, Pipeline
from pchmr.crops import Roi, crop_to_image
from pchmr.stages import blazepose as stages
from pchmr_engines.bundle import Bundle
from pchmr_kernels import cuda_crops

Load = Callable[..., Pipeline]


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_compiler() is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    return build(tmp_path_factory.getbasetemp())


def crops_of_the_kernel(
    image: np.ndarray, rois: Sequence[Roi], out: np.ndarray, extend: bool = False
) -> None:
    """In place of OpenCV's, from which they differ by a level here and there: the landmark network
    makes tenths of a pixel of that, and the next region makes more."""
    affines = np.stack([crop_to_image(roi, out.shape[1]) for roi in rois])
    crops = FakeCuda(out[: len(rois)])
    cuda_crops.crop(FakeCuda(image), FakeCuda(affines), crops, extend=extend)


def assert_alike(a: Person, b: Person) -> None:
    np.testing.assert_allclose(a.keypoints_2d, b.keypoints_2d, atol=1e-3)
    for name in ("vertices", "generator_vertices", "joints", "target_joints"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=2e-5, err_msg=name)
    for name in ("joint_confidence", "rotmats", "betas", "score"):
        one, other = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(a.bbox, b.bbox, atol=1e-3)
    assert (a.track_id, a.frame, a.valid) == (b.track_id, b.frame, b.valid)


@pytest.mark.parametrize("topology", ["serial", "parallel", "mesh-only"])
def test_the_same_people_as_on_the_cpu(
    topology: str,
    open_bundle: Bundle,
    load_open: Load,
    walk: list[np.ndarray],
    shim_library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    pipe = cuda_pipeline(open_bundle, topology, shim_library, monkeypatch, recorder)
    monkeypatch.setattr(stages, "warp_crops", crops_of_the_kernel)
    plain = load_open(topology)
    for number, image in enumerate(walk[:3]):
        replays, before = recorder.replays, recorder.allocations
        (person,), (other,) = pipe(image), plain(image)
        assert_alike(person, other)
        if number:  # followed: one graph, nothing but the frame went up, nothing was allocated
            assert recorder.replays == replays + 1
            assert recorder.allocations == before
            frame = recorder.log[recorder.log.index("upload frame") :]
            assert not [name for name in frame if name.startswith("upload") and "frame" not in name]
        recorder.log.clear()
    assert pipe.detector_runs == plain.detector_runs == 1
