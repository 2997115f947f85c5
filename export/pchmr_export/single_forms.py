"""What goes into a single file: crops, or landmarks, of people and a camera; their meshes come out.

form = FromCrops(composition, {"image": spin.input}, screen=True)
form(*inputs)         # OUTPUTS
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_training.networks import ImageInput
from pchmr_training.open_streams import OpenView
from pchmr_training.pchmr import ParallelPCHMR, SerialPCHMR
from pchmr_training.view import Crop, View

from .image_input import ImageNormalisation

OUTPUTS: Mapping[str, str] = {
    "vertices": "(B, V, 3) metres before the camera: the calibrated mesh",
    "generator_vertices": "(B, V, 3) metres before the camera: the mesh before calibration",
    "joints": "(B, J, 3) metres before the camera: joints of the skeleton, of vertices",
    "target_joints": "(B, J, 3) metres before the camera: where the pose stream wanted them",
    "translation": "(B, 3) metres: what all of these have been moved by",
}
INPUTS: Mapping[str, str] = {
    "image": "RGB crop of each person for the mesh generator; normalised inside",
    "crop_affine": "from the crop's pixels to the full frame's",
    "pose_image": "RGB crop of each person for the pose network; normalised inside",
    "pose_crop_affine": "from that crop's pixels to the full frame's",
    "keypoints": "BlazePose landmarks: full-frame pixels x, y, and visibility 0..1",
    "world": "BlazePose world landmarks: metres about the hips, oriented as the camera",
    "pose_keypoints": "keypoints of the pose stream's own landmark network",
    "pose_world": "world landmarks of the pose stream's own landmark network",
    "crop_rotation": "from the landmark crop's own camera to the full frame's",
    "crop_size": "side of the landmark crop, pixels",
    "frame_size": "(width, height) of the full frame, pixels",
    "focal": "focal length of the full frame, pixels; its diagonal where unknown",
    "centre": "(x, y) of the optical axis, pixels; the frame's middle where unknown",
}
LANDMARK_SHAPES: Mapping[str, tuple[int, ...]] = {
    "keypoints": (33, 3),
    "world": (33, 3),
    "crop_rotation": (3, 3),
    "crop_size": (),
    "pose_keypoints": (33, 3),
    "pose_world": (33, 3),
}


class Form(nn.Module, ABC):
    """`inputs`, in their order -> `OUTPUTS`."""

    def __init__(self, composition: SerialPCHMR | ParallelPCHMR, inputs: dict[str, Any]) -> None:
        super().__init__()
        self.composition = composition
        sizes = {"frame_size": 2, "focal": 1, "centre": 2}
        camera = {name: TensorSpec(name, (size,), "float32") for name, size in sizes.items()}
        self.inputs: dict[str, TensorSpec] = {**inputs, **camera}

    def answer(self, view: View | OpenView) -> tuple[Tensor, ...]:
        """`OUTPUTS`, as a `pchmr.Person` has them."""
        composition: Any = self.composition
        layer, skeleton = composition.mesh_stream.layer, composition.calibration.skeleton
        result = composition(view)
        source, target, root = result.mesh.source, result.target.joints, skeleton.root
        target = target - target[:, root, None] + source[:, root, None]
        shift = result.mesh.translation[:, None]
        vertices, generated, target = (
            points + shift for points in (result.vertices, result.mesh.vertices, target)
        )
        joints = layer.regress(skeleton.name, vertices)
        return vertices, generated, joints, target, result.mesh.translation

    @abstractmethod
    def view(self, given: dict[str, Tensor]) -> View | OpenView:
        """The inputs by name, as the composition takes them."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.answer(self.view(dict(zip(self.inputs, inputs, strict=True))))


class FromCrops(Form):
    """Networks over crops. images: input -> how its network takes it; that of the mesh stream
    first. screen: whether the lifter takes the place of joints in the frame."""

    def __init__(
        self,
        composition: SerialPCHMR | ParallelPCHMR,
        images: Mapping[str, ImageInput],
        screen: bool,
    ) -> None:
        inputs = {}
        for name, rule in images.items():
            inputs[name] = TensorSpec(name, (BATCH, *rule.size, 3), "uint8")
            affine = affine_name(name)
            inputs[affine] = TensorSpec(affine, (BATCH, 2, 3), "float32")
        super().__init__(composition, inputs)
        if not screen:
            del self.inputs["frame_size"]
        self.images = nn.ModuleDict({k: ImageNormalisation(rule) for k, rule in images.items()})

    def view(self, given: dict[str, Tensor]) -> View:
        crops = [
            Crop(normalise(given[name]), given[affine_name(name)].double())
            for name, normalise in self.images.items()
        ]
        focal, centre = given["focal"].double(), given["centre"].double()
        size = given["frame_size"].double() if "frame_size" in given else 2 * centre
        pose_crop = crops[1] if crops[1:] else None
        return View(crops[0], size, pose_crop=pose_crop, focal_px=focal, centre=centre)


class FromLandmarks(Form):
    """The open default, behind BlazePose's landmarks. own: the pose stream has some of its own."""

    def __init__(self, composition: SerialPCHMR | ParallelPCHMR, own: bool) -> None:
        shapes = {k: s for k, s in LANDMARK_SHAPES.items() if own or not k.startswith("pose_")}
        inputs = {k: TensorSpec(k, (BATCH, *shape), "float32") for k, shape in shapes.items()}
        super().__init__(composition, inputs)
        del self.inputs["frame_size"]

    def view(self, given: dict[str, Tensor]) -> OpenView:
        numbers = {name: value.double() for name, value in given.items()}
        return OpenView(**{**numbers, "focal": numbers["focal"].expand(2)})


def affine_name(image: str) -> str:
    """The input beside an image's: `pose_crop_affine` of `pose_image`."""
    return image.replace("image", "crop_affine")
