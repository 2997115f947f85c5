"""Custom stages: a module, TorchScript and ONNX give one graph; code runs only where trusted."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_cases import SmallGenerator, small_recipe

from pchmr_engines import engine_from_onnx
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.store import read_npz
from pchmr_export.assemble import export_recipe
from pchmr_export.custom_stage import check_outputs, check_vertices, load_custom
from pchmr_export.onnx_graph import export_graph
from pchmr_export.stage_build import BuiltStage, build_stage
from pchmr_export.work_folder import WorkFolder


@pytest.fixture(autouse=True)
def _own_module() -> None:
    sys.modules.pop("my_networks", None)  # another folder's


def build(folder: Path, work: WorkFolder, **changes: Any) -> BuiltStage:
    recipe = small_recipe(folder, **changes)
    network = load_custom(recipe, "generator", trust=True)
    return build_stage(recipe, "generator", work, network)


def write_onnx(path: Path, fixed: bool = False) -> None:
    """The network as a file with names of its own; one is a name that our outputs want."""
    image = TensorSpec("vertices", ("B", 3, 224, 224), "float32")
    export_graph(SmallGenerator(), [image], ["mesh", "camera"], path)
    if fixed:
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, path)


def test_module_torchscript_and_onnx_are_one_graph(tmp_path: Path, work: WorkFolder) -> None:
    torch.jit.trace(SmallGenerator().eval(), torch.zeros(1, 3, 224, 224)).save(tmp_path / "net.ts")
    write_onnx(tmp_path / "net.onnx")
    made = {
        source: build(tmp_path, work, source=source)
        for source in ("my_networks:small", "net.ts", "net.onnx")
    }
    first = made["my_networks:small"]
    data = read_npz(first.files["parity/generator.npz"])
    for source, built in made.items():
        stage = built.stage
        assert (stage.role, stage.provenance.source) == ("mesh-generator", source)
        assert [str(spec) for spec in (*stage.inputs, *stage.outputs)] == [
            "image (B, 224, 224, 3) uint8",
            "vertices (B, 6890, 3) float32",
            "cam (B, 3) float32",
        ]
        assert dict(stage.settings) == {"camera": "weak", "camera_size": 224}
        graph = built.files["stages/generator.fp32.onnx"]
        found = engine_from_onnx(graph, "onnxruntime", threads=1).run(
            {"image": data["inputs/image"]}
        )
        for name, value in found.items():
            np.testing.assert_allclose(value, data[f"outputs/{name}"], atol=1e-5)
        assert {gate.backend for gate in built.gates} == {"onnxruntime", "openvino"}


@pytest.mark.parametrize("source", ["my_networks:small", "net.ts"])
def test_code_runs_only_where_it_is_trusted(source: str, tmp_path: Path) -> None:
    (tmp_path / "net.ts").write_bytes(b"not even opened")
    recipe = small_recipe(tmp_path, source=source)
    with pytest.raises(InputError, match=r"would run the code of .*: add --trust"):
        export_recipe(recipe, tmp_path / "bundle", WorkFolder(tmp_path / "work"))
    assert "my_networks" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "my_networks:large"}, r"my_networks:large fails \(AttributeError"),
        ({"source": "no_such:small"}, r"fails \(ModuleNotFoundError"),
        ({"source": "my_networks:broken"}, r"fails \(ValueError: weights are missing\)"),
        ({"source": "my_networks:text"}, "gives a str; expected an nn.Module"),
        ({"source": "my_networks:lengthless"}, "write it without branches"),
        ({"source": "missing.onnx"}, r"there is no file .*missing\.onnx"),
        ({"source": "fixed.onnx"}, "has a fixed batch"),
        ({"source": "two.onnx"}, "expected one input and outputs for"),
        ({"source": "net.ts"}, "cannot be converted from TorchScript"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.ts").write_bytes(b"junk")
    if changes["source"] == "fixed.onnx":
        write_onnx(tmp_path / "fixed.onnx", fixed=True)
    if changes["source"] == "two.onnx":
        onnx.save(_two_inputs(), tmp_path / "two.onnx")
    with pytest.raises(InputError, match=message) as caught:
        build(tmp_path, WorkFolder(tmp_path / "work"), **changes)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "work").glob("*/stage.json"))


def _two_inputs() -> onnx.ModelProto:
    values = [onnx.helper.make_tensor_value_info(name, 1, ["B", 3]) for name in "abc"]
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "two", values[:2], values[2:]))


def test_outputs_have_the_shapes_of_their_role(tmp_path: Path, work: WorkFolder) -> None:
    outputs = build(tmp_path, work).stage.outputs
    check_vertices("r", outputs, 6890)
    with pytest.raises(InputError, match="gives 6890 vertices; the body has 13492"):
        check_vertices("r", outputs, 13492)
    wrong = [replace(outputs[1], name="betas")]
    with pytest.raises(InputError, match=r"gives betas as \('B', 3\); expected \('B', 10\)"):
        check_outputs("r", "generator", wrong, None)


def test_the_same_network_is_tried_once(tmp_path: Path, work: WorkFolder) -> None:
    first, again = build(tmp_path, work), build(tmp_path, work)
    assert first.files == again.files
    other = build(tmp_path, work, settings={"camera": "perspective"})
    assert other.files != first.files
