"""The body and the calibration as graphs of plain operators, for runtimes other than ours.

export_body(layer, ["h36m17"], Path("stages/body.fp32.onnx"))
export_calibration(module, Path("stages/calibrate.fp32.onnx"))
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_training.calibration import CalibrationModule
from pchmr_training.smpl import SmplLayer

from .onnx_graph import StageFile, export_graph


class BodyStage(nn.Module):
    """A body with the regressors of some skeletons.

    skeletons: names of joint sets that the body has a regressor for.
    """

    def __init__(self, layer: SmplLayer, skeletons: Sequence[str]) -> None:
        super().__init__()
        self.layer, self.skeletons = layer, tuple(skeletons)
        for name in skeletons:
            regressor = torch.from_numpy(layer.body.regressor(name)).to(layer.v_template)
            self.register_buffer(f"regressor_{name}", regressor)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return theta_inputs(self.layer)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("vertices", "joints", *(f"joints_{name}" for name in self.skeletons))

    def forward(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, ...]:
        vertices, joints, _ = self.layer(rotmats, betas)
        regressors = (self.get_buffer(f"regressor_{name}") for name in self.skeletons)
        return (vertices, joints, *(regressor @ vertices for regressor in regressors))


class CalibrationStage(nn.Module):
    """The calibration; `rotmats` and `betas` are inputs only where its perceptrons read them."""

    outputs = ("calibrated",)

    def __init__(self, module: CalibrationModule) -> None:
        super().__init__()
        self.module = module

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        vertices, joints = len(self.module.support), len(self.module.skeleton)
        shapes = {
            "vertices": (vertices, 3),
            "source": (joints, 3),
            "target": (joints, 3),
            "confidence": (joints,),
        }
        own = tuple(TensorSpec(key, (BATCH, *s), "float32") for key, s in shapes.items())
        perceptron = self.module.shape_compensation
        return own + (theta_inputs(perceptron.layer) if perceptron is not None else ())

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)


def theta_inputs(layer: SmplLayer) -> tuple[TensorSpec, ...]:
    """`rotmats` (B, J, 3, 3) and `betas` (B, num_betas) of a body, float32."""
    shapes = {"rotmats": (len(layer.parents), 3, 3), "betas": (layer.body.num_betas,)}
    return tuple(TensorSpec(key, (BATCH, *shape), "float32") for key, shape in shapes.items())


def export_body(layer: SmplLayer, skeletons: Sequence[str], path: Path) -> StageFile:
    """Write a body and its regressors as ONNX.

    Takes `theta_inputs(layer)`, gives `vertices` (B, V, 3), `joints` (B, J, 3), the kinematic ones,
    and `joints_<skeleton>` (B, N, 3), regressed from the posed mesh; metres.

    Raises: InputError when the body has no regressor for a skeleton.
    """
    stage = BodyStage(layer, skeletons)
    return export_graph(
        stage, stage.inputs, stage.outputs, path, lambda key: key.removeprefix("layer.")
    )


def export_calibration(module: CalibrationModule, path: Path) -> StageFile:
    """Write a calibration as ONNX, in float32 throughout.

    Takes `vertices` (B, V, 3), `source`, `target` (B, J, 3) and `confidence` (B, J), with shape
    compensation also `theta_inputs` of its body; gives `calibrated` (B, V, 3), metres.

    Raises: InputError where the module fits a torso, which takes an SVD, or turns bones about
    themselves, whose graph ends OpenVINO 2026.4 with a segmentation fault on one thread.
    """
    check_exportable(module, path.name)
    stage = CalibrationStage(module)
    return export_graph(
        stage, stage.inputs, stage.outputs, path, lambda key: key.removeprefix("module.")
    )


def check_exportable(module: CalibrationModule, where: str) -> None:
    """Raises: InputError as `export_calibration` says."""
    if module.options.prealign != "none" or module.self_rotation is not None:
        raise InputError(
            f"{where}: a calibration with prealign='torso' or self-rotation cannot become ONNX: "
            "switch them off in Options, or leave the calibration to the runtime's kernels"
        )
