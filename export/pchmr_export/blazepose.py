"""BlazePose's networks as stages of a bundle: graphs, what goes in and out, and their gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pchmr.assets import fetch, get_asset
from pchmr.blazepose import DETECTOR_SIZE, LANDMARK_SIZE
from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Crop, Parity, Provenance, Role, Stage

from .tflite import Output, onnx_from_tflite

if TYPE_CHECKING:
    import onnx

Variant = Literal["lite", "full", "heavy"]

_PARITY = Path(__file__).parent / "data" / "parity_blazepose.npz"

DETECTOR_OUTPUTS = {
    "Identity": Output("boxes", (2254, 12)),
    "Identity_1": Output("scores", (2254, 1)),
}
LANDMARK_OUTPUTS = {
    "Identity": Output("landmarks", (39, 5)),
    "Identity_1": Output("presence", (1,)),
    "Identity_4": Output("world", (39, 3)),
}
_HEATMAPS = {"Identity_3": Output("heatmaps", (64, 64, 39))}


@dataclass(frozen=True)
class BlazePoseNetwork:
    """One network and what a bundle says of it.

    parity: `inputs/<name>` and the original runtime's `outputs/<name>` for two real crops.
    gates: by output name, as yet without a value. The original runtime's own two sets of kernels
    differ by up to 2e-3 px in x and y, 1.1e-2 px in z (heavy) and 3e-2 mm: no tolerance can be
    below.
    """

    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    crop: Crop
    provenance: Provenance
    gates: Mapping[str, Parity]
    parity: Mapping[str, NDArray[Any]]

    def stage(self, name: str, role: Role) -> Stage:
        """What a manifest says of it, but for its graph."""
        return Stage(
            name=name,
            role=role,
            graphs=(),
            inputs=self.inputs,
            outputs=self.outputs,
            provenance=self.provenance,
            skeleton=None if role == "detector" else "blazepose33",
            crop=self.crop,
        )


def build_detector() -> BlazePoseNetwork:
    """The person detector.

    image: (B, 224, 224, 3) uint8 RGB, the whole frame letterboxed.
    boxes: (B, 2254, 12) float32, pixels of the crop about the anchor's centre: box centre, width
    and height, then 4 points. scores: (B, 2254, 1) float32, logits.

    Raises:
        AssetError: the weights cannot be fetched.
    """
    model = onnx_from_tflite(
        fetch("blazepose_detector"),
        DETECTOR_OUTPUTS,
        scale=2 / 255,
        offset=-1.0,
        name="blazepose_detector",
    )
    return _network(
        "detector",
        model,
        Crop((DETECTOR_SIZE, DETECTOR_SIZE), "rgb", "letterbox"),
        {"boxes": Parity("px", 1.0, 0.0, 0.02), "scores": Parity("logit", 1.0, 0.0, 0.01)},
    )


def build_landmark(variant: Variant = "full", heatmaps: bool = False) -> BlazePoseNetwork:
    """A landmark network: "full" comes through pip, "lite" and "heavy" through npm.

    image: (B, 256, 256, 3) uint8 RGB, the turned square about one person.
    landmarks: (B, 39, 5) float32: x, y, z in pixels of the crop, logits of visibility and presence;
    33 points and 6 auxiliary ones. presence: (B, 1) float32, probability that a person is there.
    world: (B, 39, 3) float32, metres about the middle of the hips.
    heatmaps: (B, 64, 64, 39) float32, logits; only if asked for: they take a tenth of the time of
    "full". The mask, which takes a third, is always left out.

    Raises:
        InputError: no such variant.
        AssetError: the weights cannot be fetched.
    """
    if variant not in ("lite", "full", "heavy"):
        raise InputError(f"variant is {variant!r}: expected 'lite', 'full' or 'heavy'")
    name = f"blazepose_{variant}"
    outputs = LANDMARK_OUTPUTS | (_HEATMAPS if heatmaps else {})
    return _network(
        variant,
        onnx_from_tflite(fetch(name), outputs, scale=1 / 255, name=name),
        Crop((LANDMARK_SIZE, LANDMARK_SIZE), "rgb", "roi"),
        {
            "landmarks": Parity("px", 1.0, 0.0, 0.02),
            "presence": Parity("probability", 1.0, 0.0, 1e-4),
            "world": Parity("mm", 1000.0, 0.0, 0.1),
        },
    )


def read_parity(network: str) -> dict[str, NDArray[Any]]:
    """`inputs/image` and the original runtime's `outputs/<name>` of "detector" or a variant.

    The crops (B = 2) are from the demo video: David Pagnon, Sports2D, BSD-3-Clause. The detector
    sees the middle of what the landmark networks see. Made by `blazepose_parity.py`.
    """
    with np.load(_PARITY) as stored:
        image = stored["image"]
        if network == "detector":
            image = detector_view(image)
        outputs = {
            f"outputs/{key.removeprefix(f'{network}/')}": stored[key]
            for key in stored.files
            if key.startswith(f"{network}/")
        }
    return {"inputs/image": image, **outputs}


def detector_view(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of landmark crops: (B, 256, 256, 3) to (B, 224, 224, 3)."""
    margin = (LANDMARK_SIZE - DETECTOR_SIZE) // 2
    return np.ascontiguousarray(image[:, margin:-margin, margin:-margin])


def _network(
    network: str, model: onnx.ModelProto, crop: Crop, gates: Mapping[str, Parity]
) -> BlazePoseNetwork:
    asset = get_asset(f"blazepose_{network}")
    return BlazePoseNetwork(
        model=model,
        inputs=tuple(tensor_spec(value) for value in model.graph.input),
        outputs=tuple(tensor_spec(value) for value in model.graph.output),
        crop=crop,
        provenance=Provenance(
            source=f"{asset.root}/{asset.patterns[0]} of {asset.package.requirement}",
            licence=f"{asset.licence}: {asset.credit}",
            checkpoint_sha256=asset.sha256,
            exporter={"onnx": version("onnx")},
        ),
        gates=gates,
        parity=read_parity(network),
    )


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Name, shape with a free batch, and dtype of a graph's input or output."""
    from onnx import helper

    tensor = value.type.tensor_type
    shape = (BATCH, *(dim.dim_value for dim in tensor.shape.dim[1:]))
    return TensorSpec(value.name, shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
