"""Whole frames on a GPU with networks of this repository alone: no network, no cache is needed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pchmr import Pipeline
from pchmr.assets import cached, fetch
from pchmr.cuda import networks, parts
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine

torch = pytest.importorskip("torch")

FEW = ((24, 2, 1), (40, 2, 1))


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def made_up(benchmarks: None) -> ModuleType:
    import made_up

    return made_up


@pytest.fixture(scope="module")
def bundle(made_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnxscript", reason="not tested: made-up networks (no onnxscript)")
    made: Bundle = made_up.made_up_bundle(tmp_path_factory.mktemp("made-up") / "bundle", FEW)
    return made


class RoundTrip:
    """An engine of the CPU between arrays on the GPU: what a machine without TensorRT can run."""

    backend, precision = "onnxruntime", "fp32"

    def __init__(self, engine: Engine) -> None:
        self._engine, self.inputs, self.outputs = engine, engine.inputs, engine.outputs
        self.caps = replace(engine.caps, device="cuda", capturable=False)

    def context(self, batch: int, stream: Any, threads: int | None = None) -> Any:
        context, bound = self._engine.context(batch, threads=1), {}

        def enqueue() -> None:
            stream.synchronize()
            for name in self.inputs:
                context.buffers[name][...] = bound[name].get(stream=stream)
            context.enqueue()
            for name in self.outputs:
                bound[name].set(np.ascontiguousarray(context.buffers[name]), stream=stream)
            stream.synchronize()

        return SimpleNamespace(bind=bound.__setitem__, freeze=context.freeze, enqueue=enqueue)


@pytest.mark.slow
def test_somebody_is_followed_in_the_middle_of_the_picture(
    made_up: ModuleType, bundle: Bundle
) -> None:
    pipe = Pipeline.load(bundle, "parallel", backend="onnxruntime", threads=1)
    for image in (made_up.picture(640, 360), made_up.picture(640, 360)):
        (person,) = pipe(image)
        assert person.valid
        assert person.bbox[0] < 320 < person.bbox[2]
    assert pipe.detector_runs == 1


@pytest.mark.gpu
@pytest.mark.parametrize("topology", ["serial", "parallel", "mesh-only"])
@pytest.mark.parametrize("own_engines", [True, False])
def test_people_on_a_gpu_are_those_of_the_cpu(
    topology: str,
    own_engines: bool,
    made_up: ModuleType,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With torch's modules in one graph, and with the CPU's engines between arrays on the GPU."""
    import gpu_frames

    modules = made_up.modules(FEW)

    def engines_of(bundle: Bundle, stages: Mapping[str, str], backend: str) -> dict[str, Any]:
        if own_engines:
            made: Callable[..., Any] = gpu_frames.EagerEngine
            return {r: made(bundle.stage(n), modules[n]) for r, n in stages.items()}
        return {r: RoundTrip(bundle.engine(n, "onnxruntime", 1)) for r, n in stages.items()}

    monkeypatch.setattr(parts, "engines_of", engines_of)
    pipe = Pipeline.load(bundle, topology, device="cuda", max_people=2)
    plain = Pipeline.load(bundle, topology, backend="onnxruntime", threads=1, max_people=2)
    for image in (made_up.picture(), made_up.picture(), made_up.picture(1280, 720)):
        people, others = pipe(image), plain(image)
        assert len(people) == len(others) == 2  # the detector sees one wherever it looks
        for person, other in zip(people, others, strict=True):
            np.testing.assert_allclose(person.joints, other.joints, atol=0.02)
            np.testing.assert_allclose(person.keypoints_2d, other.keypoints_2d, atol=1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"smooth": True}, {"topology": "template"}])
def test_networks_alone_on_a_gpu_give_the_cpus_people(
    options: dict[str, Any], made_up: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_frames

    modules = made_up.modules(FEW)

    def engine(bundle: networks.BundleOnGpu, name: str, *given: Any, **more: Any) -> Any:
        return networks.HostSideEngine(gpu_frames.EagerEngine(bundle.stage(name), modules[name]))

    monkeypatch.setattr(networks.BundleOnGpu, "engine", engine)
    pipe = Pipeline.load(bundle, device="cuda", max_people=2, **options)
    assert pipe.device_note
    plain = Pipeline.load(bundle, backend="onnxruntime", threads=1, max_people=2, **options)
    for image in (made_up.picture(), made_up.picture(), made_up.picture(1280, 720)):
        people, others = pipe(image), plain(image)
        assert len(people) == len(others) == 2
        for person, other in zip(people, others, strict=True):
            np.testing.assert_allclose(person.joints, other.joints, atol=0.005)


@pytest.mark.gpu
@pytest.mark.parametrize("topology", ["serial", "parallel"])
def test_a_woman_who_walks(topology: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained networks, where the cache has them; the CPU's engines."""
    pytest.importorskip("av", reason="not tested: people of the demo video (no av)")
    wanted = ("blazepose_detector", "blazepose_full", "makehuman", "demo_video")
    if lacking := [name for name in wanted if cached(name) is None]:
        pytest.skip(f"not tested: people of the demo video ({', '.join(lacking)} not in the cache)")
    from pchmr.media import open_source

    def engines_of(bundle: Bundle, stages: Mapping[str, str], backend: str) -> dict[str, Any]:
        return {r: RoundTrip(bundle.engine(n, "onnxruntime", 1)) for r, n in stages.items()}

    monkeypatch.setattr(parts, "engines_of", engines_of)
    pipe = Pipeline.load("open", topology, device="cuda")
    plain = Pipeline.load("open", topology, backend="onnxruntime", threads=1)
    with open_source(fetch("demo_video")) as source:
        for found, _ in zip(source, range(6), strict=False):
            (person,), (other,) = pipe(found.image), plain(found.image)
            # A level of difference in the crop is tenths of a pixel to the landmark network.
            np.testing.assert_allclose(person.joints, other.joints, atol=0.1)
    assert pipe.detector_runs == 1
