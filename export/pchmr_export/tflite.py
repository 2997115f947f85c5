"""Converts image networks from .tflite to ONNX: any batch, uint8 images in, channels first inside.

No maintained converter reads the sparse constants and explicit padding of BlazePose. This one knows
the twelve operators of `tflite_file.py` and refuses the rest by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from .tflite_file import Graph, Operator, read_tflite

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_IR_VERSION = 8  # the oldest with that opset, for runtimes of its time
_CHANNELS_FIRST = (0, 3, 1, 2)
_CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Output:
    """What an output of the file is called in ONNX, and its shape behind the batch."""

    name: str
    shape: tuple[int, ...]


def onnx_from_tflite(
    path: Path,
    outputs: Mapping[str, Output] | None = None,
    scale: float = 1 / 255,
    offset: float = 0.0,
    name: str = "network",
) -> onnx.ModelProto:
    """The network as ONNX with input `image`: (B, H, W, 3) uint8, B free.

    The network gets `image * scale + offset`. `outputs` maps the file's output names to those
    wanted; what only the others need is left out. By default all are kept as they are.

    Raises:
        InputError: a damaged file, an operator that is not read, or an output that is not there.
    """
    graph = read_tflite(path)
    came = {graph.tensors[index].name: index for index in graph.outputs}
    if outputs is None:
        outputs = {key: Output(key, graph.tensors[index].shape[1:]) for key, index in came.items()}
    missing = sorted(set(outputs) - set(came))
    if missing:
        raise InputError(f"{path} has no output {missing}: expected some of {sorted(came)}")
    converter = _Converter(graph, path)
    converter.uses.update(output.name for output in outputs.values())
    converter.read_image(scale, offset)
    for operator in _needed(graph, [came[key] for key in outputs]):
        getattr(converter, operator.name.lower())(operator)
    for key, output in outputs.items():
        converter.write_output(came[key], output)
    return converter.model(name)


def _needed(graph: Graph, outputs: Sequence[int]) -> list[Operator]:
    """The operators that these outputs depend on, in the file's order."""
    wanted = set(outputs)
    kept = []
    for operator in reversed(graph.operators):
        if wanted.intersection(operator.outputs):
            wanted.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]


def _same_padding(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    """TensorFlow's SAME as (top, left, bottom, right): the odd pixel goes to the bottom right."""
    out = [-(-n // stride) for n, stride in zip(size, strides, strict=True)]
    total = [
        max((o - 1) * stride + w - n, 0)
        for o, stride, w, n in zip(out, strides, window, size, strict=True)
    ]
    return (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)


class _Converter:
    """Collects ONNX nodes. There is a method for each operator of a .tflite file, by its name."""

    def __init__(self, graph: Graph, path: Path) -> None:
        self.graph = graph
        self.path = path
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.values: dict[int, str] = {}  # tensor -> name of its value, channels first
        self.folded: dict[int, NDArray[Any]] = {}  # tensor -> constant behind DEQUANTIZE, DENSIFY
        self.pads: dict[int, tuple[int, NDArray[Any]]] = {}  # padded tensor -> tensor, (4, 2)
        self.uses: Counter[str] = Counter()

    def read_image(self, scale: float, offset: float) -> None:
        from onnx import TensorProto, helper

        (index,) = self.graph.inputs
        dims: list[str | int | None] = ["batch", *self.shape(index)[1:]]
        self.inputs.append(helper.make_tensor_value_info("image", TensorProto.UINT8, dims))
        # TensorRT reads uint8 in no other way than by a cast.
        value = self.emit("Cast", ["image"], "image/float", to=TensorProto.FLOAT)
        value = self.emit("Transpose", [value], "image/channels_first", perm=_CHANNELS_FIRST)
        value = self.emit("Mul", [value, self.constant("image/scale", scale)], "image/scaled")
        if offset:
            shift = self.constant("image/offset", offset)
            value = self.emit("Add", [value, shift], "image/normalised")
        self.values[index] = value

    def write_output(self, index: int, output: Output) -> None:
        from onnx import TensorProto, helper

        target = self.constant(f"{output.name}/shape", (0, *output.shape), np.int64)
        self.emit("Reshape", [self.channels_last(index), target], output.name)
        dims: list[str | int | None] = ["batch", *output.shape]
        self.outputs.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, dims))

    def model(self, name: str) -> onnx.ModelProto:
        import onnx
        from onnx import helper, numpy_helper

        weights = [numpy_helper.from_array(value, key) for key, value in self.constants.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, name, self.inputs, self.outputs, weights),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="pchmr",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def dequantize(self, operator: Operator) -> None:
        values = self.fixed(operator.inputs[0])
        if values.dtype != np.float16:
            raise self.unsupported(f"DEQUANTIZE of {values.dtype} numbers")
        self.folded[operator.outputs[0]] = values.astype(np.float32)

    def densify(self, operator: Operator) -> None:
        self.folded[operator.outputs[0]] = self.fixed(operator.inputs[0])

    def conv_2d(self, operator: Operator) -> None:
        weight = self.fixed(operator.inputs[1])
        self.convolution(operator, weight.transpose(_CHANNELS_FIRST), groups=1)

    def depthwise_conv_2d(self, operator: Operator) -> None:
        if operator.options["multiplier"] != 1:
            raise self.unsupported(f"{operator.name}, multiplier {operator.options['multiplier']}")
        weight = self.fixed(operator.inputs[1])
        self.convolution(operator, weight.transpose(3, 0, 1, 2), groups=weight.shape[3])

    def convolution(self, operator: Operator, weight: NDArray[Any], groups: int) -> None:
        """`weight`: (out, in / groups, height, width)."""
        options, (index, _, bias) = operator.options, operator.inputs
        dilations = (options["dilation_h"], options["dilation_w"])
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
        value, strides, pads = self.window(index, operator, reach)
        name = self.new_name(operator)
        self.emit_activated(
            operator,
            "Conv",
            [
                value,
                self.constant(f"{name}/weight", weight),
                self.constant(f"{name}/bias", self.fixed(bias)),
            ],
            name,
            group=groups,
            dilations=dilations,
            strides=strides,
            pads=pads,
        )

    def max_pool_2d(self, operator: Operator) -> None:
        kernel = (operator.options["filter_h"], operator.options["filter_w"])
        value, strides, pads = self.window(operator.inputs[0], operator, kernel)
        if any(pads):  # padded zeros would take part in the maximum
            raise self.unsupported("MAX_POOL_2D with padding")
        name = self.new_name(operator)
        self.emit_activated(
            operator, "MaxPool", [value], name, kernel_shape=kernel, strides=strides
        )

    def window(
        self, index: int, operator: Operator, reach: Sequence[int]
    ) -> tuple[str, tuple[int, int], tuple[int, ...]]:
        """What a sliding window reads: the value, its strides, and (top, left, bottom, right)."""
        strides = (operator.options["stride_h"], operator.options["stride_w"])
        if operator.options["padding"] == 0:
            return self.value(index), strides, _same_padding(self.shape(index)[1:3], reach, strides)
        if index in self.pads:
            source, ((_, _), (top, bottom), (left, right), channels) = self.pads[index]
            if not channels.any():
                return self.value(source), strides, (int(top), int(left), int(bottom), int(right))
        return self.value(index), strides, (0, 0, 0, 0)

    def pad(self, operator: Operator) -> None:
        """Kept for the reader of the result: a convolution pads by itself."""
        source, paddings = operator.inputs
        self.pads[operator.outputs[0]] = (source, self.fixed(paddings))

    def add(self, operator: Operator) -> None:
        first, second = operator.inputs
        if self.shape(first) != self.shape(second):
            raise self.unsupported(f"ADD of shapes {self.shape(first)} and {self.shape(second)}")
        values = [self.value(first), self.value(second)]
        self.emit_activated(operator, "Add", values, self.new_name(operator))

    def logistic(self, operator: Operator) -> None:
        self.emit("Sigmoid", [self.value(operator.inputs[0])], self.new_name(operator))

    def depth_to_space(self, operator: Operator) -> None:
        value, block = self.value(operator.inputs[0]), operator.options["block"]
        name = self.new_name(operator)
        self.emit("DepthToSpace", [value], name, blocksize=block, mode="DCR")

    def resize_bilinear(self, operator: Operator) -> None:
        if operator.options["align_corners"] or not operator.options["half_pixel"]:
            raise self.unsupported("RESIZE_BILINEAR without half-pixel centres")
        index, name = operator.inputs[0], self.new_name(operator)
        _, height, width, _ = self.shape(index)
        _, to_height, to_width, _ = self.shape(operator.outputs[0])
        scales = self.constant(f"{name}/scales", (1, 1, to_height / height, to_width / width))
        self.emit(
            "Resize",
            [self.value(index), "", scales],
            name,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def reshape(self, operator: Operator) -> None:
        """The file's batch of one becomes whatever batch comes in."""
        index, shape = operator.inputs[0], self.shape(operator.outputs[0])
        if shape[0] != self.shape(index)[0]:
            raise self.unsupported(f"RESHAPE of {self.shape(index)} to {shape}, across the batch")
        name = self.new_name(operator)
        target = self.constant(f"{name}/shape", (0, *shape[1:]), np.int64)
        self.emit("Reshape", [self.channels_last(index), target], name)

    def concatenation(self, operator: Operator) -> None:
        axis = operator.options["axis"] % len(self.shape(operator.outputs[0]))
        if len(self.shape(operator.outputs[0])) == 4:
            axis = _CHANNELS_FIRST.index(axis)
        values = [self.value(index) for index in operator.inputs]
        self.emit_activated(operator, "Concat", values, self.new_name(operator), axis=axis)

    def emit(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Appends a node whose one output has the node's name."""
        from onnx import helper

        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def emit_activated(
        self, operator: Operator, op_type: str, inputs: Sequence[str], name: str, **attributes: Any
    ) -> None:
        """Appends a node and the operator's fused activation; the last has the name."""
        activation = operator.options["activation"]
        if activation == 0:
            self.emit(op_type, inputs, name, **attributes)
        elif activation == 3:
            linear = self.emit(op_type, inputs, f"{name}/linear", **attributes)
            bounds = [self.constant("relu6/low", 0), self.constant("relu6/high", 6)]
            self.emit("Clip", [linear, *bounds], name)
        else:
            raise self.unsupported(f"{operator.name} with fused activation number {activation}")

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        self.constants[name] = np.array(value, dtype, order="C")
        return name

    def new_name(self, operator: Operator) -> str:
        """A unique name for the operator's output: the first of those that were fused into it."""
        (index,) = operator.outputs
        name = self.graph.tensors[index].name.split(";")[0].removeprefix("model_1/model/")
        self.uses[name] += 1
        self.values[index] = name if self.uses[name] == 1 else f"{name}/{self.uses[name]}"
        return self.values[index]

    def value(self, index: int) -> str:
        """The name of a tensor's value, channels first."""
        if index not in self.values and index in self.pads:
            source, paddings = self.pads[index]
            name = f"{self.value(source)}/padded_{index}"
            pads = paddings[list(_CHANNELS_FIRST)].T.ravel()
            counts = self.constant(f"{name}/pads", pads, np.int64)
            self.values[index] = self.emit("Pad", [self.value(source), counts], name)
        if index not in self.values:
            raise self.unsupported(f"the constant {self.graph.tensors[index].name!r} as a value")
        return self.values[index]

    def channels_last(self, index: int) -> str:
        """The name of a tensor's value, its numbers in the file's order."""
        shape, value = self.shape(index), self.value(index)
        if len(shape) != 4 or shape[1] == shape[2] == 1:
            return value
        return self.emit("Transpose", [value], f"{value}/channels_last", perm=_CHANNELS_LAST)

    def fixed(self, index: int) -> NDArray[Any]:
        """A constant's value."""
        data = self.folded.get(index, self.graph.tensors[index].data)
        if data is None:
            raise self.unsupported(f"{self.graph.tensors[index].name!r} as a constant")
        return data

    def shape(self, index: int) -> tuple[int, ...]:
        return self.graph.tensors[index].shape

    def unsupported(self, what: str) -> InputError:
        return InputError(f"{self.path} needs {what}, which is not read")
