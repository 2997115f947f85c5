"""The whole bundle, run by the SDK's pipeline on the demo video, against the PyTorch composition.

gates = composition_gates(recipe, body, networks, bundle)       # mm per vertex, a gate a topology
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pchmr.assets import fetch
from pchmr.media import open_source
from pchmr.people import Person
from pchmr.pipeline import Pipeline
from pchmr.prepost import Crop as PersonCrop
from pchmr.prepost import crop_person, normalise
from pchmr.prepost.boxes import box_to_aspect
from pchmr.stages.pose2d import DECODERS
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import PchmrError
from pchmr_engines.verify import Gate
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.compensation import SelfRotation, ShapeCompensation
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import ImageInput
from pchmr_training.pchmr import Mesh, ParallelPCHMR, SerialPCHMR, Target
from pchmr_training.pose_streams import NetworkLifter, NetworkPose3D
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import Crop, View

from .custom_composition import CustomLifter, CustomMeshStream, CustomPose3D, windows
from .recipe import Recipe
from .recipe_body import RecipeBody
from .stage_forms import LoadedNetwork
from .streaming_export import KEEP, WINDOW

GATED = ("serial", "parallel")
FIRST, FRAMES = 30, 6  # of the demo video: a woman walks through the picture
INTERVAL_NS = 20_000_000  # VideoPose3D's 50 frames a second
TOLERANCE_MM, TOLERANCE_MM_A_METRE = 1.0, 0.2  # seeded weights put people 25 m away, and spend half


@dataclass(frozen=True)
class Clip:
    """images: consecutive frames, (H, W, 3) uint8 BGR; boxes: the tight one of a person in each."""

    images: Sequence[NDArray[np.uint8]]
    boxes: Sequence[tuple[float, float, float, float]]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        height, width = self.images[0].shape[:2]
        return width, height


def composition_gates(
    recipe: Recipe,
    body: RecipeBody,
    networks: Mapping[str, LoadedNetwork],
    bundle: Bundle,
    backends: Sequence[str],
) -> tuple[Gate, ...]:
    """Serial and parallel, as far as the bundle has them, whether passed or not.

    Raises: PchmrError where the pipeline loses the person of the demo video.
    """
    images = demo_frames()
    gates = []
    for topology in (name for name in GATED if name in recipe.topologies):
        clip, expected = None, {}
        for backend in backends:
            people = run_pipeline(bundle, topology, backend, images)
            found_clip = Clip(images, [person.bbox for person in people])
            if clip is None or clip.boxes != found_clip.boxes:
                clip = found_clip  # boxes differ by a backend's rounding, and whole pixels by more
                expected = run_torch(recipe, body, networks, topology, clip)
            for name, right in expected.items():
                found = np.stack([getattr(person, name) for person in people])
                label = f"{topology} {name}"
                for what, unit, value, allowed in _differences(found, right):
                    measure = unit, value, value, allowed
                    gates.append(Gate("composition", f"{label}{what}", backend, "fp32", *measure))
    return tuple(gates)


def _differences(
    found: NDArray[Any], right: NDArray[Any]
) -> tuple[tuple[str, str, float, float], ...]:
    """(what, unit, greatest value, allowed) of vertices (T, V, 3), metres: about their own middle,
    and where that lies, which a weak perspective knows to a share of its distance."""
    places = found.mean(1), right.mean(1)
    about = found - places[0][:, None] - (right - places[1][:, None])
    apart = np.linalg.norm(places[0] - places[1], axis=-1) / np.linalg.norm(places[1], axis=-1)
    return (
        ("", "mm", 1000 * float(np.linalg.norm(about, axis=-1).max()), TOLERANCE_MM),
        (", place", "mm a metre", 1000 * float(apart.max()), TOLERANCE_MM_A_METRE),
    )


def demo_frames(count: int = FRAMES) -> list[NDArray[np.uint8]]:
    """Consecutive frames of the demo video. Raises: AssetError when it cannot be fetched."""
    found = []
    with open_source(str(fetch("demo_video"))) as source:
        for number, frame in enumerate(source):
            if number >= FIRST:
                found.append(frame.image)
            if len(found) == count:
                break
    return found


def run_pipeline(
    bundle: Bundle, topology: str, backend: str, images: Sequence[NDArray[np.uint8]]
) -> list[Person]:
    """The one person of each image, as the runtime computes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained weights, approximate conversions
        with Pipeline(bundle, topology, backend=backend) as pipeline:
            found = [
                person
                for number, image in enumerate(images)
                for person in pipeline(image, number * INTERVAL_NS)
            ]
            found += [person for people in pipeline.flush() for person in people]
    if [person.frame for person in found] != list(range(len(images))):
        raise PchmrError(
            f"the pipeline of {bundle.manifest.name!r} finds people in frames "
            f"{[person.frame for person in found]} of {len(images)} of the demo video; expected "
            "one in each: report this"
        )
    return found


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
        module = torch_composition(recipe, body, networks, topology, clip)
    image_stage = "encoder" if "encoder" in networks else "generator"
    result = module.eval()(_view(recipe, networks, image_stage, clip))
    shift = result.mesh.translation[:, None]
    vertices = {"generator_vertices": result.mesh.vertices, "vertices": result.vertices}
    return {name: (value + shift).numpy() for name, value in vertices.items()}


def torch_composition(
    recipe: Recipe,
    body: RecipeBody,
    networks: Mapping[str, LoadedNetwork],
    topology: str,
    clip: Clip,
) -> SerialPCHMR | ParallelPCHMR:
    """Serial or Parallel PC-HMR of a recipe's networks, the body in float64."""
    layer, skeleton = SmplLayer(body.body, torch.float64), recipe.skeleton
    mesh_stream = _mesh_stream(networks, layer, skeleton)
    calibration = calibration_of(body, layer)
    if topology == "serial":
        lifter = _lifter(networks["lifter"], skeleton)
        return SerialPCHMR(mesh_stream, lifter, calibration)
    if "pose3d" in networks:
        pose3d = networks["pose3d"]
        stream: Any = _OwnCrop(
            NetworkPose3D(pose3d.spec.name, pose3d.network, skeleton)
            if pose3d.form is None
            else CustomPose3D(pose3d, skeleton),
            _view(recipe, networks, "pose3d", clip),
        )
    else:
        lifter = _lifter(networks["lifter"], skeleton, networks["pose2d"].spec.skeleton)
        stream = _DecodedPoseStream(recipe, networks, clip, lifter)
    return ParallelPCHMR(mesh_stream, stream, calibration)


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


def calibration_of(body: RecipeBody, layer: SmplLayer) -> CalibrationModule:
    """The module with the bundle's own, pruned weights and perceptrons, in the layer's type."""
    skeleton = get_skeleton(body.calibration.skeleton)
    bones = len(skeleton.bones)
    A, AW = (x.astype(np.float64) for x in body.weights.to_dense(bones))
    W = np.divide(AW, A, out=np.zeros_like(A), where=A > 0)
    module = CalibrationModule(skeleton, A, W, Options(shape_compensation=False))
    if any(name.startswith("self_rotation.") for name in body.perceptrons):
        module.self_rotation = SelfRotation(layer, bones)
    if any(name.startswith("shape_compensation.") for name in body.perceptrons):
        module.shape_compensation = ShapeCompensation(layer, bones)
    learnt = {name: torch.from_numpy(value) for name, value in body.perceptrons.items()}
    module.load_state_dict({**module.state_dict(), **learnt})
    return module.to(layer.v_template.dtype)


class _WindowedMeshStream(NetworkMeshStream):
    """HMMR on the runtime's windows: 20 frames, of which the middle 8 are kept."""

    def parameters_of(self, view: View) -> Any:
        first, end = KEEP
        features = self.rule.encode(self.encoder, view.crop.image)  # type: ignore[misc]
        answer = self.rule.read(self.network(features[windows(view.rows, WINDOW, KEEP)]))
        return type(answer)(*(x[:, first:end].flatten(0, 1)[: view.rows] for x in answer))


class _OwnCrop(nn.Module):
    """A pose stream over crops of its own."""

    def __init__(self, stream: nn.Module, view: View) -> None:
        super().__init__()
        self.stream, self._view = stream, view

    def forward(self, view: View, mesh: Mesh) -> Target:
        return self.stream(replace(view, pose_crop=self._view.crop), mesh)


class _DecodedPoseStream(nn.Module):
    """2D network, the runtime's own decoder, lifter."""

    def __init__(
        self,
        recipe: Recipe,
        networks: Mapping[str, LoadedNetwork],
        clip: Clip,
        lifter: NetworkLifter,
    ) -> None:
        super().__init__()
        pose2d = networks["pose2d"]
        self.network, self.lifter = pose2d.network, lifter
        self._spec = pose2d.spec
        of_cpn = pose2d.spec.name.startswith("cpn")
        decoder = pose2d.form.settings["decoder"] if pose2d.form else "cpn" if of_cpn else "hrnet"
        self._decode = DECODERS[decoder]
        self._crops = person_crops(recipe, networks, "pose2d", clip)
        self._view = _view(recipe, networks, "pose2d", clip)

    def forward(self, view: View, mesh: Mesh) -> Target:
        answer = self.network(self._view.crop.image)
        maps = answer if isinstance(answer, Tensor) else answer[0]
        maps = maps.permute(0, 3, 1, 2) if self._spec.tensorflow else maps
        pairs = zip(maps.numpy(), self._crops, strict=True)
        decode = self._decode
        keypoints = np.stack([decode(person, crop) for person, crop in pairs])
        return self.lifter(torch.from_numpy(keypoints), view)


def person_crops(
    recipe: Recipe, networks: Mapping[str, LoadedNetwork], stage: str, clip: Clip
) -> list[PersonCrop]:
    """The crops that a stage sees of a clip."""
    rule = _convention(networks[stage])
    scale = recipe.stages[stage].settings.get("box_scale", 1.0)
    found = []
    for image, box in zip(clip.images, clip.boxes, strict=True):
        grown = box_to_aspect(box, (box[2] - box[0]) / (box[3] - box[1]), scale)
        name = recipe.crop_rule(stage) or rule.crop
        found.append(crop_person(image, grown if scale != 1 else box, name, rule.size))
    return found


def _view(recipe: Recipe, networks: Mapping[str, LoadedNetwork], stage: str, clip: Clip) -> View:
    """A clip as a stage's network takes it."""
    rule, crops = _convention(networks[stage]), person_crops(recipe, networks, stage, clip)
    pixels = np.stack([crop.pixels for crop in crops])
    values = normalise(pixels, rule.mean, rule.std, rule.value_range, rule.colour, rule.layout)
    affine = np.stack([cv2.invertAffineTransform(crop.affine) for crop in crops])
    crop = Crop(torch.from_numpy(values), torch.from_numpy(affine))
    return View(crop, clip.size, frames=len(clip.images))


def _convention(network: LoadedNetwork) -> ImageInput:
    given = network.spec.input
    assert isinstance(given, ImageInput)
    return given
