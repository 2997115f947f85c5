"""A float32 graph in int8 or fp8: quantise-dequantise pairs around its products, from real rows.

Weights are quantised per channel, activations per tensor, both symmetric and signed, which is what
all engines take. int8 comes from NNCF, which corrects biases, or from ONNX Runtime's own quantiser;
fp8 (E4M3), which neither makes for TensorRT, from the plain pass below.
"""

import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from pchmr_engines.errors import MissingDependency

from .half import PRODUCTS, layers, plain_weights
from .onnx_graph import drop_unused, save_graph

Rows = Mapping[str, NDArray[Any]]
FP8_LARGEST = 448.0
FP8_OPSET, FP8_IR_VERSION = 19, 9  # the first that have E4M3


def write_int8(
    source: Path, target: Path, rows: Rows, keep: Collection[str] = (), quantiser: str = "nncf"
) -> None:
    """An int8 graph. rows: input -> (N, ...), what the stage is really given.

    keep: outputs of products that stay float32, as does what only they read.
    quantiser: "nncf" (better and faster in OpenVINO) or "onnxruntime".
    Raises: MissingDependency.
    """
    check_quantiser(quantiser)
    model = plain_weights(ir.load(source))
    kept = kept_nodes(model, keep)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.onnx")
        save_graph(model, plain)
        made = (_with_nncf if quantiser == "nncf" else _with_onnxruntime)(plain, rows, kept)
    onnx.save(made, target)


def check_quantiser(name: str = "nncf") -> None:
    """Raises: MissingDependency."""
    if find_spec(name) is None:
        raise MissingDependency(name, "export", f"quantising with {name}")


def kept_nodes(model: ir.Model, keep: Collection[str]) -> list[str]:
    """Names of the nodes that stay float32: those products, and all that leads to no other."""
    lowered = {node for node in layers(model) if node.outputs[0].name not in keep}
    leads: set[ir.Node] = set()
    for node in reversed(model.graph):
        if node in lowered or any(after in leads for after in node.successors()):
            leads.add(node)
    return [node.name or "" for node in model.graph if node not in leads]


def _each(rows: Rows) -> Iterator[dict[str, NDArray[Any]]]:
    count = min(len(values) for values in rows.values())
    return ({name: values[i : i + 1] for name, values in rows.items()} for i in range(count))


def _with_nncf(path: Path, rows: Rows, kept: list[str]) -> onnx.ModelProto:
    import nncf

    nncf.set_log_level(logging.ERROR)
    given = list(_each(rows))
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # its progress bars
        made = nncf.quantize(
            onnx.load(path),
            nncf.Dataset(given),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(given),
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False) if kept else None,
        )
    return _signed(made)


def _signed(model: onnx.ModelProto) -> onnx.ModelProto:
    """uint8 with zero point 0, which TensorRT 10 does not take, as int8 of twice the step."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = {
        node.input[2]: node.input[1]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and constants[node.input[2]].data_type == onnx.TensorProto.UINT8
    }
    del model.graph.value_info[:]  # it says uint8
    for zero in steps:
        value = numpy_helper.to_array(constants[zero])
        assert not value.any()  # symmetric presets have no other
        constants[zero].CopyFrom(numpy_helper.from_array(value.astype(np.int8), zero))
    for step in set(steps.values()):
        value = numpy_helper.to_array(constants[step])
        constants[step].CopyFrom(numpy_helper.from_array(value * np.float32(255 / 127), step))
    return model


def _with_onnxruntime(path: Path, rows: Rows, kept: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = _each(rows)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._rows, None)

    target = path.with_name("quantised.onnx")
    logging.getLogger().addFilter(_no_advice)
    try:
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT has no int32 to dequantise
            },
        )
    finally:
        logging.getLogger().removeFilter(_no_advice)
    return onnx.load(target)


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


def write_fp8(source: Path, target: Path, rows: Rows, keep: Collection[str] = ()) -> None:
    """An fp8 graph: E4M3 weights and, before every product, activations rounded to E4M3."""
    model = plain_weights(ir.load(source))
    graph = model.graph
    kept = set(kept_nodes(model, keep))
    nodes = [n for n in graph if n.op_type in PRODUCTS and n.name not in kept]
    largest = _largest(source, {n.inputs[0].name or "" for n in nodes if n.inputs[0]}, rows)
    rounded: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        value, weight = node.inputs[:2]
        assert value is not None
        assert weight is not None
        if weight.const_value is None:
            continue  # a product of two activations
        if value not in rounded:
            step = np.float32(max(largest[value.name or ""], 1e-6) / FP8_LARGEST)
            rounded[value] = _rounded(graph, node, value, np.asarray(step))
        node.replace_input_with(0, rounded[value])
        node.replace_input_with(1, _fp8_weight(graph, node, weight))
    drop_unused(graph)
    model.graph.opset_imports[""] = max(graph.opset_imports[""], FP8_OPSET)
    model.ir_version = max(model.ir_version, FP8_IR_VERSION)
    save_graph(model, target)


def _largest(source: Path, names: set[str], rows: Rows) -> dict[str, float]:
    """Greatest |value| of tensors of a graph over the rows."""
    import onnxruntime

    model = onnx.load(source)
    model = onnx.shape_inference.infer_shapes(model)
    own = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner = [value for value in model.graph.value_info if value.name in names - own]
    model.graph.output.extend(inner)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = sorted(names - {value.name for value in model.graph.input})
    found = {name: float(np.abs(rows[name]).max()) for name in names & rows.keys()}
    for row in _each(rows):
        for name, value in zip(wanted, session.run(wanted, row), strict=True):
            found[name] = max(found.get(name, 0.0), float(np.abs(value).max()))
    return found


def _rounded(graph: ir.Graph, node: ir.Node, value: ir.Value, step: NDArray[Any]) -> ir.Value:
    scale = _constant(graph, f"{value.name}.scale", step)
    zero = _zero(graph, f"{value.name}.zero", ())
    quantised = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}.fp8")
    quantised.outputs[0].name = f"{value.name}.fp8"
    back = ir.node("DequantizeLinear", [*quantised.outputs, scale, zero], name=f"{value.name}.back")
    back.outputs[0].name = f"{value.name}.back"
    graph.insert_before(node, [quantised, back])
    return back.outputs[0]


def _fp8_weight(graph: ir.Graph, node: ir.Node, weight: ir.Value) -> ir.Value:
    assert weight.const_value is not None
    numbers = weight.const_value.numpy()
    transposed = node.attributes.get("transB")
    last = node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not (transposed and transposed.as_int())
    )
    axis = numbers.ndim - 1 if last else 1 if node.op_type == "ConvTranspose" else 0
    others = tuple(i for i in range(numbers.ndim) if i != axis)
    steps = (np.abs(numbers).max(others).clip(1e-12) / FP8_LARGEST).astype(np.float32)
    shape = [1] * numbers.ndim
    shape[axis] = -1
    stored = (numbers / steps.reshape(shape)).astype(ir.DataType.FLOAT8E4M3FN.numpy())
    name = f"{node.outputs[0].name}.weight"
    back = ir.node(
        "DequantizeLinear",
        [
            _constant(graph, f"{name}.fp8", stored, ir.DataType.FLOAT8E4M3FN),
            _constant(graph, f"{name}.scale", steps),
            _zero(graph, f"{name}.zero", steps.shape),
        ],
        {"axis": axis},
        name=f"{name}.back",
    )
    back.outputs[0].name = f"{name}.back"
    graph.insert_before(node, back)
    return back.outputs[0]


def _zero(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    kind = ir.DataType.FLOAT8E4M3FN
    return _constant(graph, name, np.zeros(shape, kind.numpy()), kind)


def _constant(
    graph: ir.Graph, name: str, value: NDArray[Any], dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.Value:
    tensor = ir.Tensor(value, dtype=dtype, name=name)
    made = ir.Value(
        name=name, const_value=tensor, shape=ir.Shape(value.shape), type=ir.TensorType(dtype)
    )
    graph.register_initializer(made)
    return made
