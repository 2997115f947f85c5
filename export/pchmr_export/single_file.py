"""A whole serial or parallel computation as one ONNX file of plain operators, for other runtimes.

    export_single_file(recipe, "serial", Path("serial.onnx"), (1920, 1080))

Takes crops of people and how they lie in the frame, gives their meshes before the frame's camera:
finding people and cutting crops stay with the host. Networks of single frames only.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.verify import Gate
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import ImageInput
from pchmr_training.pchmr import ParallelPCHMR, SerialPCHMR
from pchmr_training.pose_streams import (
    NetworkLifter,
    NetworkPose2D,
    NetworkPose3D,
    NetworkPoseStream,
)
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import Crop, View

from .composition import TOLERANCE_MM, calibration_of
from .examples import image_examples, parity_arrays
from .gates import check, requirements_mm, run_gates
from .image_input import ImageNormalisation
from .onnx_graph import StageFile, export_graph
from .recipe import Recipe
from .recipe_body import make_body
from .stage_build import load_network

AFFINES = ((1.5, 0.0, 300.0), (0.0, 1.5, 100.0)), ((1.0, 0.0, 9.0), (0.0, 1.0, 50.0))
"""Of the two rows of examples."""
OUTPUTS = ("vertices", "calibrated", "translation")


class WholeForm(nn.Module):
    """image, affine, and of a pose stream pose_image, pose_affine -> `OUTPUTS`."""

    def __init__(
        self,
        module: nn.Module,
        conventions: tuple[ImageInput, ...],
        size: tuple[int, int],
        focal_px: float | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.images = nn.ModuleList(ImageNormalisation(rule) for rule in conventions)
        self._size, self._focal_px = size, focal_px

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        crops = [
            Crop(normalise(image), affine)
            for normalise, image, affine in zip(self.images, inputs[::2], inputs[1::2], strict=True)
        ]
        view = View(crops[0], self._size, pose_crop=crops[-1], focal_px=self._focal_px)
        result = self.module(view)
        return result.mesh.vertices, result.vertices, result.mesh.translation


def export_single_file(
    recipe: Recipe,
    topology: str,
    path: Path,
    size: tuple[int, int],
    focal_px: float | None = None,
) -> tuple[StageFile, tuple[Gate, ...]]:
    """Write serial or parallel PC-HMR of a recipe of registered networks, and gate it.

    size: (width, height) of the full frames. focal_px: of their camera, by default the diagonal.
    Takes `image` (B, H, W, 3) uint8 RGB and `affine` (B, 2, 3), the crop's pixels to the frame's;
    in parallel also `pose_image` and `pose_affine`. Gives `vertices` and `calibrated` (B, V, 3)
    about the mesh's own origin and `translation` (B, 3), metres.

    Raises: InputError for a temporal or custom network; GateFailed.
    """
    form, conventions = _form(recipe, topology, size, focal_px)
    names = ("image", "pose_image")[: len(conventions)]
    inputs: list[TensorSpec] = []
    examples: dict[str, np.ndarray] = {}
    for name, rule in zip(names, conventions, strict=True):
        affine = name.replace("image", "affine")
        inputs.append(TensorSpec(name, (BATCH, *rule.size, 3), "uint8"))
        inputs.append(TensorSpec(affine, (BATCH, 2, 3), "float32"))
        examples[name] = image_examples(f"single:{name}", rule.size)
        examples[affine] = np.array(AFFINES, np.float32)
    with torch.inference_mode():
        found = form.eval()(*(torch.from_numpy(value) for value in examples.values()))
    expected = {name: x.float().numpy() for name, x in zip(OUTPUTS, found, strict=True)}
    file = export_graph(form, inputs, OUTPUTS, path)
    parity = {
        name: replace(gate, tolerance=TOLERANCE_MM)
        for name, gate in requirements_mm(OUTPUTS).items()
    }
    data = parity_arrays(examples, expected)
    return file, check(run_gates(topology, path, parity, data, seeded=True))


def _form(
    recipe: Recipe, topology: str, size: tuple[int, int], focal_px: float | None
) -> tuple[WholeForm, tuple[ImageInput, ...]]:
    if topology not in ("serial", "parallel") or topology not in recipe.topologies:
        known = ", ".join({"serial", "parallel"} & set(recipe.topologies)) or "neither form"
        raise InputError(f"{recipe.name}: no single file of {topology!r}; its stages allow {known}")
    for name, stage in recipe.stages.items():
        spec = stage.spec
        if spec is None or name == "encoder" or getattr(spec.input, "frames", 1) > 1:
            raise InputError(
                f"{recipe.name}: stage {name} is temporal or custom; a single file holds "
                "registered networks of single frames: export a bundle"
            )
    body, skeleton = make_body(recipe), recipe.skeleton
    networks = {name: load_network(recipe, name) for name in recipe.stages}
    specs = {name: loaded.spec for name, loaded in networks.items()}
    layer = SmplLayer(body.body)
    calibration = calibration_of(body, layer)
    seen = specs["lifter"].input.skeleton if "lifter" in specs else skeleton  # type: ignore[union-attr]
    generator = networks["generator"]
    mesh = NetworkMeshStream(generator.spec.name, generator.network, layer, skeleton, seen)

    def lifter(keypoints: str | None) -> NetworkLifter:
        loaded = networks["lifter"]
        return NetworkLifter(loaded.spec.name, loaded.network, skeleton, keypoints)

    module: nn.Module
    if topology == "serial":
        module, used = SerialPCHMR(mesh, lifter(None), calibration), ["generator"]
    elif "pose3d" in networks:
        pose3d = NetworkPose3D(specs["pose3d"].name, networks["pose3d"].network, skeleton)
        module, used = ParallelPCHMR(mesh, pose3d, calibration), ["generator", "pose3d"]
    else:
        pose2d = NetworkPose2D(specs["pose2d"].name, networks["pose2d"].network)
        stream = NetworkPoseStream(pose2d, lifter(specs["pose2d"].skeleton))
        module, used = ParallelPCHMR(mesh, stream, calibration), ["generator", "pose2d"]
    given = (specs[name].input for name in used)
    conventions = tuple(rule for rule in given if isinstance(rule, ImageInput))
    return WholeForm(module, conventions, size, focal_px), conventions
