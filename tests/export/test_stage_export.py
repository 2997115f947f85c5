"""Every network of the registry becomes one ONNX file that runs alike wherever it runs."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from seeded_stages import SeededStage, StageOf, make_stage
from torch import Tensor, nn

import pchmr_export.onnx_graph as onnx_graph
from pchmr.prepost import normalise
from pchmr_engines import engine_from_onnx
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.macs import count_macs
from pchmr_export.gates import check, measured, requirements, run_gates, views
from pchmr_export.image_input import ImageNormalisation
from pchmr_export.onnx_graph import CONTROL_FLOW, OPSET, StageFile, export_graph
from pchmr_export.stage_export import export_stage
from pchmr_training.networks import NETWORKS, ImageInput, get_network
from pchmr_training.networks.fixtures import seeded_network

FAST = ("posenet_r50_18j", "semgcn_nonlocal", "spin_hmr", "videopose3d_h36m_9")
SLOW = tuple(name for name in NETWORKS if name not in FAST)
UNCOUNTED = ("vibe",)  # recurrent layers are no product that `count_macs` counts
TINY = (TensorSpec("x", ("B", 4), "float32"),)
# One network of every way to take an image.
IMAGE_NETWORKS = {
    (spec.input.mean, spec.input.std, spec.input.colour, spec.input.value_range): spec.name
    for spec in NETWORKS.values()
    if isinstance(spec.input, ImageInput)
}


@pytest.mark.parametrize("name", FAST)
def test_backends_give_what_torch_gives(name: str, stage_of: StageOf) -> None:
    check_stage(stage_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_backends_give_what_torch_gives_everywhere(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # gigabytes, not to be kept
        check_stage(make_stage(name, Path(folder)))


def check_stage(stage: SeededStage) -> None:
    spec, file, data = stage.spec, stage.file, stage.data
    wanted = requirements(spec, data)
    gates = run_gates(spec.name, file.path, wanted, data, views(spec), seeded=True, threads=1)
    for gate in gates:
        print(gate)
    parity = measured(wanted, check(gates))
    assert {gate.backend for gate in gates} == {"onnxruntime", "openvino"}
    assert all(0 < gate.value <= gate.tolerance for gate in parity.values())
    check_file(file)
    if spec.gmacs is not None and spec.name not in UNCOUNTED:
        assert count_macs(file.path)[0] / 1e9 == pytest.approx(spec.gmacs, rel=0.02)


def check_file(file: StageFile) -> None:
    onnx.checker.check_model(str(file.path), full_check=not file.external)
    model = onnx.load(file.path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not {node.op_type for node in model.graph.node} & CONTROL_FLOW
    values, specs = (*model.graph.input, *model.graph.output), (*file.inputs, *file.outputs)
    for value, spec in zip(values, specs, strict=True):
        dims = value.type.tensor_type.shape.dim
        assert (value.name, tuple(d.dim_param or d.dim_value for d in dims)) == (
            spec.name,
            spec.shape,
        )
    notes = [model.doc_string, *model.metadata_props, *model.graph.metadata_props]
    notes += [note for node in model.graph.node for note in (node.doc_string, *node.metadata_props)]
    assert not any(notes)  # the exporter's hold paths of this machine


@pytest.mark.parametrize("name", ["spin_hmr", "semgcn_nonlocal"])
def test_rows_do_not_depend_on_the_batch(name: str, stage_of: StageOf) -> None:
    stage = stage_of(name)
    (given,) = stage.file.inputs
    rows = stage.data[f"inputs/{given.name}"]
    engine = engine_from_onnx(stage.file.path, "onnxruntime", threads=1)
    for order in ([1], [0, 1, 1]):
        found = engine.run({given.name: rows[order]})
        for output, value in found.items():
            np.testing.assert_allclose(value, stage.data[f"outputs/{output}"][order], atol=1e-4)


def test_norms_are_in_the_weights_and_tensors_have_their_official_names(stage_of: StageOf) -> None:
    for name in ("spin_hmr", "posenet_r50_18j", "videopose3d_h36m_9"):
        stage = stage_of(name)
        graph = onnx.load(stage.file.path).graph
        assert "BatchNormalization" not in {node.op_type for node in graph.node}
        kept = {tensor.name for tensor in graph.initializer} & stage.spec.shapes.keys()
        weights = {key for key, shape in stage.spec.shapes.items() if len(shape) > 1}
        assert weights - kept <= {"init_pose", "init_shape", "init_cam"} - kept


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
    stage = stage_of("videopose3d_h36m_9")
    network, _ = seeded_network(stage.spec)
    file = export_stage(network, stage.spec, tmp_path / stage.file.path.name)
    assert file.path.read_bytes() == stage.file.path.read_bytes()


def test_large_weights_lie_beside_the_graph(
    tmp_path: Path, stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of("videopose3d_h36m_9")
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 2**20)
    data = tmp_path / "lifter.fp32.onnx.data"
    data.write_bytes(b"of an earlier export")
    network, _ = seeded_network(stage.spec)
    file = export_stage(network, stage.spec, tmp_path / "lifter.fp32.onnx")
    assert file.external == (data,)
    assert file.path.stat().st_size < 2**16 < data.stat().st_size
    wanted = requirements(stage.spec, stage.data)
    check(run_gates("lifter", file.path, wanted, stage.data, threads=1))
    assert count_macs(file.path) == count_macs(stage.file.path)


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


def test_another_precision_or_an_unknown_network_is_refused_in_a_line(tmp_path: Path) -> None:
    spec = get_network("semgcn_plain")
    with pytest.raises(InputError, match="semgcn_plain cannot be exported in 'int4': expected"):
        export_stage(spec.build(), spec, tmp_path / "x.onnx", precision="int4")
    with pytest.raises(InputError, match="no network is called 'spin'; did you mean spin_hmr"):
        get_network("spin")
