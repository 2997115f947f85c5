"""The whole bundle, run by the SDK's pipeline on the demo video, against the PyTorch composition.

gates = composition_gates(recipe, body, networks, bundle)       # mm per vertex, a gate a topology
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pchmr.assets import fetch
from pchmr.media import open_source
from pchmr.people import Person
from pchmr.pipeline import Pipeline
from pchmr.prepost import Crop as PersonCrop
from pchmr.prepost import crop_person, normalise
from pchmr.prepost.boxes import box_to_aspect
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import PchmrError
from pchmr_engines.verify import Gate
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.compensation import SelfRotation, ShapeCompensation
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import ImageInput
from pchmr_training.pchmr import ParallelPCHMR, SerialPCHMR
from pchmr_training.pose_streams import NetworkLifter, NetworkPose3D, NetworkPoseStream
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import Crop, View

from .custom_composition import CustomLifter, CustomMeshStream, CustomPose3D, windows
from .heatmap_decoders import DecodedPose2D
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
                for what, unit, value, allowed in composed_differences(found, right):
                    measure = unit, value, value, allowed
                    gates.append(Gate("composition", f"{label}{what}", backend, "fp32", *measure))
    return tuple(gates)


def composed_differences(
    found: NDArray[Any], right: NDArray[Any]
) -> tuple[tuple[str, str, float, float], ...]:
    """(what, unit, greatest value, allowed) of points (T, V, 3), metres: about their own middle,
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
        module = torch_composition(recipe, body, networks, topology)
    result = module.eval()(clip_view(recipe, networks, topology, clip))
    shift = result.mesh.translation[:, None]
    vertices = {"generator_vertices": result.mesh.vertices, "vertices": result.vertices}
    return {name: (value + shift).numpy() for name, value in vertices.items()}


def torch_composition(
    recipe: Recipe, body: RecipeBody, networks: Mapping[str, LoadedNetwork], topology: str
) -> SerialPCHMR | ParallelPCHMR:
    """Serial or Parallel PC-HMR of a recipe's networks, the body in float64."""
    layer, skeleton = SmplLayer(body.body, torch.float64), recipe.skeleton
    mesh_stream = _mesh_stream(networks, layer, skeleton)
    calibration = calibration_of(body, layer)
    if topology == "serial":
        lifter = _lifter(networks["lifter"], skeleton)
        return SerialPCHMR(mesh_stream, lifter, calibration)
    stream: nn.Module
    if "pose3d" in networks:
        pose3d = networks["pose3d"]
        stream = (
            NetworkPose3D(pose3d.spec.name, pose3d.network, skeleton)
            if pose3d.form is None
            else CustomPose3D(pose3d, skeleton)
        )
    else:
        lifter = _lifter(networks["lifter"], skeleton, networks["pose2d"].spec.skeleton)
        stream = NetworkPoseStream(DecodedPose2D(networks["pose2d"]), lifter)
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
    first = "encoder" if "encoder" in names else "generator"
    own = [name for name in ("pose3d", "pose2d") if name in names and topology == "parallel"]
    return first, *own[:1]


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
