"""Networks in the form in which the runtime takes them: one set of outputs a role, whatever theirs.

form = network_form("generator", get_network("hmr_tf"), network)
form.module(image)      # rotmats, betas, cam
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from pchmr.prepost.cameras import CROP_FOCAL_PX
from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.manifest import Crop
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.mesh_streams import GENERATORS
from pchmr_training.networks import (
    FeatureInput,
    ImageInput,
    KeypointInput,
    NetworkSpec,
    get_network,
)

from .image_input import FromImage

MESH_OUTPUTS = ("rotmats", "betas", "cam")


@dataclass(frozen=True)
class StageForm:
    """What a stage computes, and what the runtime has to know of it.

    module: takes `inputs` in their order; for an image, the numbers that `image` says. rename:
    module key -> name of the tensor in the graph.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    skeleton: str | None = None
    image: ImageInput | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rename: Callable[[str], str] = str

    @property
    def graph_module(self) -> nn.Module:
        """The module that takes `inputs` as the runtime has them, an image as uint8."""
        return FromImage(self.module, self.image) if self.image else self.module

    def graph_rename(self, key: str) -> str:
        """`rename` for the keys of `graph_module`."""
        own = key.removeprefix("network.") if self.image else key
        return key if self.image and own == key else self.rename(own)

    @property
    def crop(self) -> Crop | None:
        """The crop that the runtime cuts for it."""
        if self.image is None:
            return None
        height, width = self.image.size
        return Crop((width, height), "rgb", self.image.crop)


@dataclass(frozen=True)
class LoadedNetwork:
    """A stage's network in torch. sha256: of its checkpoint or file; None for seeded weights, or
    where there is no file. form: of a custom one."""

    spec: NetworkSpec
    network: nn.Module
    sha256: str | None
    form: StageForm | None = None


class Reading(nn.Module):
    """A network, and what the runtime reads in its answer."""

    def __init__(self, network: nn.Module, read: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.network, self._read = network, read

    def forward(self, *inputs: Tensor) -> Any:
        return self._read(self.network, *inputs)


def network_form(
    stage: str, spec: NetworkSpec, network: nn.Module, crop: str | None = None
) -> StageForm:
    """The form of a network of single frames as the stage `stage`, one of `recipe.ROLES`.

    crop: the rule that cuts its crop, where it is not the network's own.
    """
    make = {
        "encoder": _encoder,
        "generator": _generator,
        "pose2d": _pose2d,
        "pose3d": _pose3d,
        "lifter": _lifter,
    }[stage]
    form = make(spec, network)
    return form if crop is None else replace(form, image=replace(form.image, crop=crop))  # type: ignore[type-var]


def image_tensor(convention: ImageInput) -> tuple[TensorSpec, ...]:
    """`image` (B, H, W, 3) uint8 RGB."""
    return (TensorSpec("image", (BATCH, *convention.size, 3), "uint8"),)


def _from_image(
    spec: NetworkSpec,
    network: nn.Module,
    read: Callable[[nn.Module, Tensor], Any],
    outputs: tuple[str, ...],
    settings: Mapping[str, Any],
) -> StageForm:
    assert isinstance(spec.input, ImageInput)
    return StageForm(
        Reading(network, read),
        image_tensor(spec.input),
        outputs,
        spec.skeleton,
        spec.input,
        settings,
        _official(spec),
    )


def _official(spec: NetworkSpec) -> Callable[[str], str]:
    return lambda key: spec.official_key(key.removeprefix("network."))


def _encoder(spec: NetworkSpec, network: nn.Module) -> StageForm:
    """Image -> `features` (B, 2048)."""
    encode = next(
        rule.encode
        for name, rule in GENERATORS.items()
        if rule.encode is not None and encoder_of(get_network(name)) == spec.name
    )
    return _from_image(spec, network, encode, ("features",), {})


def encoder_of(generator: NetworkSpec) -> str | None:
    """The network whose features a generator takes, where it takes features."""
    return generator.input.encoder if isinstance(generator.input, FeatureInput) else None


def _generator(spec: NetworkSpec, network: nn.Module) -> StageForm:
    """Image -> `rotmats` (B, 24, 3, 3), `betas` (B, 10), `cam` (B, 3)."""
    rule = GENERATORS[spec.name]
    return _from_image(
        spec,
        network,
        lambda network, image: tuple(rule.read(network(image))),
        MESH_OUTPUTS,
        camera_settings(spec.name),
    )


def camera_settings(generator: str) -> dict[str, Any]:
    """How a generator's `cam` = (s, tx, ty) shows points over its crop."""
    camera = GENERATORS[generator].camera
    kind = {"camera": "weak" if camera.weak else "perspective", "camera_size": camera.size}
    return kind if camera.weak else {**kind, "focal_px": CROP_FOCAL_PX}


def _pose2d(spec: NetworkSpec, network: nn.Module) -> StageForm:
    """Image -> `heatmaps` (B, J, H / 4, W / 4)."""

    def heatmaps(network: nn.Module, image: Tensor) -> Tensor:
        answer = network(image)
        maps = answer if isinstance(answer, Tensor) else answer[0]
        return maps.permute(0, 3, 1, 2) if spec.tensorflow else maps

    decoder = "cpn" if spec.name.startswith("cpn") else "hrnet"
    return _from_image(spec, network, heatmaps, ("heatmaps",), {"decoder": decoder})


def _pose3d(spec: NetworkSpec, network: nn.Module) -> StageForm:
    """Image -> `coord` (B, J, 3): cells of x, y and depth."""
    return _from_image(
        spec, network, lambda network, image: network(image), ("coord",), {"decoder": "posenet"}
    )


def _lifter(spec: NetworkSpec, network: nn.Module) -> StageForm:
    """`keypoints` (B, J2, 2), normalised -> `joints` (B, J, 3), metres."""
    given = spec.input
    assert isinstance(given, KeypointInput)
    joints = len(get_skeleton(given.skeleton))
    is_flat = len(given.shape) == 2

    def lift(network: nn.Module, points: Tensor) -> Tensor:
        return metres(spec, network(points.flatten(1) if is_flat else points))

    return StageForm(
        Reading(network, lift),
        (TensorSpec("keypoints", (BATCH, joints, 2), "float32"),),
        ("joints",),
        spec.skeleton,
        settings=lifter_settings(given),
        rename=_official(spec),
    )


def metres(spec: NetworkSpec, answer: Tensor) -> Tensor:
    """Joints (B, J, 3), metres, with their root, of a lifter's answer (B, ...)."""
    joints = answer.flatten(1).unflatten(1, (-1, 3))
    if spec.unit.startswith("mm"):
        joints = joints / 1000
    return pad(joints, (0, 0, 1, 0)) if spec.unit.endswith("without the root") else joints


def lifter_settings(given: KeypointInput) -> dict[str, Any]:
    """What the runtime feeds a lifter with."""
    return {"keypoints": given.skeleton, "normalise": given.normalise, "unit": "m"}
