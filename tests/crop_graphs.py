"""Bundles of small networks over crops: graphs made by hand, and what they compute, in NumPy.

answer of a head = colours of 4 x 4 pixels of the crop @ its (48, n) matrix + bias
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.manifest import (
    BodyFile,
    Calibration,
    Crop,
    Graph,
    Manifest,
    Provenance,
    Stage,
    Topology,
)
from pchmr_engines.store import npz_bytes
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import from_dense, initial_weights

Array = NDArray[Any]
CELLS = 4
FEATURES = 3 * CELLS * CELLS
MADE_UP = Provenance("made up", "none")
FORMS: tuple[Topology, ...] = ("serial", "parallel", "template", "mesh-only")


@dataclass(frozen=True)
class Head:
    """One output of shape `shape`: features (B, F) @ weight (F, n) + bias (n,)."""

    shape: tuple[int, ...]
    weight: Array
    bias: Array

    @classmethod
    def random(cls, seed: int, bias: Array, spread: float, features: int = FEATURES) -> "Head":
        """Answers about `bias`, of its shape."""
        rng = np.random.default_rng(seed)
        weight = spread * rng.standard_normal((features, bias.size)) / np.sqrt(features)
        return cls(bias.shape, weight.astype(np.float32), bias.astype(np.float32).reshape(-1))

    def __call__(self, features: Array) -> Array:
        return (features @ self.weight + self.bias).reshape(len(features), *self.shape)


def cell_colours(image: Array) -> Array:
    """(B, 48): RGB, -1..1, in the middle of each of 4 x 4 cells of crops (B, H, W, 3)."""
    y, x = (side // CELLS for side in image.shape[1:3])
    middles = image[:, y // 2 :: y, x // 2 :: x].astype(np.float32)
    return middles.reshape(len(image), FEATURES) / np.float32(127.5) - 1


def image_graph(size: tuple[int, int], heads: Mapping[str, Head]) -> bytes:
    """ONNX: image (B, H, W, 3) uint8 -> the heads, of a crop of `size` (width, height)."""
    width, height = size
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["pixels", "starts", "ends", "axes", "steps"], ["cells"]),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("Div", ["flat", "half"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["numbers"]),
    ]
    step = np.array([height // CELLS, width // CELLS])
    constants = {
        "starts": step // 2,
        "ends": np.array([height, width]),
        "axes": np.array([1, 2]),
        "steps": step,
        "half": np.float32(127.5),
        "one": np.float32(1),
    }
    return _graph(("image", TensorProto.UINT8, (height, width, 3)), nodes, constants, heads)


def array_graph(name: str, shape: tuple[int, ...], heads: Mapping[str, Head]) -> bytes:
    """ONNX: an input (B, ...) float32, flattened -> the heads."""
    nodes = [helper.make_node("Flatten", [name], ["numbers"])]
    return _graph((name, TensorProto.FLOAT, shape), nodes, {}, heads)


def heatmap_graph(size: tuple[int, int], weight: Array) -> bytes:
    """ONNX: image -> heatmaps (B, J, H / 4, W / 4), a mixture of a cell's colours each.

    weight: (J, 3).
    """
    width, height = size
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "mix"], ["heatmaps"]),
    ]
    constants = {"mix": weight.astype(np.float32)[..., None, None] / 255}
    shape = (len(weight), height // 4, width // 4)
    outputs = {"heatmaps": shape}
    return _model(("image", TensorProto.UINT8, (height, width, 3)), nodes, constants, outputs)


def _graph(
    given: tuple[str, int, tuple[int, ...]],
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    heads: Mapping[str, Head],
) -> bytes:
    for name, head in heads.items():
        constants |= {
            f"{name}_weight": head.weight,
            f"{name}_bias": head.bias,
            f"{name}_shape": np.array([-1, *head.shape], np.int64),
        }
        nodes += [
            helper.make_node("MatMul", ["numbers", f"{name}_weight"], [f"{name}_product"]),
            helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_sum"]),
            helper.make_node("Reshape", [f"{name}_sum", f"{name}_shape"], [name]),
        ]
    return _model(given, nodes, constants, {name: head.shape for name, head in heads.items()})


def _model(
    given: tuple[str, int, tuple[int, ...]],
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    outputs: Mapping[str, tuple[int, ...]],
) -> bytes:
    name, kind, shape = given
    graph = helper.make_graph(
        nodes,
        "made_up",
        [helper.make_tensor_value_info(name, kind, ["B", *shape])],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", *size])
            for output, size in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class MadeUp:
    """A stage of a bundle and its graph. inputs and outputs are read from the graph."""

    name: str
    role: Any
    graph: bytes
    skeleton: str | None = None
    crop: Crop | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def file(self) -> str:
        return f"stages/{self.name}.onnx"

    @property
    def stage(self) -> Stage:
        graph = onnx.load_model_from_string(self.graph).graph
        return Stage(
            self.name,
            self.role,
            (Graph("fp32", self.file),),
            tuple(_spec(value) for value in graph.input),
            tuple(_spec(value) for value in graph.output),
            MADE_UP,
            self.skeleton,
            self.crop,
            settings=self.settings or {},
        )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
    return TensorSpec(
        value.name, shape, "uint8" if kind.elem_type == TensorProto.UINT8 else "float32"
    )


def make_bundle(
    folder: Path,
    stages: Sequence[MadeUp],
    body: Mapping[str, Array],
    *skeletons: str,
    topologies: tuple[Topology, ...] = FORMS,
) -> Bundle:
    """A bundle of made-up stages. skeletons: of the calibrations, weights from the skinning."""
    arrays = dict(body)
    for skeleton in skeletons:
        arrays |= calibration_arrays(body, skeleton)
    manifest = Manifest(
        "made-up",
        topologies,
        tuple(stage.stage for stage in stages),
        BodyFile("body.npz", MADE_UP),
        tuple(Calibration(name, f"{name}_", {"trained": True}) for name in skeletons),
    )
    files = {stage.file: stage.graph for stage in stages}
    return write_bundle(folder, manifest, {**files, "body.npz": npz_bytes(arrays)})


def calibration_arrays(body: Mapping[str, Array], skeleton: str) -> dict[str, Array]:
    """Initial A and A W of a skeleton whose joints the body regresses, exactly or as a subset."""
    from pchmr.bodies import body_from_arrays

    bones, known = get_skeleton(skeleton), body_from_arrays(body)
    rest = known.regressor(skeleton) @ known.v_template
    A, W = initial_weights(known.v_template, rest, known.lbs_weights, get_skeleton("smpl24"), bones)
    weights = from_dense(A, W, 4)
    parts = ("indices", "values", "offsets")
    return {f"{skeleton}_{part}": getattr(weights, part) for part in parts}
