"""Multiply-adds by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_graphs import write_graph

from pchmr_engines.errors import EngineError
from pchmr_engines.macs import count_macs


def write_node(path, node, source, weight, result):
    """A graph of one node with one weight."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(np.zeros(weight, np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("batch", [1, 4])
def test_the_tiny_graph(batch, graph):
    convolution = 2 * 6 * 6 * 3 * 3 * 3
    assert count_macs(graph, batch) == (batch * (convolution + 2 * 4), 2 * 3 * 9 + 2 + 2 * 4)


@pytest.mark.parametrize(
    ("operator", "attributes", "source", "weight", "result", "macs"),
    [
        ("Conv", {"group": 4}, ["B", 4, 5, 5], (8, 1, 3, 3), ["B", 8, 3, 3], 8 * 9 * 9),
        ("ConvTranspose", {}, ["B", 4, 5, 5], (4, 6, 2, 2), ["B", 6, 6, 6], 4 * 25 * 6 * 4),
        ("Gemm", {"transB": 1}, ["B", 7], (5, 7), ["B", 5], 35),
        ("Gemm", {"transA": 1}, [7, 3], (7, 5), [3, 5], 105),
        ("MatMul", {}, ["B", 6, 7], (7, 5), ["B", 6, 5], 210),
        ("Add", {}, ["B", 6, 7], (7,), ["B", 6, 7], 0),
    ],
)
def test_one_node(operator, attributes, source, weight, result, macs, tmp_path):
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    path = write_node(tmp_path / "one.onnx", node, source, weight, result)
    assert count_macs(path) == (macs, np.prod(weight))


def test_a_recurrent_layer_counts_every_step(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "w"], ["y"], hidden_size=3)
    path = write_node(tmp_path / "gru.onnx", node, [4, "B", 3], (1, 9, 3), [4, 1, "B", 3])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, path)
    assert count_macs(path)[0] == 4 * 2 * (27 + 27)


def test_rows_that_are_counted_in_the_graph_are_the_batch(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Squeeze", ["shape"], ["rows"]),
        helper.make_node("Range", ["zero", "rows", "one"], ["range"]),
        helper.make_node("Gather", ["x", "range"], ["same"]),
        helper.make_node("MatMul", ["same", "w"], ["y"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "w": np.zeros((7, 5), np.float32)}
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", width])
        for name, width in (("x", 7), ("y", 5))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "rows", ends[:1], ends[1:], weights)
    path = tmp_path / "rows.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    assert count_macs(path)[0] == 35


def test_a_shape_that_is_not_known_is_named(tmp_path):
    path = write_graph(tmp_path / "wide.onnx", width="W", output_width="W")
    with pytest.raises(EngineError, match=r"wide.onnx: the shapes around Conv '' are not known"):
        count_macs(path)
