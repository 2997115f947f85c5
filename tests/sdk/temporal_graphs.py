"""Networks that are made late on purpose: what they give is what they would have given frames ago,
so that a bundle of them gives what a bundle without delay does, each frame's with its frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from crop_graphs import Head, MadeUp, image_graph
from crop_stages import CAMERA, SQUARE, h36m_rest, mesh_heads
from onnx import NodeProto, TensorProto, helper, numpy_helper

FEATURES = 16
GENERATOR_LATE, LIFTER_LATE = 3, 2


def encoder() -> MadeUp:
    head = Head.random(11, np.zeros(FEATURES), 1.0)
    return MadeUp("encoder", "encoder", image_graph(SQUARE.size, {"features": head}), crop=SQUARE)


def generator(late: int) -> MadeUp:
    """Features, and as its state those of the last `late` frames: pose and camera of the oldest."""
    heads = {
        name: Head.random(number, head.bias.reshape(head.shape), 0.05, FEATURES)
        for number, (name, head) in enumerate(mesh_heads().items())
    }
    inputs: dict[str, tuple[Any, ...]] = {"features": (FEATURES,)}
    if not late:
        graph = _graph(inputs, "features", [], heads, {})
        return MadeUp("generator", "mesh-generator", graph, "smpl24", settings=CAMERA)
    inputs["last"] = (late, FEATURES)
    nodes = [
        helper.make_node("Unsqueeze", ["features", "one"], ["now"]),
        helper.make_node("Concat", ["last", "now"], ["seen"], axis=1),
        helper.make_node("Slice", ["seen", "one", "end", "one"], ["last_next"]),
        helper.make_node("Gather", ["seen", "zero"], ["oldest"], axis=1),
    ]
    graph = _graph(inputs, "oldest", nodes, heads, {"last_next": (late, FEATURES)})
    settings = {**CAMERA, "look_ahead": late, "state": {"last": "last_next"}}
    return MadeUp("generator", "mesh-generator", graph, "smpl24", settings=settings)


def lifter(late: int) -> MadeUp:
    """Keypoints, or a window of them, of which the first is lifted."""
    head = Head.random(5, h36m_rest(), 0.1, 34)
    settings: dict[str, Any] = {"keypoints": "h36m17"}
    if not late:
        nodes = [helper.make_node("Flatten", ["keypoints"], ["flat"])]
        graph = _graph({"keypoints": (17, 2)}, "flat", nodes, {"joints": head}, {})
        return MadeUp("lifter", "lifter", graph, "h36m17", settings=settings)
    nodes = [
        helper.make_node("Gather", ["keypoints", "zero"], ["oldest"], axis=1),
        helper.make_node("Flatten", ["oldest"], ["flat"]),
    ]
    kept = Head((1, *head.shape), head.weight, head.bias)
    graph = _graph({"keypoints": (late + 1, 17, 2)}, "flat", nodes, {"joints": kept}, {})
    settings |= {"window": late + 1, "keep": [0, 1]}
    return MadeUp("lifter", "lifter", graph, "h36m17", settings=settings)


def _graph(
    inputs: Mapping[str, tuple[int, ...]],
    numbers: str,
    nodes: list[NodeProto],
    heads: Mapping[str, Head],
    more: Mapping[str, tuple[int, ...]],
) -> bytes:
    constants: dict[str, Any] = {
        "zero": np.int64(0),
        "one": np.array([1]),
        "end": np.array([np.iinfo(np.int64).max]),
    }
    nodes = list(nodes)
    for name, head in heads.items():
        shape = np.array([-1, *head.shape])
        constants |= {f"{name}_w": head.weight, f"{name}_b": head.bias, f"{name}_shape": shape}
        nodes += [
            helper.make_node("MatMul", [numbers, f"{name}_w"], [f"{name}_product"]),
            helper.make_node("Add", [f"{name}_product", f"{name}_b"], [f"{name}_sum"]),
            helper.make_node("Reshape", [f"{name}_sum", f"{name}_shape"], [name]),
        ]
    outputs = {**{name: head.shape for name, head in heads.items()}, **more}
    given, results = (
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape])
            for name, shape in tensors.items()
        ]
        for tensors in (inputs, outputs)
    )
    used = {name for node in nodes for name in node.input}
    weights = [
        numpy_helper.from_array(np.asarray(x), name)
        for name, x in constants.items()
        if name in used
    ]
    graph = helper.make_graph(nodes, "late", given, results, weights)
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
