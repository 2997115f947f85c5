"""One ONNX of the whole: the numbers of PyTorch and of the runtime, by plain ONNX Runtime."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_cases import seeded, small_recipe
from onnx import numpy_helper

from pchmr_engines.errors import InputError
from pchmr_export import onnx_graph, single_file
from pchmr_export.gates import GateFailed, check
from pchmr_export.onnx_graph import StageFile
from pchmr_export.ready import ready_recipe
from pchmr_export.single_file import export_single_file, single_gates
from pchmr_export.single_forms import OUTPUTS
from pchmr_export.single_rows import landmark_rows, real_people
from pchmr_export.single_whole import FRAMES, Whole, whole_of_open, whole_of_recipe
from pchmr_kernels.skeletons import get_skeleton

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
LANDMARKS = {"keypoints", "world", "crop_rotation", "crop_size", "focal", "centre"}
CROPS = {"image", "crop_affine", "frame_size", "focal", "centre"}

Exported = tuple[Whole, StageFile]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Whole], Exported]:
    """Writes `<topology>.onnx` into a folder of its own, which then holds nothing else."""

    def export(whole: Whole) -> Exported:
        folder = tmp_path_factory.mktemp("single")
        file, gates = export_single_file(whole, folder / f"{whole.facts['topology']}.onnx")
        assert list(folder.iterdir()) == [file.path]
        assert {gate.backend for gate in gates} == {"onnxruntime", "openvino"}
        assert {gate.output.split(",")[0] for gate in gates} == set(OUTPUTS)
        return whole, file

    return export


@pytest.fixture(scope="module")
def serial(export: Callable[[Whole], Exported]) -> Exported:
    return export(whole_of_open("open", "serial"))


def test_the_file_says_what_it_is(serial: Exported) -> None:
    file = serial[1]
    session = onnxruntime.InferenceSession(file.path)
    assert {value.name for value in session.get_inputs()} == LANDMARKS
    assert [value.name for value in session.get_outputs()] == list(OUTPUTS)
    assert {op.domain for op in onnx.load(file.path).opset_import} == {""}
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["inputs"]).keys() == LANDMARKS
    assert json.loads(facts["outputs"]) == OUTPUTS
    assert {"generator", "lifter", "body"} == json.loads(facts["licences"]).keys()
    assert all(json.loads(facts["licences"]).values())
    assert (facts["topology"], facts["skeleton"]) == ("serial", "smpl24")
    assert facts["joints"].split() == list(get_skeleton("smpl24").joints)
    assert facts["calibration"] == "trained"
    assert facts["faces"].startswith("not inside: array f of body.npz")


def test_it_gives_what_the_runtime_gives(serial: Exported) -> None:
    """At any batch, on frames whose camera is the one that the runtime assumes."""
    seen = real_people(FRAMES)[::5]
    camera = seen[0].person.camera
    numbers = {"focal": [camera.fx], "centre": [camera.cx, camera.cy]}
    given = {name: np.array(values, np.float32) for name, values in numbers.items()}
    session = onnxruntime.InferenceSession(serial[1].path)
    rows = landmark_rows(seen, given)
    feed = {name: rows[name] for name in LANDMARKS}
    found = session.run(None, feed)
    for name, values in zip(OUTPUTS, found, strict=True):
        if name != "translation":
            expected = np.stack([getattr(person.person, name) for person in seen])
            np.testing.assert_allclose(values, expected, atol=1e-4)
    one = session.run(None, {k: v if k in given else v[1:2] for k, v in feed.items()})
    np.testing.assert_allclose(one[0][0], found[0][1], atol=1e-5)


def faulty(good: Path, bad: Path, name: str) -> None:
    """A copy whose weights `name` are 1% too large."""
    model = onnx.load(good)
    (weights,) = (x for x in model.graph.initializer if x.name == name)
    weights.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weights), name))
    onnx.save(model, bad)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("mesh_stream.layer.v_template", "vertices"),
        ("lifter.lifter.trunk.1.weight", "target_joints"),
    ],
)
def test_planted_faults_fail(name: str, output: str, serial: Exported, tmp_path: Path) -> None:
    whole, file = serial
    faulty(file.path, tmp_path / "bad.onnx", name)
    gates = single_gates(whole, tmp_path / "bad.onnx", ["onnxruntime"])
    assert output in {gate.output for gate in gates if not gate.passed}
    with pytest.raises(GateFailed, match="stage 'serial' in fp32 on onnxruntime"):
        check(gates)


@pytest.mark.parametrize("what", ["focal", "centre"])
def test_the_camera_is_gated(what: str, serial: Exported) -> None:
    whole, file = serial
    other = replace(whole, rows={**whole.rows, what: 1.01 * whole.rows[what]})
    with pytest.raises(GateFailed):
        check(single_gates(other, file.path, ["onnxruntime"]))


def test_a_file_that_fails_is_not_left_behind(
    serial: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, file = serial

    def broken(form: Any, inputs: Any, outputs: Any, path: Path, *rest: Any) -> StageFile:
        faulty(file.path, path, "mesh_stream.layer.v_template")
        return StageFile(path, (), file.inputs, file.outputs)

    monkeypatch.setattr(single_file, "export_graph", broken)
    with pytest.raises(GateFailed):
        export_single_file(whole, tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.onnx").write_bytes(b"old")
    with pytest.raises(GateFailed):
        export_single_file(whole, tmp_path / "old.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(InputError, match="is a folder; expected the name of a file"):
        export_single_file(whole, tmp_path)


def test_the_example_of_the_page_runs(
    serial: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = PAGE.split("\n## One file for other runtimes\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(serial[1].path, "serial.onnx")
    rows = {k: v for k, v in serial[0].rows.items() if k not in ("focal", "centre")}
    np.savez("landmarks.npz", **rows)
    made: dict[str, Any] = {}
    exec(block, made)
    assert made["vertices"].shape == serial[0].expected["vertices"].shape
    for name in (*OUTPUTS, *LANDMARKS, *CROPS, "pose_image", "pose_crop_affine", "pose_world"):
        assert f"`{name}`" in section


@pytest.mark.slow
@pytest.mark.parametrize("name", ["open", "open-plus"])
def test_parallel_open(name: str, export: Callable[[Whole], Exported]) -> None:
    own = {"pose_keypoints", "pose_world"} if name == "open-plus" else set()
    whole, file = export(whole_of_open(name, "parallel"))
    assert {spec.name for spec in file.inputs} == LANDMARKS | own
    moved = {key: value + 0.05 for key, value in whole.rows.items() if key in own}
    other = replace(whole, rows={**whole.rows, **moved})
    failed = [g for g in single_gates(other, file.path, ["onnxruntime"]) if not g.passed]
    assert bool(failed) == bool(own)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "topology", "more"),
    [
        ("spin_hmr+semgcn_plain", "serial", set()),
        ("spin_hmr+hrnet_w32_256x192+semgcn_plain", "parallel", {"pose_image", "pose_crop_affine"}),
        ("hmr_tf+posenet_r50_18j", "parallel", {"pose_image", "pose_crop_affine"}),
    ],
)
def test_registered_networks(
    name: str, topology: str, more: set[str], export: Callable[[Whole], Exported]
) -> None:
    whole, file = export(whole_of_recipe(ready_recipe(name), topology))
    unused = {"frame_size"} if "posenet" in name else set()
    assert {spec.name for spec in file.inputs} == (CROPS | more) - unused
    swapped = {key: x[..., ::-1].copy() for key, x in whole.rows.items() if "image" in key}
    other = replace(whole, rows={**whole.rows, **swapped})
    with pytest.raises(GateFailed):
        check(single_gates(other, file.path, ["onnxruntime"]))


@pytest.mark.slow
def test_a_module_of_ones_own_and_weights_in_a_file_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above 2 GB."""
    recipe = small_recipe(tmp_path, {"lifter": seeded("semgcn_plain")})
    whole = whole_of_recipe(recipe, "serial", trust=True)
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 2**20)
    target = tmp_path / "out" / "whole.onnx"
    file, _ = export_single_file(whole, target)
    assert file.external == (target.with_name("whole.onnx.data"),)
    assert {path.name for path in target.parent.iterdir()} == {"whole.onnx", "whole.onnx.data"}
    assert target.stat().st_size < 2**20
    found = onnxruntime.InferenceSession(target).run(["vertices"], dict(whole.rows))[0]
    np.testing.assert_allclose(found, whole.expected["vertices"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "topology", "message"),
    [
        (
            "spin_hmr+videopose3d_h36m_9",
            "serial",
            r"lifter \(videopose3d_h36m_9\) sees several fra",
        ),
        (
            "vibe+semgcn_plain",
            "serial",
            r"generator \(vibe\) sees several .* export a bundle, whose",
        ),
        ("spin_hmr+semgcn_plain", "parallel", "no single file of 'parallel'; its stages allow ser"),
        ("spin_hmr+semgcn_plain", "template", "no single file of 'template'; its stages allow ser"),
    ],
)
def test_what_no_single_file_can_be_is_said_in_a_line(
    name: str, topology: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        whole_of_recipe(ready_recipe(name), topology)
    assert "\n" not in str(caught.value)


def test_custom_files_and_other_forms_of_open_are_refused(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, {"lifter": seeded("semgcn_plain")}, source="model.onnx")
    with pytest.raises(InputError, match=r"stage generator is the file model\.onnx; a single"):
        whole_of_recipe(recipe, "serial")
    with pytest.raises(InputError, match="open: no single file of 'template'; expected serial or"):
        whole_of_open("open", "template")
