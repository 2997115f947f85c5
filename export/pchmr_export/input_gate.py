"""A gate on what a graph makes of pixels, before its first layer.

A network may hardly show another mean: PoseNet's joints move by 0.01 px where red is given green's.
"""

import tempfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.errors import InputError
from pchmr_engines.verify import Gate, greatest_difference

from .gates import installed_backends

UNIT, TOLERANCE = "of the largest", 5e-5
"""One multiply-add, to numbers of about -3..3, or of 1100 for PoseNet."""
LAST = "image.offset"
"""The constant that `ImageNormalisation` adds last."""


def input_gates(
    stage: str, graph: Path, image: NDArray[Any], expected: NDArray[Any]
) -> tuple[Gate, ...]:
    """The gate of an image's normalisation on each installed backend.

    image: (B, H, W, 3) uint8. expected: the numbers that the network takes of it.
    Raises: InputError for a graph without a normalisation of its own.
    """
    gates = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "normalisation.onnx")
        _write_first_part(graph, path, expected.shape[1:])
        for backend in installed_backends():
            engine = engine_from_onnx(path, backend, cache=False)
            off = greatest_difference(engine.run({"image": image})["normalised"], expected)
            measure = UNIT, 0.0, off / float(abs(expected).max()), TOLERANCE
            gates.append(Gate(stage, "normalised image", backend, "fp32", *measure))
    return tuple(gates)


def _write_first_part(graph: Path, target: Path, shape: tuple[int, ...]) -> None:
    """The part of a graph from its image to the sum with its offset."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(graph)
    makers = {node.output[0]: node for node in model.graph.node}
    last = next((name for name, node in makers.items() if LAST in node.input), None)
    if last is None:
        raise InputError(f"{graph.name} has no {LAST}: it does not normalise its image")
    wanted: list[str] = [last]
    kept: list[onnx.NodeProto] = []
    while wanted:
        node = makers.pop(wanted.pop(), None)
        if node is not None:
            kept.insert(0, node)
            wanted.extend(node.input)
    kept.append(helper.make_node("Identity", [last], ["normalised"]))
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    result = helper.make_tensor_value_info("normalised", TensorProto.FLOAT, ["B", *shape])
    part = helper.make_graph(kept, "normalisation", model.graph.input, [result], weights)
    options = {"opset_imports": model.opset_import, "ir_version": model.ir_version}
    onnx.save(helper.make_model(part, **options), target)
