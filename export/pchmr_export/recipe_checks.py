"""Whether the parts of a recipe fit together; each fault is one line."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pchmr.prepost import CROPS
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Topology
from pchmr_kernels.conversions import ApproximateConversion, get_conversion
from pchmr_kernels.skeletons import SKELETONS
from pchmr_kernels.weights import MOST_BONES
from pchmr_training.mesh_streams import GENERATORS
from pchmr_training.networks import NETWORKS, FeatureInput, ImageInput, KeypointInput, NetworkSpec

from .gates import MAP_DECODERS
from .recipe import MADE_BODIES, CustomInput, Recipe, StageRecipe
from .strict_toml import nearest

NEEDS: Mapping[Topology, str] = {
    "serial": "needs the stages generator and lifter",
    "parallel": "needs the stages generator and pose3d, or generator, pose2d and lifter",
    "template": "needs the stages pose2d and lifter, or PoseNet as pose3d",
    "mesh-only": "needs the stage generator",
}
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("box_scale",),
    "generator": ("camera", "camera_size", "focal_px", "box_scale", "window", "keep", "rate_hz"),
    "pose2d": ("decoder", "box_scale"),
    "pose3d": ("decoder", "box_scale"),
    "lifter": ("window", "keep", "rate_hz"),
}
"""Stage -> what the runtime reads of its settings."""
NORMALISATIONS = ("screen", "pose2mesh")


def checked(recipe: Recipe, where: str) -> Recipe:
    """The recipe, its topologies filled in. Raises: InputError where its parts do not fit."""
    for name, precisions in recipe.wanted.items():
        _check_precisions(precisions, recipe.stages.get(name), f"{where}: stage {name}")
    for name, stage in recipe.stages.items():
        _check_stage(name, stage, f"{where}: stage {name}")
    _check_encoder(recipe, where)
    possible = possible_topologies(recipe)
    if not possible:
        raise InputError(
            f"{where}: stages {list(recipe.stages)} make no topology; serial {NEEDS['serial']}"
        )
    for topology in recipe.topologies:
        if topology not in possible:
            raise InputError(
                f"{where}: topology {topology} {NEEDS[topology]}; these stages allow "
                f"{', '.join(possible)}"
            )
    if recipe.skeleton not in SKELETONS:
        raise InputError(
            f"{where}: skeleton {recipe.skeleton!r} is unknown; "
            f"{nearest(recipe.skeleton, SKELETONS)}"
        )
    recipe = replace(recipe, topologies=recipe.topologies or possible)
    _check_unused(recipe, where)
    _check_body(recipe, where)
    _check_conversions(recipe, where)
    return recipe


def possible_topologies(recipe: Recipe) -> tuple[Topology, ...]:
    """What the stages of a recipe allow, the richest last but the template."""
    pose3d = recipe.stages.get("pose3d")
    placeless = pose3d is not None and pose3d.kind == "custom"  # where does a template stand?
    return tuple(
        topology
        for topology in NEEDS
        if stages_of(topology, recipe) <= recipe.stages.keys()
        and not (topology == "template" and placeless)
    )


def stages_of(topology: Topology, recipe: Recipe) -> set[str]:
    """The stages that a topology runs, whether the recipe has them or not."""
    mesh_stream = {"generator", *({"encoder"} & recipe.stages.keys())}
    pose_stream = {"pose3d"} if "pose3d" in recipe.stages else {"pose2d", "lifter"}
    return {
        "serial": mesh_stream | {"lifter"},
        "parallel": mesh_stream | pose_stream,
        "template": pose_stream,
        "mesh-only": mesh_stream,
    }[topology]


def _check_unused(recipe: Recipe, where: str) -> None:
    used = set[str]().union(*(stages_of(topology, recipe) for topology in recipe.topologies))
    for name in recipe.stages:
        if name not in used:
            raise InputError(
                f"{where}: no topology runs the stage {name}: {', '.join(recipe.topologies)} do "
                f"without; leave it out, or complete it (parallel {NEEDS['parallel']})"
            )


def _check_body(recipe: Recipe, where: str) -> None:
    if recipe.body.file in MADE_BODIES and recipe.body.regressors:
        raise InputError(
            f"{where}: the {recipe.body.file} body brings its own regressors: leave "
            "body.regressors out, or name the file that they belong to as body.file"
        )
    for skeleton in recipe.body.regressors:
        if skeleton not in SKELETONS:
            raise InputError(
                f"{where}: body.regressors: skeleton {skeleton!r} is unknown; "
                f"{nearest(skeleton, SKELETONS)}"
            )
    if not 1 <= recipe.calibration.bones <= MOST_BONES:
        raise InputError(
            f"{where}: calibration.bones is {recipe.calibration.bones}; expected 1 to {MOST_BONES}"
        )


def plays(name: str) -> dict[str, NetworkSpec]:
    """The networks of the registry that can be the stage `name`."""
    return {network: spec for network, spec in NETWORKS.items() if _can_be(spec, name)}


def _can_be(spec: NetworkSpec, stage: str) -> bool:
    if stage == "generator":
        return spec.name in GENERATORS
    if stage == "encoder":
        encoders = [s.input.encoder for s in NETWORKS.values() if isinstance(s.input, FeatureInput)]
        return spec.name in encoders
    if stage == "lifter":
        return isinstance(spec.input, KeypointInput) and "absolute position" not in spec.unit
    unit = "heat maps" if stage == "pose2d" else "cells"
    return isinstance(spec.input, ImageInput) and spec.unit.startswith(unit)


def _check_precisions(precisions: Sequence[str], stage: StageRecipe | None, where: str) -> None:
    if "fp32" not in precisions:
        raise InputError(
            f"{where}: precisions {list(precisions)} lack fp32, the one that the others are made "
            "from"
        )
    lower = [precision for precision in precisions if precision != "fp32"]
    if lower and stage and stage.is_seeded:
        raise InputError(
            f"{where}: seeded weights are gated in fp32 only, not {lower[0]}: the peak of a noisy "
            'map says nothing; give a checkpoint, or the stage its own precisions = ["fp32"]'
        )


def _check_stage(name: str, stage: StageRecipe, where: str) -> None:
    for key in stage.settings:
        if key not in SETTINGS[name]:
            raise InputError(f"{where}.settings.{key} is unknown; {nearest(key, SETTINGS[name])}")
    if stage.kind == "custom":
        return _check_custom(name, stage, where)
    for key in ("source", "takes", "outputs", "skeleton"):
        if getattr(stage, key):
            raise InputError(f'{where}: {key} belongs to a custom stage; add kind = "custom"')
    if stage.network is None or stage.checkpoint is None:
        raise InputError(f'{where} needs a network and a checkpoint (a file, or "seeded")')
    if stage.network not in NETWORKS:
        raise InputError(
            f"{where}: no network is called {stage.network!r}; {nearest(stage.network, NETWORKS)}"
        )
    if stage.network not in plays(name):
        raise InputError(f"{where}: {stage.network} is no {name}; known: {', '.join(plays(name))}")


OUTPUTS = {
    "encoder": (("features",),),
    "generator": (("rotmats", "betas", "cam"), ("vertices", "cam")),
    "pose2d": (("heatmaps",), ("keypoints",)),
    "pose3d": (("joints_3d",),),
    "lifter": (("joints",),),
}
"""What a custom stage may give."""


def _check_custom(name: str, stage: StageRecipe, where: str) -> None:
    if stage.network or stage.checkpoint:
        raise InputError(f"{where}: a custom stage has a source, and no network or checkpoint")
    if not stage.source or not stage.takes or not stage.outputs:
        raise InputError(f"{where}: a custom stage needs source, takes and outputs")
    takes = stage.takes
    given = [key for key in ("image", "keypoints", "features") if getattr(takes, key)]
    if len(given) != 1:
        raise InputError(
            f"{where}.takes has {' and '.join(given) or 'nothing'}; expected one of image, "
            "keypoints, features"
        )
    _check_takes(takes, f"{where}.takes")
    skeletons = {"skeleton": stage.skeleton}
    if takes.keypoints:
        skeletons["takes.keypoints.skeleton"] = takes.keypoints.skeleton
    if name in ("pose2d", "pose3d", "lifter") and stage.skeleton is None:
        raise InputError(f"{where} needs the skeleton of the joints that it gives")
    for key, skeleton in skeletons.items():
        if skeleton is not None and skeleton not in SKELETONS:
            raise InputError(
                f"{where}: {key} {skeleton!r} is unknown; {nearest(skeleton, SKELETONS)}"
            )
    taken = {"lifter": ("keypoints",), "generator": ("image", "features")}.get(name, ("image",))
    if given[0] not in taken:
        raise InputError(f"{where}.takes.{given[0]}: a {name} takes {' or '.join(taken)}")
    if stage.outputs not in OUTPUTS[name]:
        known = " or ".join(map(str, map(list, OUTPUTS[name])))
        raise InputError(f"{where}: outputs are {list(stage.outputs)}; expected {known}")
    if stage.outputs == ("heatmaps",) and stage.settings.get("decoder") not in MAP_DECODERS:
        raise InputError(f'{where}: heat maps need settings.decoder, "hrnet" or "cpn"')


def _check_takes(takes: CustomInput, where: str) -> None:
    """Raises: InputError for numbers and names that no crop, clip or network has."""
    image, points = takes.image, takes.keypoints
    counts: dict[str, int] = {}
    names: dict[str, tuple[str, Collection[str]]] = {}
    if image is not None:
        counts |= {"image.size": min(image.size)}
        names["image.crop"] = image.crop, CROPS
    if points is not None:
        counts["keypoints.frames"] = points.frames
        names["keypoints.normalise"] = points.normalise, NORMALISATIONS
    if takes.features is not None:
        counts |= {"features.frames": takes.features.frames, "features.width": takes.features.width}
    for key, count in counts.items():
        if count < 1:
            raise InputError(f"{where}.{key} has {count}; expected whole numbers from 1")
    for key, (name, known) in names.items():
        if name not in known:
            raise InputError(f"{where}.{key} is {name!r}; {nearest(name, known)}")


def _check_encoder(recipe: Recipe, where: str) -> None:
    """A generator of features needs the network that makes them, and no other one does."""
    generator, encoder = (recipe.stages.get(name) for name in ("generator", "encoder"))
    spec = generator.spec if generator else None
    wanted = spec.input.encoder if spec and isinstance(spec.input, FeatureInput) else None
    takes = generator.takes if generator else None
    if wanted and encoder is None:
        raise InputError(
            f"{where}: {generator.network} takes features; add a stage encoder with "  # type: ignore[union-attr]
            f'network = "{wanted}"'
        )
    if encoder is not None and not wanted and not (takes and takes.features):
        raise InputError(f"{where}: nothing takes the features of the stage encoder; leave it out")
    if encoder is not None and wanted and encoder.network != wanted:
        raise InputError(
            f"{where}: {generator.network} takes the features of {wanted}, not of "  # type: ignore[union-attr]
            f"{encoder.network or encoder.source}"
        )


def _check_conversions(recipe: Recipe, where: str) -> None:
    approximate = approximate_conversions(recipe, where)
    named = recipe.calibration.conversions
    for text in approximate:
        if text not in named:
            raise InputError(
                f"{where}: {text} is approximate, a guess at joints defined differently; accept it "
                f'by calibration.conversions = ["{text}"], or choose networks whose joints meet'
            )
    for text in named:
        if text not in approximate:
            raise InputError(
                f"{where}: conversion {text!r} is named and not needed; needed are "
                f"{list(approximate)}"
            )


def approximate_conversions(recipe: Recipe, where: str) -> tuple[str, ...]:
    """The conversions of a recipe that are guesses. Raises: InputError for one that is unknown."""
    found = []
    for source, target in recipe.conversions().values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApproximateConversion)
            try:
                conversion = get_conversion(source, target)
            except ValueError as error:
                raise InputError(f"{where}: {error}") from error
        if not conversion.exact:
            found.append(f"{source} -> {target}")
    return tuple(dict.fromkeys(found))
