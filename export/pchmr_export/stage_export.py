"""A network of the registry as a stage: runtime inputs in, the outputs its description names out.

checkpoint = load_checkpoint("model_checkpoint.pt")
file = export_stage(checkpoint.network, checkpoint.spec, Path("stages/spin_hmr.fp32.onnx"))
"""

from pathlib import Path

from torch import nn

from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_training.networks import FeatureInput, ImageInput, NetworkSpec

from .image_input import FromImage
from .onnx_graph import StageFile, export_graph

PRECISIONS = ("fp32",)


def export_stage(
    network: nn.Module, spec: NetworkSpec, path: Path, precision: str = "fp32"
) -> StageFile:
    """Write `network` as ONNX, opset 18, with the normalisation of an image inside.

    The tensors keep the names of the official file. The input is `stage_input(spec)`, the outputs
    are called as `spec.outputs`.

    Raises: InputError for another precision than fp32, or a network that cannot be exported.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"{spec.name} cannot be exported in {precision!r}: expected one of "
            f"{', '.join(PRECISIONS)}; engines run bf16 from the fp32 graph"
        )
    inputs = (stage_input(spec),)
    if not isinstance(spec.input, ImageInput):
        return export_graph(network, inputs, spec.outputs, path, spec.official_key)
    stage = FromImage(network, spec.input)

    def rename(key: str) -> str:
        own = key.removeprefix("network.")
        return key if own == key else spec.official_key(own)

    return export_graph(stage, inputs, spec.outputs, path, rename)


def stage_input(spec: NetworkSpec) -> TensorSpec:
    """What the stage of a network takes.

    `image` (B, H, W, 3) uint8 RGB, `keypoints` or `features` (B, ...) float32, as the network does.
    """
    if isinstance(spec.input, ImageInput):
        return TensorSpec("image", (BATCH, *spec.input.size, 3), "uint8")
    name = "features" if isinstance(spec.input, FeatureInput) else "keypoints"
    return TensorSpec(name, (BATCH, *spec.input.shape[1:]), "float32")
