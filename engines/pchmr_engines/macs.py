"""Multiply-adds and parameters of an ONNX graph: an export-time helper, needs the package onnx."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from .errors import EngineError, MissingDependency

LARGE = 1024
"""Bytes of a tensor that is no shape, index or axis."""


def count_macs(path: str | Path, batch: int = 1) -> tuple[int, int]:
    """(multiply-adds, parameters) of a graph at one batch.

    Counts convolutions, matrix products and GRUs, which is what papers count; additions,
    activations and resizing are left out. Raises: EngineError when a shape cannot be inferred.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", "open", "counting multiply-adds") from error
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > LARGE:  # weights count by their shapes, and are slow to pass on
            tensor.ClearField("raw_data")
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    del model.graph.value_info[:]  # they name the free batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        # Indices that count the rows lose the batch, which then is the one unknown dimension.
        shapes[value.name] = [batch, *shape[1:]] if shape[:1] == [0] else shape
    macs = sum(_node_macs(node, shapes, str(path)) for node in graph.node)
    return macs, sum(prod(tensor.dims) for tensor in graph.initializer)


def _node_macs(node: Any, shapes: dict[str, list[int]], where: str) -> int:
    """Output elements x products a element, or for a transposed convolution the mirror of it."""
    if node.op_type == "GRU":
        source, weight, recurrent = (shapes.get(name) for name in node.input[:3])
        if not source or not weight or not recurrent or 0 in (*source[:2], *weight, *recurrent):
            raise EngineError(f"{where}: the shapes around GRU {node.name!r} are not known")
        return prod(source[:2]) * (prod(weight) + prod(recurrent))
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    source, weight, result = (shapes.get(n) for n in (*node.input[:2], node.output[0]))
    if not source or not weight or not result or 0 in (*source, *weight, *result):
        raise EngineError(f"{where}: the shapes around {node.op_type} {node.name!r} are not known")
    if node.op_type == "ConvTranspose":
        return prod(source) * prod(weight[1:])
    if node.op_type == "Conv":
        return prod(result) * prod(weight[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(result) * (source[0] if transposed else source[-1])
