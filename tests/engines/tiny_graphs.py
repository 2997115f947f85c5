"""A tiny ONNX graph, feeds for it, and what it computes, in NumPy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def write_graph(
    path: Path,
    batch: str | int = "B",
    bias: float = 0.0,
    width: str | int = 6,
    output_width: str | int = 6,
) -> Path:
    """y (B, 2, 6, 6) = conv(x (B, 3, 6, 6)) + bias; z (B, 4) = mean of y over pixels @ m + k."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((2, 3, 3, 3)).astype(np.float32),
        "b": np.full(2, bias, np.float32),
        "m": rng.standard_normal((2, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["y"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "m"], ["product"]),
        helper.make_node("Add", ["product", "k"], ["z"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", FLOAT, [batch, 3, 6, width]),
        helper.make_tensor_value_info("k", FLOAT, [batch, 4]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", FLOAT, [batch, 2, 6, output_width]),
        helper.make_tensor_value_info("z", FLOAT, [batch, 4]),
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def make_feed(batch: int, seed: int = 1) -> dict[str, np.ndarray]:
    """x (batch, 3, 6, 6), k (batch, 4), float32."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((batch, 3, 6, 6)).astype(np.float32),
        "k": rng.standard_normal((batch, 4)).astype(np.float32),
    }


def expected_outputs(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `write_graph` computes, in float64 NumPy."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    m = rng.standard_normal((2, 4)).astype(np.float32)
    padded = np.pad(feed["x"].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    y = np.einsum("bchwij,ocij->bohw", windows, w)
    return {"y": y, "z": y.mean(axis=(2, 3)) @ m + feed["k"]}
