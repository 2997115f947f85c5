"""What is timed as "before the export": each stage's own module, with its graph's inputs."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import LIFTER, small_recipe

from pchmr_engines.bundle import Bundle
from pchmr_export import latency
from pchmr_export.assemble import _modules
from pchmr_export.custom_stage import load_custom
from pchmr_export.examples import form_examples
from pchmr_export.latency import stage_times
from pchmr_export.ready import ready_recipe
from pchmr_export.report import stage_errors
from pchmr_export.stage_build import stage_module
from pchmr_export.torch_programs import OPEN_MODULES


def test_torch_is_timed_beside_the_engines(
    open_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    shutil.copytree(open_bundle.root, tmp_path / "bundle")
    stages = (open_bundle.stage("lifter"),)
    bundle = Bundle(tmp_path / "bundle", replace(open_bundle.manifest, stages=stages))
    labels = [time.label for time in stage_times(bundle, OPEN_MODULES)]
    assert labels == ["torch", "onnxruntime fp32", "openvino fp32"]
    assert OPEN_MODULES.keys() == open_bundle.stages.keys()


@pytest.mark.parametrize(("network", "state"), [("semgcn_plain", 0), ("videopose3d_h36m_9", 3)])
def test_a_module_takes_what_the_graph_takes(network: str, state: int) -> None:
    module = stage_module(ready_recipe(f"spin_hmr+{network}"), "lifter")
    inputs = module.examples("x") if state else (torch.rand(2, 16, 2),)  # type: ignore[operator]
    with torch.inference_mode():
        answer = module(*inputs)
    joints = answer[0] if state else answer
    assert len(inputs) == 1 + state
    assert joints.shape[2] == 3


def test_custom_modules_are_timed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    recipe = small_recipe(tmp_path, LIFTER)
    loaded = load_custom(recipe, "generator", trust=True)
    modules = _modules(recipe, {"generator": loaded})
    assert list(modules) == ["detector", "landmarks", "generator", "lifter"]
    assert loaded.form is not None
    image = form_examples("generator", loaded.form)["image"]
    with torch.inference_mode():
        vertices, cam = modules["generator"]()(torch.from_numpy(image))
    assert (vertices.shape[1:], cam.shape[1:]) == ((6890, 3), (3,))
    assert np.isfinite(vertices.numpy()).all()


def test_pictures_leave_out_the_state_of_a_stream(open_bundle: Bundle) -> None:
    stage = open_bundle.stage("lifter")
    outputs = [output for (_, output), _ in stage_errors(open_bundle, stage)]
    assert set(outputs) == {"joints", "landmarks"}
    streaming = replace(stage, settings={**stage.settings, "state": {"memory": "landmarks"}})
    assert {output for (_, output), _ in stage_errors(open_bundle, streaming)} == {"joints"}
