"""BlazePose as a torch module: the same .tflite file, the same numbers as its ONNX graph.

    detector = detector_module()
    landmarks, presence, world = landmark_module("full")(image)  # (B, 256, 256, 3) uint8 RGB

The graphs come from `tflite.py`, which knows the file's padding, sparse constants and layouts; here
each of its nodes becomes a layer, so that torch's own tools (AOTInductor, fine-tuning) take it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pchmr_engines.errors import InputError

from .blazepose import Variant, build_detector, build_landmark

if TYPE_CHECKING:
    import onnx


def detector_module() -> BlazePoseModule:
    """The person detector; in and out as `build_detector` has them."""
    return BlazePoseModule(build_detector().model)


def landmark_module(variant: Variant = "full", heatmaps: bool = False) -> BlazePoseModule:
    """A landmark network; in and out as `build_landmark` has them."""
    return BlazePoseModule(build_landmark(variant, heatmaps).model)


class BlazePoseModule(nn.Module):
    """A feed-forward graph of `onnx_from_tflite`, in evaluation mode.

    outputs: names of what `forward` gives, in its order. Weights are called as in the graph, with
    "_" for what is not a letter or digit.

    Raises: InputError for an operator that those graphs do not have.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import helper, numpy_helper

        super().__init__()
        self.outputs = tuple(value.name for value in model.graph.output)
        (self.input,) = (value.name for value in model.graph.input)
        self.layers = nn.ModuleDict()
        self._constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._steps: list[tuple[str, str, list[str], dict[str, Any]]] = []
        for node in model.graph.node:
            if not hasattr(self, f"_{node.op_type.lower()}"):
                raise InputError(
                    f"{model.graph.name} has the operator {node.op_type}: expected a graph of "
                    "onnx_from_tflite"
                )
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Conv":
                self.layers[_key(node.name)] = self._layer(node.input, attributes)
            self._steps.append((node.op_type.lower(), node.name, list(node.input), attributes))
        self.eval()

    def _layer(self, inputs: Any, attributes: dict[str, Any]) -> nn.Conv2d:
        weight, bias = (torch.tensor(self._constants.pop(name)) for name in inputs[1:])
        group = attributes["group"]
        layer = nn.Conv2d(
            weight.shape[1] * group,
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            attributes["strides"],
            dilation=attributes["dilations"],
            groups=group,
        )
        layer.load_state_dict({"weight": weight, "bias": bias})
        return layer

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs of crops (B, H, W, 3) uint8 RGB."""
        values = {self.input: image}
        for operator, name, inputs, attributes in self._steps:
            given = [values.get(key) for key in inputs]
            step = getattr(self, f"_{operator}")
            values[name] = step(name, given, [self._constants.get(k) for k in inputs], attributes)
        return tuple(values[name] for name in self.outputs)

    # One method a kind of node: its name, its inputs as values and as constants, its attributes.

    def _conv(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        top, left, bottom, right = attributes["pads"]
        x = values[0]
        if any(attributes["pads"]):
            x = F.pad(x, (left, right, top, bottom))
        return self.layers[_key(name)](x)

    def _transpose(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0].permute(*attributes["perm"])

    def _cast(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0].float()

    def _mul(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0] * float(constants[1])

    def _add(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0] + (float(constants[1]) if values[1] is None else values[1])

    def _clip(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0].clamp(float(constants[1]), float(constants[2]))

    def _maxpool(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return F.max_pool2d(values[0], attributes["kernel_shape"], attributes["strides"])

    def _pad(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        low, high = constants[1].reshape(2, 4).tolist()
        ends = [side for pair in zip(low[::-1], high[::-1], strict=True) for side in pair]
        return F.pad(values[0], ends)

    def _resize(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        scale = tuple(constants[2][2:].tolist())
        return F.interpolate(values[0], scale_factor=scale, mode="bilinear", align_corners=False)

    def _depthtospace(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        """Depth first, as TensorFlow and DCR have it; torch's pixel_shuffle has it last."""
        x, block = values[0], attributes["blocksize"]
        batch, channels, height, width = x.shape
        depth = channels // block**2
        x = x.reshape(batch, block, block, depth, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, depth, height * block, width * block)

    def _sigmoid(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0].sigmoid()

    def _reshape(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return values[0].reshape(values[0].shape[0], *constants[1][1:].tolist())

    def _concat(self, name: str, values: Any, constants: Any, attributes: Any) -> Tensor:
        return torch.cat(values, attributes["axis"])


def _key(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name)
