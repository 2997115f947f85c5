"""Every network of the registry becomes one ONNX file that runs alike wherever it runs."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from seeded_stages import SHARED, SeededStage, StageOf, make_stage
from torch import Tensor, nn

import pchmr_export.onnx_graph as onnx_graph
from pchmr.prepost import normalise
from pchmr_engines import engine_from_onnx
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Provenance
from pchmr_export.image_input import ImageNormalisation
from pchmr_export.onnx_graph import CONTROL_FLOW, OPSET, export_graph
from pchmr_export.recipe import ROLES
from pchmr_export.recipe_checks import plays
from pchmr_export.stage_build import before_the_camera, read_stage, write_stage
from pchmr_export.stage_forms import network_form
from pchmr_export.work_folder import WorkFolder
from pchmr_training.networks import NETWORKS, ImageInput, get_network
from pchmr_training.networks.hmr2 import HMR2

STAGES = [(name, role) for role in ROLES for name in plays(role) if name != "hmr2"]
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
TINY = (TensorSpec("x", ("B", 4), "float32"),)
# One network of every way to take an image.
IMAGE_NETWORKS = {
    (spec.input.mean, spec.input.std, spec.input.colour, spec.input.value_range): spec.name
    for spec in NETWORKS.values()
    if isinstance(spec.input, ImageInput)
}


@pytest.mark.parametrize(("name", "role"), STAGES)
def test_backends_give_what_torch_gives(
    name: str, role: str, stage_of: StageOf, tmp_path: Path
) -> None:
    if name in SHARED:
        check_stage(stage_of(name, role))
    else:
        check_stage(make_stage(WorkFolder(tmp_path), name, role))
        shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep


def test_hmr2_of_few_blocks(tmp_path: Path) -> None:
    """All its operators in a fifth of its 2.7 GB."""

    def small() -> nn.Module:
        network = HMR2()
        network.backbone.blocks = network.backbone.blocks[:2]
        return network

    spec = replace(get_network("hmr2"), build=small, gmacs=None)
    state = {key: torch.from_numpy(value) for key, value in before_the_camera(spec).items()}
    form = network_form("generator", spec, spec.with_weights(state))
    write_stage(tmp_path, "generator", form, Provenance("", ""))
    check_stage(SeededStage(spec, "generator", read_stage(tmp_path)))


@pytest.mark.slow
def test_hmr2(stage_of: StageOf) -> None:
    """13 GB of memory."""
    check_stage(stage_of("hmr2"))


def check_stage(made: SeededStage) -> None:
    stage, graph, spec = made.stage, made.graph, made.spec
    assert {gate.backend for gate in made.built.gates} == {"onnxruntime", "openvino"}
    assert all(gate.passed for gate in made.built.gates)
    gated = {name for name, parity in graph.parity.items() if parity.value > 0}
    assert {name for name in graph.parity if not name.endswith("_next")} <= gated
    onnx.checker.check_model(str(made.path), full_check=not graph.external)
    model = onnx.load(made.path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not {node.op_type for node in model.graph.node} & CONTROL_FLOW
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and readers[node.input[0]] == 1:
            assert makers[node.input[0]] not in PRODUCTS  # into which it could be folded
    values, specs = (*model.graph.input, *model.graph.output), (*stage.inputs, *stage.outputs)
    for value, tensor in zip(values, specs, strict=True):
        dims = value.type.tensor_type.shape.dim
        shape = tuple(d.dim_param or d.dim_value for d in dims)
        assert (value.name, shape) == (tensor.name, tensor.shape)
    notes = [model.doc_string, *model.metadata_props, *model.graph.metadata_props]
    notes += [note for node in model.graph.node for note in (node.doc_string, *node.metadata_props)]
    assert not any(notes)  # the exporter's hold paths of this machine
    is_temporal = stage.settings.get("state") or stage.settings.get("window")
    if spec.gmacs is not None and not is_temporal:
        assert stage.macs is not None
        assert 0.9 < stage.macs / 1e9 / spec.gmacs < 1.02  # only what the runtime reads is computed


@pytest.mark.parametrize("name", ["spin_hmr", "semgcn_plain"])
def test_rows_do_not_depend_on_the_batch(name: str, stage_of: StageOf) -> None:
    made = stage_of(name)
    (given,) = made.stage.inputs
    rows = made.data[f"inputs/{given.name}"]
    engine = engine_from_onnx(made.path, "onnxruntime", threads=1)
    for order in ([1], [0, 1, 1]):
        found = engine.run({given.name: rows[order]})
        for output, value in found.items():
            np.testing.assert_allclose(value, made.data[f"outputs/{output}"][order], atol=1e-4)


def test_tensors_have_their_official_names(stage_of: StageOf) -> None:
    made = stage_of("spin_hmr")
    kept = {tensor.name for tensor in onnx.load(made.path).graph.initializer}
    weights = {key for key, shape in made.spec.shapes.items() if len(shape) > 1}
    assert weights - kept <= {"init_pose", "init_shape", "init_cam"}


@pytest.mark.parametrize("name", IMAGE_NETWORKS.values())
def test_the_graph_normalises_pixels_as_the_runtime_does(
    name: str, rng: np.random.Generator
) -> None:
    convention = get_network(name).input
    assert isinstance(convention, ImageInput)
    pixels = rng.integers(0, 256, (2, 5, 4, 3), np.uint8)
    expected = normalise(
        pixels,
        convention.mean,
        convention.std,
        convention.value_range,
        convention.colour,
        convention.layout,
    )
    found = ImageNormalisation(convention)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6 * np.abs(expected).max())


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, stage_of: StageOf) -> None:
    made = stage_of("semgcn_plain")
    form = made.form
    again = tmp_path / made.path.name
    export_graph(form.graph_module, form.inputs, form.outputs, again, form.graph_rename)
    assert again.read_bytes() == made.path.read_bytes()


def test_large_weights_lie_beside_the_graph(
    tmp_path: Path, stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage_of("semgcn_plain")
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 2**18)
    write_stage(tmp_path, made.role, made.form, Provenance("", ""))
    again = read_stage(tmp_path)
    (graph,) = again.stage.graphs
    (data,) = (again.files[ref.file] for ref in graph.external)
    path = again.files[graph.file]
    assert path.stat().st_size < data.stat().st_size < 2**21
    assert all(gate.passed for gate in again.gates)
    assert (again.stage.macs, again.stage.params) == (made.stage.macs, made.stage.params)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


class PythonBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(len(x), 4)


class FreeWidth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Branch(), r"tiny has control flow \(If\), .*: use torch.where"),
        (PythonBranch(), r"tiny cannot be exported \(.*data-dependent.*\): write it without"),
        (FixedBatch(), r"tiny .*len\(x\)"),
        (FreeWidth(), r"tiny gives 'y' as .*: use x.shape\[0\]"),
    ],
)
def test_what_engines_cannot_run_is_refused_in_a_line(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        export_graph(module, TINY, ["y"], tmp_path / "tiny.fp32.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_network_is_refused_in_a_line() -> None:
    with pytest.raises(InputError, match="no network is called 'spin'; did you mean spin_hmr"):
        get_network("spin")
