"""PC-HMR of a recipe's networks as PyTorch modules, on a clip of full frames.

vertices = run_torch(recipe, body, networks, "serial", clip)["vertices"]
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pchmr.people import Person
from pchmr.prepost import Crop as PersonCrop
from pchmr.prepost import crop_person, normalise
from pchmr.prepost.boxes import box_to_aspect
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.compensation import SelfRotation, ShapeCompensation
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import ImageInput
from pchmr_training.pchmr import Mesh, ParallelPCHMR, SerialPCHMR, Target, TemplateStream
from pchmr_training.pose_streams import NetworkLifter, NetworkPose3D, NetworkPoseStream
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import Crop, View

from .custom_composition import CustomLifter, CustomMeshStream, CustomPose3D, windows
from .heatmap_decoders import DecodedPose2D
from .recipe import Recipe
from .recipe_body import RecipeBody
from .stage_forms import LoadedNetwork
from .streaming_export import KEEP, WINDOW


@dataclass(frozen=True)
class Clip:
    """images: consecutive frames, (H, W, 3) uint8 BGR; boxes: the tight one of a person in each;
    people: as the runtime gives them, of whom a template takes its place."""

    images: Sequence[NDArray[np.uint8]]
    boxes: Sequence[tuple[float, float, float, float]]
    people: Sequence[Person] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        height, width = self.images[0].shape[:2]
        return width, height


@torch.inference_mode()
def run_torch(
    recipe: Recipe,
    body: RecipeBody,
    networks: Mapping[str, LoadedNetwork],
    topology: str,
    clip: Clip,
) -> dict[str, NDArray[Any]]:
    """`generator_vertices` and `vertices` (T, V, 3), metres before the camera, by the modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApproximateConversion)
        module = torch_composition(recipe, body, networks, topology, clip.people)
    result = module.eval()(clip_view(recipe, networks, topology, clip))
    shift = result.mesh.translation[:, None]
    vertices = {"generator_vertices": result.mesh.vertices, "vertices": result.vertices}
    return {name: (value + shift).numpy() for name, value in vertices.items()}


def torch_composition(
    recipe: Recipe,
    body: RecipeBody,
    networks: Mapping[str, LoadedNetwork],
    topology: str,
    people: Sequence[Person] = (),
) -> SerialPCHMR | ParallelPCHMR:
    """PC-HMR of a recipe's networks, the body in float64. people: whose place a template takes."""
    layer, skeleton = SmplLayer(body.body, torch.float64), recipe.skeleton
    if topology == "template":  # its rest pose is no Theta that perceptrons know
        template = _PlacedTemplate(layer, skeleton, people)
        calibration = calibration_of(replace(body, perceptrons={}), layer, prealign="torso")
        return ParallelPCHMR(template, _pose_stream(networks, skeleton), calibration)
    mesh_stream = _mesh_stream(networks, layer, skeleton)
    if topology == "mesh-only":
        calibration = calibration_of(replace(body, perceptrons={}), layer)
        return ParallelPCHMR(mesh_stream, _OwnPose(), calibration)
    calibration = calibration_of(body, layer)
    if topology == "serial":
        return SerialPCHMR(mesh_stream, _lifter(networks["lifter"], skeleton), calibration)
    return ParallelPCHMR(mesh_stream, _pose_stream(networks, skeleton), calibration)


def _pose_stream(networks: Mapping[str, LoadedNetwork], skeleton: str) -> nn.Module:
    if "pose3d" not in networks:
        lifter = _lifter(networks["lifter"], skeleton, networks["pose2d"].spec.skeleton)
        return NetworkPoseStream(DecodedPose2D(networks["pose2d"]), lifter)
    pose3d = networks["pose3d"]
    if pose3d.form is None:
        return NetworkPose3D(pose3d.spec.name, pose3d.network, skeleton)
    return CustomPose3D(pose3d, skeleton)


def _mesh_stream(
    networks: Mapping[str, LoadedNetwork], layer: SmplLayer, skeleton: str
) -> nn.Module:
    generator, encoder = networks["generator"], networks.get("encoder")
    seen = skeleton
    if "lifter" in networks:
        seen = networks["lifter"].spec.input.skeleton  # type: ignore[union-attr]
    if generator.form is not None:
        return CustomMeshStream(generator.form, encoder, layer, skeleton, seen)
    make = _WindowedMeshStream if generator.spec.name == "hmmr_tf" else NetworkMeshStream
    own = encoder.network if encoder else None
    return make(generator.spec.name, generator.network, layer, skeleton, seen, own)


def _lifter(loaded: LoadedNetwork, skeleton: str, keypoints: str | None = None) -> NetworkLifter:
    if loaded.form is not None:
        return CustomLifter(loaded, skeleton, keypoints)
    return NetworkLifter(loaded.spec.name, loaded.network, skeleton, keypoints)


def calibration_of(body: RecipeBody, layer: SmplLayer, prealign: str = "none") -> CalibrationModule:
    """The module with the bundle's own, pruned weights and perceptrons, in the layer's type."""
    skeleton = get_skeleton(body.calibration.skeleton)
    bones = len(skeleton.bones)
    A, AW = (x.astype(np.float64) for x in body.weights.to_dense(bones))
    W = np.divide(AW, A, out=np.zeros_like(A), where=A > 0)
    module = CalibrationModule(skeleton, A, W, Options(shape_compensation=False, prealign=prealign))
    if any(name.startswith("self_rotation.") for name in body.perceptrons):
        module.self_rotation = SelfRotation(layer, bones)
    if any(name.startswith("shape_compensation.") for name in body.perceptrons):
        module.shape_compensation = ShapeCompensation(layer, bones)
    learnt = {name: torch.from_numpy(value) for name, value in body.perceptrons.items()}
    module.load_state_dict({**module.state_dict(), **learnt})
    return module.to(layer.v_template.dtype)


class _OwnPose(nn.Module):
    """The mesh's own joints as the target, onto which calibration moves nothing."""

    def forward(self, view: View, mesh: Mesh) -> Target:
        return Target(mesh.source)


class _PlacedTemplate(TemplateStream):
    """The rest mesh as the runtime has put it, one row a person."""

    def __init__(self, layer: SmplLayer, skeleton: str, people: Sequence[Person]) -> None:
        super().__init__(layer, skeleton)
        self.rotmats, self.placed = (
            torch.from_numpy(np.stack([getattr(person, name) for person in people])).double()
            for name in ("rotmats", "generator_vertices")
        )

    def forward(self, view: View) -> Mesh:
        mesh = super().forward(view)
        rotmats = torch.cat([self.rotmats[:, :1], mesh.rotmats[:, 1:]], 1)
        vertices = self.layer(rotmats, mesh.betas).vertices
        return mesh._replace(
            rotmats=rotmats,
            vertices=vertices,
            source=self.layer.regress(self.skeleton, vertices),
            translation=(self.placed - vertices).mean(1),
        )


class _WindowedMeshStream(NetworkMeshStream):
    """HMMR on the runtime's windows: 20 frames, of which the middle 8 are kept."""

    def parameters_of(self, view: View) -> Any:
        first, end = KEEP
        features = self.rule.encode(self.encoder, view.crop.image)  # type: ignore[misc]
        answer = self.rule.read(self.network(features[windows(view.rows, WINDOW, KEEP)]))
        return type(answer)(*(x[:, first:end].flatten(0, 1)[: view.rows] for x in answer))


def person_crops(
    recipe: Recipe, networks: Mapping[str, LoadedNetwork], stage: str, clip: Clip
) -> list[PersonCrop]:
    """The crops that a stage sees of a clip."""
    rule = convention(networks[stage])
    scale = recipe.stages[stage].settings.get("box_scale", 1.0)
    found = []
    for image, box in zip(clip.images, clip.boxes, strict=True):
        grown = box_to_aspect(box, (box[2] - box[0]) / (box[3] - box[1]), scale)
        name = recipe.crop_rule(stage) or rule.crop
        found.append(crop_person(image, grown if scale != 1 else box, name, rule.size))
    return found


def crop_stages(names: Collection[str], topology: str) -> tuple[str, ...]:
    """The stages of a topology that see crops: of the mesh stream, and of a pose stream."""
    pose = "pose3d" if "pose3d" in names else "pose2d"
    first = "encoder" if "encoder" in names else "generator"
    return {"template": (pose,), "parallel": (first, pose)}.get(topology, (first,))


def clip_view(
    recipe: Recipe, networks: Mapping[str, LoadedNetwork], topology: str, clip: Clip
) -> View:
    """A clip as the networks of a topology take it."""
    crops = [
        _crop(convention(networks[stage]), person_crops(recipe, networks, stage, clip))
        for stage in crop_stages(networks, topology)
    ]
    return View(crops[0], clip.size, len(clip.images), crops[1] if crops[1:] else None)


def _crop(rule: ImageInput, crops: Sequence[PersonCrop]) -> Crop:
    """Crops as a network takes them; normalised in NumPy, where a graph has its own way."""
    pixels = np.stack([crop.pixels for crop in crops])
    values = normalise(pixels, rule.mean, rule.std, rule.value_range, rule.colour, rule.layout)
    affine = np.stack([cv2.invertAffineTransform(crop.affine) for crop in crops])
    return Crop(torch.from_numpy(values), torch.from_numpy(affine))


def convention(network: LoadedNetwork) -> ImageInput:
    """How a network over crops takes them."""
    given = network.spec.input
    assert isinstance(given, ImageInput)
    return given
