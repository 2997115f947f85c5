"""TensorRT for RTX builds engines of every kind of stage, on a machine without a GPU.

A build is the gate, not a parse: some operators are read and then refused.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from seeded_stages import StageOf

from pchmr_engines.backends import tensorrt
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import Graph, Precision, Provenance, Stage
from pchmr_export.body_export import export_body, export_calibration
from pchmr_export.half import write_half
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.networks.synthetic_body import synthetic_body
from pchmr_training.smpl import SmplLayer

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: no build was tested")

SKELETON = "smpl24"


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


def check_builds(graph: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """fp32 and fp16 build at batch 1, and the engine holds the weights, at most twice."""
    half = graph.with_name(f"{graph.stem}.fp16.onnx")
    write_half(graph, half, "fp16")
    single = plan_size(graph, inputs, outputs, batches=(1,))
    lower = plan_size(half, inputs, outputs, "fp16", batches=(1,))
    assert single > 0.9 * graph.stat().st_size or graph.stat().st_size < 1e6
    assert lower < 0.8 * single or single < 1e6


@pytest.mark.parametrize("name", ["detector", "landmarks", "generator", "lifter"])
def test_the_stages_of_open(name: str, open_bundle: Bundle, tmp_path: Path) -> None:
    stage = open_bundle.stage(name)
    graph = tmp_path / "stage.onnx"
    graph.write_bytes((open_bundle.root / stage.graph().file).read_bytes())
    check_builds(graph, stage.inputs, stage.outputs)


def test_a_quantised_stage(open_bundle: Bundle, tmp_path: Path) -> None:
    """INT8 as quantise-dequantise pairs, symmetric and a channel, with float biases."""
    stage = open_bundle.stage("generator")
    data = open_bundle.parity_data(stage.name)
    names = [spec.name for spec in stage.inputs]
    plain, graph = open_bundle.root / stage.graph().file, tmp_path / "stage.int8.onnx"
    feed = iter([{name: data[f"inputs/{name}"] for name in names}])

    class Examples(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return next(feed, None)

    quantize_static(
        plain,
        graph,
        Examples(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        n.op_type for n in onnx.load(graph).graph.node
    }
    lower = plan_size(graph, stage.inputs, stage.outputs, "int8", batches=(1,))
    assert lower < 0.5 * plan_size(plain, stage.inputs, stage.outputs, batches=(1,))


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spin_hmr", "videopose3d_h36m_243", "hrnet_w32_256x192"])
def test_the_stages_of_official_networks(name: str, stage_of: StageOf) -> None:
    file = stage_of(name).file
    check_builds(file.path, file.inputs, file.outputs)


@pytest.mark.slow
def test_the_body_and_the_calibration(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    layer = SmplLayer(synthetic_body().body)
    module = CalibrationModule.from_body(layer, SKELETON, Options(shape_compensation=False))
    body = export_body(layer, [SKELETON], tmp_path / "body.onnx")
    calibration = export_calibration(module, tmp_path / "calibration.onnx")
    for file in (body, calibration):
        assert plan_size(file.path, file.inputs, file.outputs) > 0
