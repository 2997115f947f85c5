"""`Pipeline.load(..., device="cuda")` without a GPU: the same people as on the CPU, in any order of
work that streams and events allow, and nothing allocated for a frame."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_recorder import Recorder
from cuda_shim.shim_runtime import FakeCuda, build, find_compiler
from cuda_stand_in import cuda_pipeline

from pchmr import Camera, Person, Pipeline
from pchmr.bodies import BodyModel
from pchmr.crops import Roi, crop_to_image
from pchmr.cuda import cupy_device, executor, parts
from pchmr.cuda.frames import Frames
from pchmr.stages import blazepose as stages
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import EngineError, InputError, MissingDependency, PchmrError
from pchmr_kernels import cuda_crops

Load = Callable[..., Pipeline]
Image = np.ndarray
Make = Callable[..., Pipeline]
ROI = Roi((655.0, 400.0), 820.0, 0.05)  # a woman who walks


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_compiler() is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    return build(tmp_path_factory.getbasetemp())


@pytest.fixture
def make(
    open_bundle: Bundle, shim_library: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Pipeline]:
    """`make(recorder, topology, **options)`: a pipeline on the stand-in; the CPU's crops alike."""

    def made(
        recorder: Recorder, topology: str = "parallel", bundle: Bundle = open_bundle, **options: Any
    ) -> Pipeline:
        monkeypatch.setattr(stages, "RegionCrops", CropsOfTheKernel)
        return cuda_pipeline(bundle, topology, shim_library, monkeypatch, recorder, **options)

    return made


class CropsOfTheKernel:
    """In place of the CPU's, from which they differ by a level here and there: the landmark network
    makes tenths of a pixel of that, and the next region makes more."""

    def __init__(self, out: np.ndarray, extend: bool = False) -> None:
        self._out, self._extend = out, extend

    def __call__(self, image: np.ndarray, regions: np.ndarray) -> None:
        size = self._out.shape[1]
        rois = [Roi((x, y), side, angle) for x, y, side, angle in regions.tolist()]
        affines = np.stack([crop_to_image(roi, size) for roi in rois])
        crops = FakeCuda(self._out[: len(rois)])
        cuda_crops.crop(FakeCuda(image), FakeCuda(affines), crops, extend=self._extend)


def assert_alike(a: Person, b: Person) -> None:
    np.testing.assert_allclose(a.keypoints_2d, b.keypoints_2d, atol=1e-3)
    for name in ("vertices", "generator_vertices", "joints", "target_joints", "transl"):
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
    topology: str, make: Make, load_open: Load, walk: list[Image]
) -> None:
    recorder = Recorder()
    pipe, plain = make(recorder, topology), load_open(topology)
    for number, image in enumerate(walk[:3]):
        replays, before = recorder.replays, recorder.allocations
        (person,), (other,) = pipe(image), plain(image)
        assert_alike(person, other)
        pose = person.rotmats[None], person.betas[None], person.transl[None]
        (vertices,) = BodyModel(pipe.body).pose(*pose)
        np.testing.assert_allclose(vertices, person.generator_vertices, atol=1e-5)
        if number:  # followed: one graph, nothing but the frame went up, nothing was allocated
            assert recorder.replays == replays + 1
            assert recorder.allocations == before
            up = [name for name in recorder.log if name.startswith("upload")]
            assert up == ["upload frame"]
        recorder.log.clear()
    assert pipe.detector_runs == plain.detector_runs == 1
    assert (pipe.look_ahead, pipe.owed, pipe.flush()) == (0, 0, [])


def test_each_step_uses_what_it_says_and_no_more(
    make: Make, load_open: Load, walk: list[Image]
) -> None:
    """With all else made NaN before each launch: what the order was derived from is true."""
    pipe, plain = make(Recorder(poison=True)), load_open("parallel")
    for image in walk[:2]:
        assert_alike(*pipe(image), *plain(image))


def test_two_people_in_a_batch_of_two(
    make: Make, load_open: Load, two_people: Image, walk: list[Image]
) -> None:
    recorder = Recorder(seed=3)
    pipe, plain = make(recorder, max_people=2), load_open("parallel", max_people=2)
    for image in (two_people, two_people, walk[0]):  # then one of them is gone
        people, others = pipe(image), plain(image)
        assert len(people) == len(others)
        for person, other in zip(people, others, strict=True):
            assert_alike(person, other)
    assert any(name.startswith("followed2") for name in recorder.log)


def test_a_landmark_network_of_the_pose_streams_own(
    make: Make, load_open: Load, open_bundle: Bundle, walk: list[Image]
) -> None:
    """As in open-plus, with the tracker's network in its place: a stage with role pose2d."""
    tracker = open_bundle.stage("landmarks")
    own = replace(tracker, name="pose_landmarks", role="pose2d")
    manifest = replace(open_bundle.manifest, stages=(*open_bundle.manifest.stages, own))
    bundle = replace(open_bundle, manifest=manifest)
    recorder = Recorder()
    pipe, plain = make(recorder, bundle=bundle), load_open("parallel", bundle)
    for image in walk[:2]:
        assert_alike(*pipe(image), *plain(image))
    assert "followed1.pose2d" in recorder.log


def test_frames_of_another_size_are_made_ready_for(
    make: Make, load_open: Load, walk: list[Image]
) -> None:
    pipe, plain = make(Recorder()), load_open()
    for image in (walk[0], np.ascontiguousarray(walk[1][:, :1000]), walk[2]):
        people, others = pipe(image), plain(image)
        for person, other in zip(people, others, strict=True):
            assert_alike(person, other)


def frames_of(bundle: Bundle, recorder: Recorder, **options: Any) -> Frames:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "CupyDevice", lambda: recorder)
        return executor.load_frames(bundle, **options)


@pytest.fixture
def begun(make: Make, open_bundle: Bundle, walk: list[Image]) -> tuple[Frames, Recorder]:
    """The first frame is up."""
    make(Recorder())  # the stand-ins, for what comes now
    recorder = Recorder()
    frames = frames_of(open_bundle, recorder, topology="mesh-only")
    height, width = walk[0].shape[:2]
    frames.begin(walk[0], Camera.from_size(width, height))
    return frames, recorder


def test_what_was_made_for_another_size_is_freed_before_more_is_made(
    begun: tuple[Frames, Recorder], walk: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, recorder = begun
    frames.follow([ROI])
    plan, alloc = weakref.ref(frames.plans[1]), recorder.alloc

    def alone(*given: Any, **more: Any) -> Any:
        assert plan() is None
        return alloc(*given, **more)

    monkeypatch.setattr(recorder, "alloc", alone)
    frames.begin(walk[0][:, :1000], Camera.from_size(1000, len(walk[0])))
    assert frames.follow([ROI])


def test_a_region_goes_up_again_after_a_run_that_was_interrupted(
    begun: tuple[Frames, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's next region is that of a run of which nothing came down."""
    frames, recorder = begun

    def interrupted(stream: Any) -> None:
        raise KeyboardInterrupt

    (first,) = frames.follow([ROI])
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "synchronize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            frames.follow([first.next_roi])
    (again,) = frames.follow([first.next_roi])
    frames.follow([ROI])
    (expected,) = frames.follow([first.next_roi])
    np.testing.assert_allclose(again.keypoints_2d, expected.keypoints_2d, atol=1e-3)


def test_engines_that_cannot_be_captured_run_on_the_streams(make: Make, walk: list[Image]) -> None:
    recorder = Recorder()
    pipe = make(recorder, capturable=False)
    for image in walk[:2]:
        assert pipe(image)
    assert recorder.replays == 0
    assert recorder.frozen


def test_frames_alone_with_and_without_a_graph(
    make: Make, open_bundle: Bundle, walk: list[Image]
) -> None:
    """What benchmarks/gpu.py times: the same numbers either way, and no mesh comes down."""
    make(Recorder())  # the stand-ins, for what comes now
    found, height, width = [], *walk[0].shape[:2]
    for graph in (True, False):
        recorder = Recorder()
        frames = frames_of(open_bundle, recorder, graph=graph)
        frames.begin(walk[0], Camera.from_size(width, height))
        recorder.log.clear()
        (person,) = frames.follow([ROI])
        found.append(person)
        assert recorder.replays == graph
        assert not [name for name in recorder.log if "calibrated" in name]
        meshes = frames.results([person.roi])
        assert meshes["calibrated"].shape == meshes["vertices"].shape
        assert not set(frames.results([person.roi], meshes=False)) & {"calibrated", "vertices"}
    np.testing.assert_array_equal(found[0].keypoints_2d, found[1].keypoints_2d)


def test_a_graph_needs_engines_that_can_be_captured(make: Make, open_bundle: Bundle) -> None:
    make(Recorder(), capturable=False)
    with pytest.raises(
        EngineError, match="engines of tensorrt cannot be part of a CUDA graph: cuda_graph=False"
    ):
        executor.load_frames(open_bundle, graph=True)


def test_a_graph_that_cannot_be_is_said_and_one_can_do_without(
    make: Make, walk: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, capture = Recorder(), Recorder.capture

    def fails(*given: Any) -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(Recorder, "capture", fails)
    pipe = make(recorder)
    for _ in range(2):  # and what was half made ready is not taken for whole
        with pytest.raises(
            EngineError, match=r"'followed1' cannot be one CUDA graph \(cudaError.*F"
        ):
            pipe(walk[0])
    (person,) = make(Recorder(), cuda_graph=False)(walk[0])
    monkeypatch.setattr(Recorder, "capture", capture)
    assert_alike(*pipe(walk[0]), person)
    assert recorder.replays


def test_nobody_is_nobody(make: Make) -> None:
    pipe = make(Recorder())
    assert pipe(np.zeros((90, 120, 3), np.uint8)) == []


def test_what_frames_alone_do_not_run_is_refused(
    make: Make, open_bundle: Bundle, walk: list[Image]
) -> None:
    """A pipeline runs the networks alone then: test_cuda_networks.py."""
    assert make(Recorder()).device_note == ""
    with pytest.raises(EngineError, match="topology 'template' runs on the CPU only, between netw"):
        executor.load_frames(open_bundle, "template")
    frames = executor.load_frames(open_bundle)
    camera = Camera(900, 900, 884, 497, (0.1, 0, 0, 0))
    with pytest.raises(EngineError, match="without lens distortion: undistort them first"):
        frames.begin(walk[0], camera)
    with pytest.raises(InputError, match="device 'gpu' is unknown; expected cpu or cuda"):
        Pipeline.load(open_bundle, device="gpu")


def test_without_a_gpu_or_cupy_it_says_so(
    open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise EngineError("this machine has no NVIDIA driver")

    def no_cupy() -> None:
        raise MissingDependency("cupy", "cuda13", "running an engine on a GPU")

    monkeypatch.setattr(cupy_device, "cuda_device", no_driver)
    with pytest.raises(EngineError, match="this machine has no NVIDIA driver"):
        Pipeline.load(open_bundle, device="cuda")
    monkeypatch.setattr(cupy_device, "cuda_device", lambda: None)
    monkeypatch.setattr(cupy_device, "import_cupy", no_cupy)
    with pytest.raises(MissingDependency, match=r"pip install 'pchmr\[cuda13\]'"):
        Pipeline.load(open_bundle, device="cuda")


def test_backends_of_the_gpu_only(open_bundle: Bundle) -> None:
    tracker = {"tracker": "landmarks"}
    with pytest.raises(EngineError, match="'openvino' does not run on device 'cuda'"):
        parts.engines_of(open_bundle, tracker, "openvino")
    with pytest.raises(EngineError, match="no backend runs 'open' on the GPU: tensorrt: "):
        parts.engines_of(open_bundle, tracker, "auto")
    with pytest.raises(PchmrError, match="trust=True"):
        parts.engines_of(open_bundle, tracker, "torch")
