"""A float32 graph in float16 or bfloat16: casts inside, float32 at the edges.

What lies between the first and the last product of a network is lowered; the normalisation of an
image before it and the arithmetic behind it (rotations of 6D, soft-argmax) stay float32, and so do
operators that need its range. It is done on the graph, not in torch, because then one pass serves
modules, .tflite files and foreign ONNX alike, and can leave out single layers.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from pchmr_engines.errors import InputError

from .onnx_graph import drop_unused, save_graph

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PLAIN = PRODUCTS | {
    *("Add", "Sub", "Mul", "Clip", "Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid"),
    *("AveragePool", "GlobalAveragePool", "Resize", "Where"),
}
"""Lowered wherever they stand between products."""
CARRIED = frozenset(
    {
        *("MaxPool", "Reshape", "Transpose", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze"),
        *("Flatten", "Expand", "Gather", "Pad", "DepthToSpace", "SpaceToDepth", "Tile", "Identity"),
    }
)
"""They compute nothing: lowered where what they are given is."""
DTYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
OPSETS = {"fp16": 18, "bf16": 22}  # the first with convolutions of that type
LARGEST = {"fp16": 65504.0, "bf16": float("inf")}
FLOAT_INPUTS = {"Resize": (0,)}  # its scales stay float32


def last_products(model: ir.Model, levels: int) -> frozenset[str]:
    """Outputs of the convolutions and matrix products with fewer than `levels` more behind them."""
    behind = _products_behind(model)
    return frozenset(node.outputs[0].name or "" for node, n in behind.items() if n < levels)


def depth(model: ir.Model) -> int:
    """Products on the longest way through a model."""
    return 1 + max(_products_behind(model).values(), default=-1)


def _products_behind(model: ir.Model) -> dict[ir.Node, int]:
    """Product -> how many more are on the longest way from it to an output."""
    made = layers(model)
    behind: dict[ir.Node, int] = {}
    for node in reversed(model.graph):
        behind[node] = max((behind[s] + (s in made) for s in node.successors()), default=0)
    return {node: count for node, count in behind.items() if node in made}


def layers(model: ir.Model) -> set[ir.Node]:
    """The convolutions and matrix products that are layers of the network.

    One that ends a soft-argmax, the mean of places by a softmax, is arithmetic.
    """
    found: set[ir.Node] = set()
    leads: set[ir.Node] = set()  # to a layer
    for node in reversed(model.graph):
        before = any(after in leads for after in node.successors())
        if node.op_type in PRODUCTS and (before or not _weighs_by_softmax(node)):
            found.add(node)
        if before or node in found:
            leads.add(node)
    return found


def _weighs_by_softmax(node: ir.Node) -> bool:
    makers = [maker for value in node.inputs if value is not None and (maker := value.producer())]
    return any(
        maker.op_type == "Softmax" or (maker.op_type in CARRIED and _weighs_by_softmax(maker))
        for maker in makers
    )


def plain_weights(model: ir.Model) -> ir.Model:
    """The model, changed in place, with weights that are stored in float16 as float32 ones."""
    graph = model.graph
    for node in list(graph):
        stored = node.inputs[0] if node.op_type == "Cast" else None
        if stored is None or not stored.is_initializer() or stored.const_value is None:
            continue
        made = node.outputs[0]
        numbers = stored.const_value.numpy().astype(np.float32)
        twin = ir.Value(name=f"{made.name}.float", const_value=ir.tensor(numbers))
        twin.dtype, twin.shape = ir.DataType.FLOAT, ir.Shape(numbers.shape)
        graph.register_initializer(twin)
        made.replace_all_uses_with(twin)
        graph.remove(node, safe=True)
        if not stored.uses():
            del graph.initializers[stored.name or ""]
    return model


def lowered(model: ir.Model, precision: str, keep: Collection[str] = ()) -> ir.Model:
    """The model, changed in place, in "fp16" or "bf16".

    keep: outputs of products (see `last_products`) that stay float32, as does what only they read.
    Raises: InputError for another precision.
    """
    if precision not in DTYPES:
        raise InputError(f"precision {precision!r}: expected one of {', '.join(DTYPES)}")
    ShapeInferencePass(check_type=False, data_prop=False)(model)
    _Lowering(model, precision, keep).run()
    model.graph.opset_imports[""] = max(model.graph.opset_imports[""], OPSETS[precision])
    return model


class _Lowering:
    """Values of the graph are float32; `low` holds the twin of those that were lowered."""

    def __init__(self, model: ir.Model, precision: str, keep: Collection[str]) -> None:
        graph = model.graph
        self.graph, self.dtype = graph, DTYPES[precision]
        self.layers = {n for n in layers(model) if n.outputs[0].name not in keep}
        self.largest = LARGEST[precision]
        self.low: dict[ir.Value, ir.Value] = {}
        self.made: set[ir.Value] = set()  # outputs of lowered nodes
        self.full: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        nodes = list(self.graph)
        inside = self._between_products(nodes)
        for node in nodes:
            if node in inside and self._goes_low(node):
                self._lower(node)
            else:
                self._raise_inputs(node)
        for index, value in enumerate(self.graph.outputs):
            if value in self.made:
                self._float_output(index, value)
        drop_unused(self.graph)

    def _between_products(self, nodes: list[ir.Node]) -> set[ir.Node]:
        """Nodes with a lowered product before and behind them, or which are one."""
        after: set[ir.Node] = set()
        for node in nodes:
            if node in self.layers or any(p in after for p in node.predecessors()):
                after.add(node)
        before: set[ir.Node] = set()
        for node in reversed(nodes):
            if node in self.layers or any(s in before for s in node.successors()):
                before.add(node)
        return after & before

    def _goes_low(self, node: ir.Node) -> bool:
        if node.op_type in PRODUCTS and node not in self.layers:
            return False
        floats = self._floats(node)
        if node.op_type in CARRIED:
            return any(value in self.made for value in floats)
        if node.op_type not in PLAIN or not floats:
            return False
        constants = (v.const_value for v in floats if v.const_value is not None)
        return all(np.abs(c.numpy()).max(initial=0) <= self.largest for c in constants)

    def _floats(self, node: ir.Node) -> list[ir.Value]:
        places = FLOAT_INPUTS.get(node.op_type, range(len(node.inputs)))
        values = (node.inputs[i] for i in places)
        return [v for v in values if v is not None and self._is_float(v)]

    def _is_float(self, value: ir.Value) -> bool:
        return value in self.made or value.dtype == ir.DataType.FLOAT

    def _lower(self, node: ir.Node) -> None:
        floats = set(self._floats(node))
        places = FLOAT_INPUTS.get(node.op_type, range(len(node.inputs)))
        for i in places:
            value = node.inputs[i]
            if value in floats and value not in self.made:
                assert value is not None
                node.replace_input_with(i, self._low(value))
        for value in node.outputs:
            value.dtype = self.dtype
            self.made.add(value)

    def _raise_inputs(self, node: ir.Node) -> None:
        for i, value in enumerate(node.inputs):
            if value in self.made:
                assert value is not None
                if value not in self.full:
                    self.full[value] = self._cast(value, ir.DataType.FLOAT)
                node.replace_input_with(i, self.full[value])

    def _low(self, value: ir.Value) -> ir.Value:
        if value not in self.low:
            constant = value.const_value
            if constant is not None and value.is_initializer():
                numbers = constant.numpy().astype(self.dtype.numpy())
                twin = ir.Value(name=f"{value.name}.{self._suffix}", const_value=ir.tensor(numbers))
                twin.dtype, twin.shape = self.dtype, ir.Shape(numbers.shape)
                self.graph.register_initializer(twin)
                self.low[value] = twin
            else:
                self.low[value] = self._cast(value, self.dtype)
        return self.low[value]

    @property
    def _suffix(self) -> str:
        return self.dtype.name.lower()

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str | None = None) -> ir.Value:
        """A cast of a value, right behind what makes it."""
        name = name or f"{value.name}.{dtype.name.lower()}"
        cast = ir.node("Cast", [value], {"to": int(dtype)}, name=name)
        made = cast.outputs[0]
        made.name, made.dtype, made.shape = name, dtype, value.shape
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], cast)
        else:
            self.graph.insert_after(producer, cast)
        return made

    def _float_output(self, index: int, value: ir.Value) -> None:
        """The output keeps its name and becomes the float32 of what was lowered."""
        name = value.name
        value.name = f"{name}.{self._suffix}"
        self.graph.outputs[index] = self._cast(value, ir.DataType.FLOAT, name)


def rounding(model: ir.Model) -> ir.Model:
    """A lowered or quantised model, changed in place, that ONNX Runtime's CPU rounds as well.

    There it computes fp16 in float32 and drops the casts between two operators, and it fails to
    fuse a clip with fp8; it does not see through a concatenation of one.
    """
    quantised = {node.inputs[0] for node in model.graph if node.op_type == "QuantizeLinear"}
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT16 or value in quantised:
                stop = ir.node("Concat", [value], {"axis": 0}, name=f"{value.name}.rounded")
                rounded = stop.outputs[0]
                rounded.name, rounded.type, rounded.shape = stop.name, value.type, value.shape
                for use in value.uses():
                    if use.node is not stop:
                        use.node.replace_input_with(use.idx, rounded)
                model.graph.insert_after(node, stop)
    return model


def write_half(
    source: Path, target: Path, precision: str, keep: Collection[str] = ()
) -> tuple[Path, ...]:
    """`lowered` from file to file; gives the file of the weights where they exceed 2 GB."""
    return save_graph(lowered(plain_weights(ir.load(source)), precision, keep), target)
