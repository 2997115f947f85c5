"""TensorRT for RTX builds engines of every kind of stage, on a machine without a GPU.

A build is the gate, not a parse: some operators are read and then refused.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from seeded_stages import COMPOSITIONS, StageOf

from pchmr_engines.backends import tensorrt
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import Graph, Precision, Provenance, Stage
from pchmr_export.body_export import export_body, export_calibration
from pchmr_export.half import write_half
from pchmr_export.quantise import write_fp8, write_int8
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.networks.synthetic_body import synthetic_body
from pchmr_training.smpl import SmplLayer

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: no build was tested")

SKELETON = "smpl24"
OFFICIAL = COMPOSITIONS[0].split("+")
SLOW = ("videopose3d_h36m_243", "vibe", "hmmr_tf")


def plan_size(
    graph: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    precision: Precision = "fp32",
    batches: Sequence[int] = (1, 4),
) -> int:
    """Bytes of the engine that TensorRT for RTX builds of a graph."""
    stage = Stage(
        "stage",
        "lifter",
        (Graph(precision, graph.name),),
        tuple(inputs),
        tuple(outputs),
        Provenance("seeded", "CC0"),
    )
    target = tensorrt.target("tensorrt-rtx", precision)
    contents, _ = tensorrt.build(target, graph, stage, batches, b"", lambda phase, done: None)
    return len(contents[".plan"])


def check_builds(
    graph: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], folder: Path
) -> None:
    """fp32 and fp16 build at batch 1; the engine holds the weights, in fp16 in fewer bytes."""
    half = folder / "stage.fp16.onnx"
    write_half(graph, half, "fp16")
    single = plan_size(graph, inputs, outputs, batches=(1,))
    lower = plan_size(half, inputs, outputs, "fp16", batches=(1,))
    assert single > 0.9 * graph.stat().st_size or graph.stat().st_size < 1e6
    assert lower < 0.9 * single or single < 1e6


@pytest.mark.parametrize("name", ["detector", "landmarks", "generator", "lifter"])
def test_the_stages_of_open(name: str, open_bundle: Bundle, tmp_path: Path) -> None:
    stage = open_bundle.stage(name)
    graph = open_bundle.root / stage.graph().file
    check_builds(graph, stage.inputs, stage.outputs, tmp_path)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["landmarks", "lifter"])
def test_quantised_stages(
    name: str, precision: Precision, open_bundle: Bundle, tmp_path: Path
) -> None:
    stage = open_bundle.stage(name)
    data = open_bundle.parity_data(name)
    rows = {spec.name: data[f"inputs/{spec.name}"] for spec in stage.inputs}
    plain, graph = open_bundle.root / stage.graph().file, tmp_path / f"stage.{precision}.onnx"
    if precision == "int8":
        write_int8(plain, graph, rows, quantiser="onnxruntime")
    else:
        write_fp8(plain, graph, rows)
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    lower = plan_size(graph, stage.inputs, stage.outputs, precision, batches=(1,))
    if name == "lifter":  # of convolutions this version keeps kernels for other GPUs beside int8's
        assert lower < 0.7 * plan_size(plain, stage.inputs, stage.outputs, batches=(1,))


def test_what_is_refused_is_said_in_one_line(tmp_path: Path, open_bundle: Bundle) -> None:
    stage = open_bundle.stage("lifter")
    plain = open_bundle.root / stage.graph().file
    model = onnx.load(plain)
    model.graph.node[-1].op_type = "Erff"
    onnx.save(model, tmp_path / "unknown.onnx")
    with pytest.raises(
        EngineError, match=r"tensorrt-rtx .* cannot read .*unknown.onnx: .*Erff"
    ) as e:
        plan_size(tmp_path / "unknown.onnx", stage.inputs, stage.outputs)
    assert "\n" not in str(e.value)
    with pytest.raises(EngineError, match=r"TensorRT finds the outputs .*; the bundle says \{'joi"):
        plan_size(plain, stage.inputs, stage.outputs[:1])


@pytest.mark.parametrize(
    "name", [*OFFICIAL, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_stages_of_official_networks(name: str, stage_of: StageOf, tmp_path: Path) -> None:
    """Those of a clip a frame at a time, with their state as inputs and outputs."""
    made = stage_of(name)
    check_builds(made.path, made.stage.inputs, made.stage.outputs, tmp_path)


@pytest.mark.slow
def test_the_body_and_the_calibration(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    layer = SmplLayer(synthetic_body().body)
    module = CalibrationModule.from_body(layer, SKELETON, Options(shape_compensation=False))
    body = export_body(layer, [SKELETON], tmp_path / "body.onnx")
    calibration = export_calibration(module, tmp_path / "calibration.onnx")
    for file in (body, calibration):
        assert plan_size(file.path, file.inputs, file.outputs) > 0
