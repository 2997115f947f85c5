"""The body and the calibration as ONNX give what the torch modules give."""

from pathlib import Path

import onnx
import pytest
import torch
from export_cases import example_theta

from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Parity
from pchmr_export.body_export import (
    BodyStage,
    CalibrationStage,
    export_body,
    export_calibration,
)
from pchmr_export.examples import parity_arrays, torch_outputs
from pchmr_export.gates import TOLERANCES, check, run_gates
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.networks.synthetic_body import synthetic_body
from pchmr_training.smpl import SmplLayer

SKELETON = "smpl24"


@pytest.fixture(scope="module")
def layer() -> SmplLayer:
    torch.set_num_threads(1)
    return SmplLayer(synthetic_body().body)


def run(stage: BodyStage | CalibrationStage, graph: Path, inputs: list[torch.Tensor]) -> None:
    fed = [value.detach().numpy() for value in inputs]
    named = {spec.name: value for spec, value in zip(stage.inputs, fed, strict=True)}
    data = parity_arrays(named, torch_outputs(stage, fed, stage.outputs))
    mm = Parity("mm", 1000.0, 0.0, TOLERANCES["mm"])
    gates = run_gates("stage", graph, dict.fromkeys(stage.outputs, mm), data)
    for gate in gates:
        print(gate)
    assert {gate.backend for gate in check(gates)} == {"onnxruntime", "openvino"}


@pytest.mark.slow
def test_the_body_poses_as_the_layer_does(layer: SmplLayer, tmp_path: Path) -> None:
    stage = BodyStage(layer, [SKELETON])
    file = export_body(layer, [SKELETON], tmp_path / "body.fp32.onnx")
    assert file.inputs == stage.inputs
    assert [spec.name for spec in file.outputs] == ["vertices", "joints", "joints_smpl24"]
    kept = {tensor.name for tensor in onnx.load(file.path).graph.initializer}
    assert {"v_template", "shapedirs", "posedirs", "lbs_weights", "regressor_smpl24"} <= kept
    run(stage, file.path, list(example_theta(layer)))


@pytest.mark.slow
@pytest.mark.parametrize("compensated", [False, True])
def test_the_calibration_bends_as_the_module_does(
    layer: SmplLayer, compensated: bool, tmp_path: Path
) -> None:
    options = Options(shape_compensation=compensated)
    module = CalibrationModule.from_body(layer, SKELETON, options)
    if module.shape_compensation is not None:
        torch.nn.init.normal_(module.shape_compensation.perceptron.last.weight, std=0.02)
    stage = CalibrationStage(module)
    theta = example_theta(layer, 4)
    vertices = layer(*theta).vertices
    source = layer.regress(SKELETON, vertices)
    target, confidence = source.flip(0).clone(), torch.ones(source.shape[:2])
    target[1, 5] = torch.nan
    confidence[2] = torch.linspace(0, 1, source.shape[1])
    own = [vertices, source, target, confidence]
    file = export_calibration(module, tmp_path / "calibrate.fp32.onnx")
    run(stage, file.path, own + (list(theta) if compensated else []))
    graph = onnx.load(file.path).graph
    casts = [
        attribute.i for node in graph.node for attribute in node.attribute if node.op_type == "Cast"
    ]
    assert onnx.TensorProto.DOUBLE not in (
        *casts,
        *(tensor.data_type for tensor in graph.initializer),
    )


def test_inputs_are_those_the_calibration_reads(layer: SmplLayer) -> None:
    def names(options: Options) -> list[str]:
        module = CalibrationModule.from_body(layer, SKELETON, options)
        return [spec.name for spec in CalibrationStage(module).inputs]

    own = ["vertices", "source", "target", "confidence"]
    assert names(Options(shape_compensation=False)) == own
    assert names(Options()) == [*own, "rotmats", "betas"]
    assert BodyStage(layer, []).inputs[0] == TensorSpec("rotmats", ("B", 24, 3, 3), "float32")


@pytest.mark.parametrize("options", [Options(prealign="torso"), Options(self_rotation=True)])
def test_what_has_no_operators_is_refused(
    options: Options, layer: SmplLayer, tmp_path: Path
) -> None:
    module = CalibrationModule.from_body(layer, SKELETON, options)
    with pytest.raises(InputError, match=r"calibrate.onnx: a calibration with .* cannot become"):
        export_calibration(module, tmp_path / "calibrate.onnx")


def test_a_skeleton_without_regressor_is_refused(layer: SmplLayer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="h36m17"):
        export_body(layer, ["h36m17"], tmp_path / "body.onnx")
