"""benchmarks/gpu_frames.py without a GPU: every form to its end, on a device that is none."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from cuda_recorder import Recorder
from cuda_shim.shim_runtime import ShimRuntime, build, find_compiler
from cuda_stand_in import HostEngine

from pchmr.cuda import cupy_device, executor, parts
from pchmr.cuda.schedule import Step
from pchmr_engines.backends.torch import TorchContext
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Caps
from pchmr_engines.errors import AssetError, EngineError
from pchmr_export import torch_programs
from pchmr_kernels import cuda_runtime

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu_budget  # noqa: E402
from gpu_budget import Budget, failures  # noqa: E402

FORMS = {"eager", "tensorrt", "tensorrt + graph", "eager + graph"}
FIGURES = {"p50_ms", "p95_ms", "p99_ms", "samples"}


@pytest.fixture
def gpu_frames(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import gpu_frames

    return gpu_frames


class Counted(Recorder):
    """And the streams it made."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.streams: list[Any] = []

    def stream(self) -> Any:
        self.streams.append(super().stream())
        return self.streams[-1]


class HostEager:
    """`EagerEngine` between arrays of the host."""

    backend, precision = "torch-cuda", "fp32"

    def __init__(self, stage: Any, module: Any) -> None:
        self.inputs = {spec.name: spec for spec in stage.inputs}
        self.outputs = {spec.name: spec for spec in stage.outputs}
        self.caps, self._torch, self._module = Caps("cuda", 8, True), torch, module

    def context(self, batch: int, stream: Any, threads: int | None = None) -> Any:
        return TorchContext(self, self._module, batch, 1)  # type: ignore[arg-type]


@pytest.fixture
def stand_ins(
    gpu_frames: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., list[Counted]]:
    """`stand_ins(capturable)`: a device, kernels and engines of the host; the devices, as made."""
    if find_compiler() is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    runtime = ShimRuntime(build(tmp_path_factory.getbasetemp()), threads=2)

    def ready(capturable: bool = True) -> list[Counted]:
        devices: list[Counted] = []

        def device() -> Counted:
            devices.append(Counted(seed=len(devices)))
            return devices[-1]

        def engines_of(bundle: Bundle, stages: Mapping[str, str], backend: str) -> dict[str, Any]:
            if backend != "tensorrt":
                raise EngineError(f"{backend} is not here")
            return {
                role: HostEngine(bundle.engine(name, "onnxruntime", 1), capturable)
                for role, name in stages.items()
            }

        monkeypatch.setattr(cuda_runtime, "runtime", lambda: runtime)
        monkeypatch.setattr(executor, "CupyDevice", device)
        monkeypatch.setattr(parts, "engines_of", engines_of)
        monkeypatch.setattr(gpu_frames, "EagerEngine", HostEager)
        monkeypatch.setattr(gpu_frames, "REPEATS", 2)
        monkeypatch.setattr(gpu_frames, "ROUNDS", 1)
        monkeypatch.setattr(gpu_frames, "SECONDS", 0.0)
        monkeypatch.setattr(gpu_budget, "WARM_UP", 1)
        monkeypatch.setattr(gpu_budget, "LEAST_CALLS", 1)
        return devices

    return ready


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["serial", "parallel"])
def test_every_form_is_measured_to_its_end(
    topology: str,
    gpu_frames: ModuleType,
    stand_ins: Callable[..., list[Counted]],
    open_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    devices = stand_ins()
    monkeypatch.setattr(gpu_frames, "TOPOLOGIES", (topology,))
    networks = gpu_frames.Networks(open_bundle, torch_programs.open_modules(), gpu_frames.frame())
    bundles = {"tensorrt": open_bundle}
    (*_, report) = gpu_frames.whole_frames(networks, bundles, False, Budget(1e3))
    forms = report[topology]
    assert forms.keys() == FORMS
    for name, row in forms.items():
        assert isinstance(row, dict), row
        assert row.keys() >= FIGURES
        assert ("graph_ms" in row) == name.endswith("graph")
    graphed = forms["tensorrt + graph"]
    assert {"tracker", "generator", "lifter", "calibrate"} <= graphed["steps_us"].keys()
    path = [graphed["steps_us"][name] for name in graphed["critical_path"]]
    assert graphed["critical_path"][:3] == ["crops", "image", "tracker"]
    assert sum(path) == pytest.approx(1e3 * graphed["critical_path_ms"])
    # Four forms, of which two a second time on one stream, with a graph alone.
    assert [bool(d.replays) for d in devices] == [False, True, True, False, True, True]
    assert [len(d.streams) for d in devices] == [2, 2, 1, 2, 2, 1]
    gpu_frames.show("pipeline", report)
    said = capsys.readouterr().out
    assert f"pipeline, {topology} frame, eager: p50 " in said
    assert " x critical path" in said


def test_what_is_not_there_or_fails_is_said_and_the_rest_is_measured(
    gpu_frames: ModuleType,
    stand_ins: Callable[..., list[Counted]],
    open_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_ins(capturable=False)
    monkeypatch.setattr(gpu_frames, "TOPOLOGIES", ("serial",))

    def broken(networks: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(gpu_frames, "eager_engines", broken)
    bundles = dict.fromkeys(("tensorrt", "torch-cuda"), open_bundle)
    networks = gpu_frames.Networks(open_bundle, {}, gpu_frames.frame())
    (*_, report) = gpu_frames.whole_frames(networks, bundles, False, Budget(1e3))
    forms = report["serial"]
    assert forms["eager"] == "failed: RuntimeError: out of order"
    assert forms["tensorrt"].keys() == FIGURES
    assert forms["tensorrt + graph"].startswith("not tested: engines of tensorrt cannot be part")
    assert forms["torch-cuda"] == "not tested: torch-cuda is not here"
    gpu_frames.show("pipeline", {"serial": forms})
    assert "serial frame, torch-cuda: not tested: torch-cuda is not" in capsys.readouterr().out
    found = list(failures({"whole_frame": report}))
    assert found == ["whole_frame, serial, eager", "whole_frame, serial, eager + graph"]


def test_modules_run_as_compiled_packages_do(
    gpu_frames: ModuleType, open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    waits = SimpleNamespace(synchronize=lambda: moved.append("waited"))
    monkeypatch.setattr(gpu_frames, "import_torch", lambda backend: SimpleNamespace(cuda=waits))
    monkeypatch.setattr(gpu_frames, "TorchCudaContext", lambda *given: given)
    module = SimpleNamespace(to=lambda device: moved.append(device) or module)
    engine = gpu_frames.EagerEngine(open_bundle.stage("lifter"), module)
    assert engine.context(2, 7) == (engine, module, 2, 7)
    assert moved == ["cuda", "waited"]
    assert list(engine.outputs) == ["joints", "landmarks"]
    assert engine.caps.capturable
    assert engine.backend == "torch-cuda"  # so that a graph has torch's pool


def test_networks_of_others_have_no_modules(gpu_frames: ModuleType, open_bundle: Bundle) -> None:
    own = replace(open_bundle.stage("landmarks"), name="pose_landmarks", role="pose2d")
    manifest = replace(open_bundle.manifest, stages=(*open_bundle.manifest.stages, own))
    with pytest.raises(EngineError, match=r"no torch modules of the stages .*pose_landmarks"):
        gpu_frames.eager_engines(gpu_frames.Networks(replace(open_bundle, manifest=manifest)))


def test_the_longest_path_goes_by_times(gpu_frames: ModuleType) -> None:
    def step(name: str, *needs: str) -> Step:
        return Step(name, frozenset(needs), {name: ((1,), "float32")}, lambda *_: lambda: None)

    steps = [step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")]
    times = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 1.0}
    assert gpu_frames.critical_path(steps, times) == ["a", "b", "d"]
    assert gpu_frames.critical_path(steps, times | {"c": 9.0}) == ["a", "c", "d"]


def test_compiling_too_slowly_stops_between_stages(
    gpu_frames: ModuleType, open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[list[str]] = []
    budget = SimpleNamespace(left=100.0)

    def build_engines(bundle: Bundle, backend: str, precision: str, stages: list[str]) -> list[Any]:
        budget.left -= 61
        built.append(stages)
        return []

    monkeypatch.setattr(torch_programs, "add_programs", lambda bundle, modules, folder: bundle)
    monkeypatch.setattr(gpu_frames, "build_engines", build_engines)
    with pytest.raises(EngineError, match="too slowly here: landmarks was not begun"):
        gpu_frames.compiled(gpu_frames.Networks(open_bundle), tmp_path, budget)
    assert built == [["detector"]]


def test_a_bundle_that_is_not_there_is_not_tested(
    gpu_frames: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_pipeline

    for part in (gpu_pipeline.frames, gpu_pipeline.pipeline):
        given = SimpleNamespace(cuda=True), SimpleNamespace(bundle="lost"), Budget(1e3)
        (*_, report) = part(*given)
        gpu_pipeline.show("frames", report)
        assert "networks and body of none, since not tested: lost" in capsys.readouterr().out
        assert list(failures(report)) == []


def test_networks_are_made_up_where_open_cannot_be_had(
    gpu_frames: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import made_up

    def no_network() -> None:
        raise AssetError("no network")

    monkeypatch.setattr("pchmr_export.open_bundle.open_bundle", no_network)
    for name in ("made_up_bundle", "modules"):
        monkeypatch.setattr(made_up, name, lambda *given: made_up)
    networks = gpu_frames.Networks.of("open", tmp_path, Budget(1e3))
    assert networks.why == "open cannot be had: not tested: no network"
    assert networks.bundle is networks.modules is made_up
    assert networks.image.shape == (1080, 1920, 3)


def test_an_engine_of_torch_is_captured_through_torch(
    gpu_frames: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_pipeline

    calls: list[Any] = []

    class TorchGraph:
        def __init__(self, stream: int, queue: Callable[[], None]) -> None:
            calls.append(stream)
            queue()

        def replay(self) -> None:
            calls.append("replay")

    monkeypatch.setattr(cupy_device, "TorchGraph", TorchGraph)
    branch = object.__new__(gpu_pipeline.Branch)
    branch.cupy = None
    branch.stream = SimpleNamespace(ptr=7, synchronize=lambda: calls.append("wait"))
    caps = Caps("cuda", 8, True)
    branch.engine = SimpleNamespace(backend="torch-cuda", caps=caps)
    branch.context = SimpleNamespace(enqueue=lambda: calls.append("enqueue"))
    branch.graph()()
    assert calls == [7, "enqueue", "replay", "wait"]
