"""What a bundle is made of: a recipe's TOML as frozen dataclasses, checked before any work begins.

recipe = read_recipe(Path("recipe.toml"))
recipe.stages["generator"].network
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Precision, Role, Topology
from pchmr_training.calibration import BONES_OF
from pchmr_training.networks import ImageInput, KeypointInput, NetworkSpec, get_network

from .strict_toml import from_toml, nearest, read_toml

SEEDED = "seeded"
"""In place of a checkpoint: weights that follow from their names alone and mean nothing."""

ROLES: Mapping[str, Role] = {
    "encoder": "encoder",
    "generator": "mesh-generator",
    "pose2d": "pose2d",
    "pose3d": "pose3d",
    "lifter": "lifter",
}
"""Stage -> what it does in the pipeline."""

MADE_BODIES = ("open", "synthetic")
"""In place of a body file: the one that the bundle `open` has, and one of numbers by name."""

PEOPLE = ("detector", "landmarks")
"""BlazePose's two networks, which find and follow people in every bundle."""


@dataclass(frozen=True)
class CustomKeypoints:
    """2D joints that a network of the user's own takes, (B, J, 2), or (B, frames, J, 2).

    normalise: "screen" or "pose2mesh", as `pchmr_training.networks` has them.
    """

    skeleton: str
    normalise: str = "screen"
    frames: int = 1


@dataclass(frozen=True)
class CustomFeatures:
    """Features of an encoder, (B, width), or (B, frames, width)."""

    width: int = 2048
    frames: int = 1


@dataclass(frozen=True)
class CustomInput:
    """What a network of the user's own takes; one of the three.

    image: a crop, and how its pixels become the network's numbers.
    """

    image: ImageInput | None = None
    keypoints: CustomKeypoints | None = None
    features: CustomFeatures | None = None


@dataclass(frozen=True)
class StageRecipe:
    """One stage: a network of the registry and its checkpoint, or a source of the user's own.

    network: a name of `pchmr networks`. checkpoint: a file, or "seeded". precisions: by default the
    recipe's. source (kind "custom"): "package.module:factory", or an .onnx or .ts file. outputs:
    names of what it gives, in order. skeleton: of the output. settings: for the runtime.
    """

    kind: Literal["network", "custom"] = "network"
    network: str | None = None
    checkpoint: str | None = None
    precisions: tuple[Precision, ...] = ()
    licence: str | None = None
    source: str | None = None
    takes: CustomInput | None = None
    outputs: tuple[str, ...] = ()
    skeleton: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> NetworkSpec | None:
        """What is known of the network; None for a custom one. Raises: InputError."""
        return get_network(self.network) if self.network is not None else None

    @property
    def is_seeded(self) -> bool:
        return self.checkpoint == SEEDED

    @property
    def takes_joints(self) -> str | None:
        """The skeleton of its 2D joints, where it takes some."""
        spec = self.spec
        given = spec.input if spec else self.takes and self.takes.keypoints
        return given.skeleton if isinstance(given, KeypointInput | CustomKeypoints) else None

    @property
    def gives_joints(self) -> str | None:
        """The skeleton of what it gives."""
        spec = self.spec
        return spec.skeleton if spec else self.skeleton


@dataclass(frozen=True)
class PeopleRecipe:
    """What a recipe may say of a stage of `PEOPLE`."""

    precisions: tuple[Precision, ...] = ()


@dataclass(frozen=True)
class BodyRecipe:
    """file: SMPL's .pkl or .npz, an open body's .npz, "open" or "synthetic". regressors: skeleton
    -> .npy (N, V), those that the file lacks. licence: one line, for the manifest."""

    file: str = "open"
    regressors: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None


@dataclass(frozen=True)
class CalibrationRecipe:
    """skeleton: of the target joints, by default the pose stream's. weights: what `pchmr train
    calibration` wrote; without, initial ones of `bones` bones a vertex. conversions: the
    approximate ones that the recipe accepts, as "coco17 -> h36m17"."""

    skeleton: str | None = None
    weights: str | None = None
    bones: int = 4
    conversions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A bundle's parts. topologies: by default all that the stages allow. precisions: of each stage
    that does not say its own; the first one runs by default. Not of the file's own: people, of the
    stages of `PEOPLE`, and folder, where relative paths begin."""

    name: str
    stages: Mapping[str, StageRecipe]
    body: BodyRecipe = BodyRecipe()
    calibration: CalibrationRecipe = CalibrationRecipe()
    topologies: tuple[Topology, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32",)
    people: Mapping[str, PeopleRecipe] = field(default_factory=dict)
    folder: Path = Path()

    def path(self, text: str) -> Path:
        """The file that a path of the recipe names, or a TensorFlow checkpoint's prefix.

        Raises: InputError where there is none.
        """
        path = self.folder / Path(text).expanduser()
        if not path.is_file() and not Path(f"{path}.index").is_file():
            only = ", only a folder" if path.is_dir() else ""
            raise InputError(f"{self.name}: there is no file {path}{only}")
        return path

    @property
    def wanted(self) -> dict[str, tuple[Precision, ...]]:
        """Stage -> its precisions, the default first; those of `PEOPLE` too."""
        own: dict[str, Any] = {**dict.fromkeys(PEOPLE), **self.people, **self.stages}
        return {name: (its and its.precisions) or self.precisions for name, its in own.items()}

    @property
    def skeleton(self) -> str:
        """Of the target joints and of the bones that the calibration turns."""
        stages = self.stages
        joints = [stages[name].gives_joints for name in ("lifter", "pose3d") if name in stages]
        chosen = self.calibration.skeleton or next(iter(joints), None) or "smpl24"
        return BONES_OF.get(chosen, chosen)

    def conversions(self) -> dict[str, tuple[str, str]]:
        """Where joints change hands -> from which skeleton to which, both the same or not."""
        pairs: dict[str, tuple[str | None, str | None]] = {}
        stages = self.stages
        if "lifter" in stages:
            if "pose2d" in stages:
                pairs["lifter"] = stages["pose2d"].gives_joints, stages["lifter"].takes_joints
            pairs["target"] = stages["lifter"].gives_joints, self.skeleton
        if "pose3d" in stages:
            pairs["pose3d"] = stages["pose3d"].gives_joints, self.skeleton
        return {key: (a, b) for key, (a, b) in pairs.items() if a is not None and b is not None}

    def crop_rule(self, stage: str) -> str | None:
        """The rule of a stage's crops where it is not the network's own: VIBE's features are of a
        wider crop than SPIN's."""
        generator = self.stages.get("generator")
        of_vibe = stage == "encoder" and generator is not None and generator.network == "vibe"
        return "vibe" if of_vibe else None

    @property
    def regressed(self) -> tuple[str, ...]:
        """The skeletons whose joints the body has to give: the target's, the serial lifter's."""
        lifter = self.stages.get("lifter")
        taken = lifter.takes_joints if lifter and "serial" in self.topologies else None
        return tuple(dict.fromkeys(filter(None, (self.skeleton, taken))))


def with_files(
    recipe: Recipe,
    checkpoints: Mapping[str, str],
    body: str | None,
    regressors: Mapping[str, str],
) -> Recipe:
    """The recipe with other checkpoints (by stage), another body, and more regressors of it.

    Raises: InputError for a stage that the recipe has not.
    """
    stages = dict(recipe.stages)
    for name, file in checkpoints.items():
        if name not in stages:
            raise InputError(
                f"checkpoint of stage {name!r}: {recipe.name} has no such stage; "
                f"{nearest(name, stages)}"
            )
        stages[name] = replace(stages[name], checkpoint=file)
    more = {**recipe.body.regressors, **regressors}
    other = replace(recipe.body, file=body or recipe.body.file, regressors=more)
    return replace(recipe, stages=stages, body=other)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises: InputError, one line, for anything that cannot be meant."""
    return recipe_from_tables(read_toml(path), path.name, path.parent)


def recipe_from_tables(tables: Mapping[str, Any], where: str, folder: Path = Path()) -> Recipe:
    """The recipe of parsed TOML, checked. where: what messages call it."""
    from .recipe_checks import checked

    stages = tables.get("stages")
    for name in stages if isinstance(stages, dict) else ():
        if name not in (*ROLES, *PEOPLE):
            raise InputError(f"{where}: stage {name!r} is unknown; {nearest(name, ROLES)}")
    for key, mend in (
        ("folder", "paths begin where the recipe lies"),
        ("people", f"name {' or '.join(PEOPLE)} among the stages"),
    ):
        if key in tables:
            raise InputError(f"{where}.{key} is unknown: {mend}")
    tables = dict(tables)
    if isinstance(stages, dict):
        tables["people"] = {name: stages[name] for name in PEOPLE if name in stages}
        tables["stages"] = {name: stages[name] for name in stages if name not in PEOPLE}
    return checked(replace(from_toml(Recipe, tables, where), folder=folder), where)
