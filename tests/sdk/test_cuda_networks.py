"""`device="cuda"` where only the networks run there, on a GPU that is none: nothing is copied or
computed before its stream is waited for, so that a missing wait shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from crop_stages import GENERATOR, lifter, pose2d
from test_pipeline_crops import with_people

from pchmr import Camera, Pipeline
from pchmr.cuda import executor, networks
from pchmr.profiling.recorder import Recorder
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import BundleError, EngineError
from pchmr_engines.manifest import Graph

pytestmark = pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")

Make = Callable[..., Pipeline]
Image = np.ndarray


class Stream:
    """Work that is done when the host waits."""

    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking
        self.work: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.work:
            self.work.pop(0)()


class DeviceArray(np.ndarray):
    def set(self, host: np.ndarray, stream: Stream) -> None:
        assert host.dtype == self.dtype
        stream.work.append(lambda: np.copyto(self, host))

    def get(self, stream: Stream, out: np.ndarray, blocking: bool) -> None:
        assert not blocking
        stream.work.append(lambda: np.copyto(out, self))


class GpuStandIn:
    """An engine of the CPU behind arrays and streams of such a GPU. made: its contexts' batches."""

    precision, capturable = "fp32", True

    def __init__(self, engine: Engine, backend: str) -> None:
        self._engine, self.backend = engine, backend
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.caps = replace(engine.caps, device="cuda", capturable=self.capturable)

    def context(self, batch: int, stream: Stream, threads: int | None = None) -> Any:
        context = self._engine.context(batch, threads=1)
        buffers = {n: np.zeros_like(x).view(DeviceArray) for n, x in context.buffers.items()}

        def run() -> None:
            for name in self.inputs:
                context.buffers[name][...] = buffers[name]
            context.enqueue()
            for name in self.outputs:
                buffers[name][...] = context.buffers[name]

        return SimpleNamespace(
            buffers=buffers,
            freeze=context.freeze,
            enqueue=lambda: stream.work.append(run),
            close=context.close,
        )


def graph_of(cupy: Any, stream: Stream, queue: Callable[[], None], torch: bool) -> Any:
    """A graph in place of one: as what it was captured of, queued again."""
    assert torch  # the stand-ins are of the backend torch-cuda
    assert not stream.work  # nothing is left to do when a capture begins
    launches.append(stream)
    return SimpleNamespace(launch=lambda stream: queue())


launches: list[Stream] = []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The GPU in place of one; (stage, backend) of each engine that was asked for."""
    cuda = SimpleNamespace(Stream=Stream, alloc_pinned_memory=bytearray)
    monkeypatch.setattr(networks, "import_cupy", lambda: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(executor, "CupyDevice", lambda: None)
    monkeypatch.setattr(networks, "captured", graph_of)
    real, asked = Bundle.engine, []

    def engine(
        bundle: Bundle, name: str, backend: str = "auto", threads: Any = None, precision: Any = None
    ) -> Any:
        if backend == "onnxruntime":
            return real(bundle, name, backend, threads, precision)
        asked.append((name, backend))
        if backend != "torch-cuda":
            raise EngineError(f"no {backend} here")
        return GpuStandIn(real(bundle, name, "onnxruntime", 1, precision), backend)

    monkeypatch.setattr(Bundle, "engine", engine)
    return asked


@pytest.fixture(scope="module")
def crop_bundle(open_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SPIN's form, HRNet's and VideoPose3D's, made up."""
    return with_people(tmp_path_factory.mktemp("crops"), open_bundle, GENERATOR, pose2d(), lifter())


def assert_the_same(pipe: Pipeline, plain: Pipeline, frames: list[Image]) -> None:
    for image in frames:
        people, others = pipe(image), plain(image)
        assert len(people) == len(others) > 0
        for person, other in zip(people, others, strict=True):
            np.testing.assert_array_equal(person.vertices, other.vertices)
            np.testing.assert_array_equal(person.joints, other.joints)
            assert person.valid == other.valid


@pytest.mark.parametrize("topology", ["serial", "parallel", "template", "mesh-only"])
def test_networks_over_crops_give_the_same_people(
    topology: str, asked: list[Any], crop_bundle: Bundle, load_open: Make, two_people: Image
) -> None:
    pipe = Pipeline.load(crop_bundle, topology, device="cuda", max_people=2)
    plain = load_open(topology, bundle=crop_bundle, max_people=2)
    assert_the_same(pipe, plain, [two_people] * 2)
    assert pipe.device_note.startswith("device cuda: ")
    assert "runs on the CPU only, between networks on the GPU" in pipe.device_note


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"topology": "template"}, "topology 'template'"),
        ({"smooth": True}, "smoothing over time"),
        ({"camera": Camera(900, 900, 884, 497, (0.1, 0, 0, 0))}, "a lens with distortion"),
    ],
)
def test_so_do_filters_lenses_and_templates(
    options: dict[str, Any], what: str, asked: list[Any], load_open: Make, walk: list[Image]
) -> None:
    pipe, plain = (
        load_open(**{**options, "backend": "auto", "device": "cuda"}),
        load_open(**options),
    )
    assert_the_same(pipe, plain, walk[:3])
    assert (
        pipe.device_note == f"device cuda: {what} runs on the CPU only, between networks on the GPU"
    )
    assert plain.device_note == ""


def test_the_command_line_says_what_runs_on_the_cpu(
    asked: list[Any], command: Callable[..., Any], walk: list[Image], tmp_path: Path
) -> None:
    from command_line import write_video

    clip = write_video(tmp_path / "walk.mp4", walk[:2])
    given = ("--topology", "template", "--device", "cuda")
    said = "note: device cuda: topology 'template' runs on the CPU only, between networks on the G"
    for verb in (("run", clip, "-o", tmp_path / "out"), ("webcam", clip, "--no-draw")):
        outcome = command(*verb, *given)
        assert outcome.code == 0, outcome.err
        assert said in outcome.err


def test_each_network_is_one_launch_or_none_where_it_is_not_to_be(
    asked: list[Any], open_bundle: Bundle, walk: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"device": "cuda", "smooth": True}
    launches.clear()
    graphed = Pipeline.load(open_bundle, "serial", **options)
    assert len(launches) == 4  # detector, landmarks, generator, lifter

    def fails(*given: Any) -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(networks, "captured", fails)
    with pytest.raises(EngineError, match=r"torch-cuda cannot be one CUDA graph \(cudaE.*=False"):
        Pipeline.load(open_bundle, "serial", **options)
    plain = Pipeline.load(open_bundle, "serial", **options, cuda_graph=False)
    assert_the_same(graphed, plain, walk[:2])


def test_engines_that_cannot_be_captured_are_no_graph(
    asked: list[Any], open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's may do a part of their work on the CPU, which a graph would leave out."""
    launches.clear()
    monkeypatch.setattr(GpuStandIn, "capturable", False)
    options: dict[str, Any] = {"device": "cuda", "smooth": True}
    Pipeline.load(open_bundle, "serial", **options)
    assert not launches
    with pytest.raises(EngineError, match="of torch-cuda cannot be part of a CUDA graph: cuda_gr"):
        Pipeline.load(open_bundle, "serial", **options, cuda_graph=True)


def test_a_closed_context_replays_nothing(
    asked: list[Any], open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[Stream] = []
    graph = SimpleNamespace(launch=replayed.append)
    monkeypatch.setattr(networks, "captured", lambda *given: graph)
    context = networks.BundleOnGpu.of(open_bundle).engine("lifter").context(1)
    context.freeze()
    context.enqueue()
    assert len(replayed) == 2
    for _ in range(2):
        context.close()
    with pytest.raises(EngineError, match="the context is closed, expected frozen"):
        context.enqueue()
    assert len(replayed) == 2


def test_auto_takes_one_backend_for_all(
    asked: list[Any], open_bundle: Bundle, walk: list[Image]
) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"device": "cuda", "smooth": True, "recorder": recorder}
    pipe = Pipeline.load(open_bundle, "serial", **options)
    assert [backend for _, backend in asked if backend == "tensorrt"] == ["tensorrt"]
    assert {name for name, backend in asked if backend == "torch-cuda"} == set(open_bundle.stages)
    pipe(walk[0])
    assert {span.name for span in recorder.spans if span.kind == "engine"} >= {
        "landmarks",
        "lifter",
    }


def test_backends_that_cannot_are_said(asked: list[Any], open_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="'openvino' does not run on device 'cuda'"):
        Pipeline.load(open_bundle, device="cuda", smooth=True, backend="openvino")
    with pytest.raises(EngineError, match="no tensorrt here"):
        Pipeline.load(open_bundle, device="cuda", smooth=True, backend="tensorrt")
    bundle = networks.BundleOnGpu.of(open_bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "BACKENDS_OF_THE_GPU", ("tensorrt",))
        with pytest.raises(
            EngineError, match="no backend runs stage 'lifter' of 'open' on the GPU"
        ):
            bundle.engine("lifter")
    context = bundle.engine("lifter").context(1)
    with pytest.raises(EngineError, match="cannot bind 'keypoints': write into the context's own"):
        context.bind("keypoints", np.zeros((1, 25, 3), np.float32))


def test_a_bundle_of_torchs_programs_is_trusted_or_refused(
    asked: list[Any], open_bundle: Bundle, tmp_path: Path
) -> None:
    """What `--trust` passes on; the program itself is not read by the backends of this test."""
    stages = list(open_bundle.manifest.stages)
    program = Graph("fp32", "stages/lifter.fp32.pt2")
    place = [stage.name for stage in stages].index("lifter")
    stages[place] = replace(stages[place], graphs=(*stages[place].graphs, program))
    manifest = replace(open_bundle.manifest, stages=tuple(stages))
    files = {ref.file: open_bundle.root / ref.file for ref in open_bundle.manifest.files()}
    root = write_bundle(tmp_path / "bundle", manifest, {**files, program.file: b"program"}).root
    with pytest.raises(BundleError, match=r"\.pt2 files can run code: pass trust=True"):
        Pipeline.load(root, "serial", device="cuda", smooth=True)
    untrusted = Bundle.load(root, trust=True)
    for given in (root, replace(untrusted, trust=False)):
        pipe = Pipeline.load(given, "serial", trust=True, device="cuda", smooth=True)
        assert pipe.bundle.trust
    assert ("lifter", "torch-cuda") in asked
