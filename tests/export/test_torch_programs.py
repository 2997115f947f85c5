"""Stages as torch.export programs, compiled by AOTInductor, give what their gates ask for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pchmr_engines.build import build_engines
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import BundleError, EngineError
from pchmr_engines.verify import verify_bundle
from pchmr_export.torch_programs import add_programs, open_modules


@pytest.fixture(scope="module")
def trusted(open_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("programs") / "bundle"
    return add_programs(open_bundle, {"lifter": open_modules()["lifter"]}, folder)


def test_a_bundle_with_programs_needs_trust(trusted: Bundle) -> None:
    with pytest.raises(BundleError, match=r"\.pt2 files can run code: pass trust=True"):
        Bundle.load(trusted.root)
    with pytest.raises(
        EngineError, match=r"no engine of torch .*: run  pchmr build .*--backend tor"
    ):
        Bundle.load(trusted.root, trust=True).engine("lifter", "torch")


@pytest.mark.slow
def test_programs_are_those_of_the_stages(open_bundle: Bundle, tmp_path: Path) -> None:
    bundle = add_programs(open_bundle, open_modules(), tmp_path / "all")
    for stage in bundle.manifest.stages:
        program = torch.export.load(bundle.root / stage.graph("fp32", ".pt2").file)
        data = bundle.parity_data(stage.name)
        inputs = [torch.from_numpy(data[f"inputs/{spec.name}"]) for spec in stage.inputs]
        found = program.module()(*inputs)
        for spec, tensor in zip(stage.outputs, found, strict=True):
            gate = stage.graph().parity.get(spec.name)
            if gate:
                off = np.abs(tensor.detach().numpy() - data[f"outputs/{spec.name}"]).max()
                assert gate.scale * off <= gate.tolerance, spec.name


@pytest.mark.slow
def test_a_compiled_stage_passes_its_gates(trusted: Bundle) -> None:
    (outcome,) = build_engines(trusted, "torch", "fp32", stages=["lifter"])
    assert outcome.size > 1e6
    engine = trusted.engine("lifter", "torch", threads=1)
    data = trusted.parity_data("lifter")
    keypoints = data["inputs/keypoints"]
    whole = engine.run({"keypoints": keypoints})["joints"]
    np.testing.assert_allclose(whole, data["outputs/joints"], atol=1e-5)
    contexts = [engine.context(batch, threads=1) for batch in (1, 3)]
    for context in contexts:
        context.freeze()
        joints = context.buffers["joints"]
        context.buffers["keypoints"][...] = keypoints[: context.batch]
        context.enqueue()
        np.testing.assert_allclose(joints, whole[: context.batch], atol=1e-5)
        context.close()


def test_a_program_of_another_stage_is_refused(open_bundle: Bundle, tmp_path: Path) -> None:
    wrong = add_programs(open_bundle, {"lifter": open_modules()["generator"]}, tmp_path / "wrong")
    with pytest.raises(
        EngineError, match=r"lifter.fp32.pt2 has the outputs .*; the bundle says joi"
    ):
        list(build_engines(wrong, "torch", "fp32", stages=["lifter"]))


def test_gates_of_a_backend_without_graphs_are_named(open_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"'open' stores no outputs of \.pt2 graphs to verify"):
        verify_bundle(open_bundle, "torch")
