"""Ready recipes: a generator and a pose stream of registered networks, joined by "+".

recipe = ready_recipe("spin_hmr+hrnet_w32_256x192+videopose3d_h36m_27")
print(recipe_text(recipe))        # as a file, to be changed
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pchmr_engines.errors import InputError
from pchmr_training.networks import NETWORKS

from .recipe import SEEDED, BodyRecipe, CalibrationRecipe, Recipe, StageRecipe
from .recipe_checks import approximate_conversions, checked, plays
from .stage_forms import encoder_of
from .strict_toml import nearest, read_toml

PARTS = Path(__file__).parent / "recipes" / "parts.toml"
KINDS = ("generator", "pose2d", "pose3d", "lifter")
OPEN = ("open", "open-plus")
TOPOLOGIES = ("serial", "parallel", "template")


def ready_names() -> Iterator[str]:
    """The names of the ready recipes that are listed; other networks combine in the same way."""
    parts: Mapping[str, list[str]] = read_toml(PARTS)
    yield from OPEN
    for generator in parts["generator"]:
        yield from (f"{generator}+{lifter}" for lifter in parts["lifter"])
        for pose2d in parts["pose2d"]:
            yield from (f"{generator}+{pose2d}+{lifter}" for lifter in parts["lifter"])
        yield from (f"{generator}+{pose3d}" for pose3d in parts["pose3d"])


LEGEND = """
s p t   serial, parallel, template; whatever has a generator also runs mesh-only
h36m17  of SMPL's mesh, by a regressor: h36m17 or spin_h36m17, which also gives
        semgcn16 and posenet18
coco17  likewise, for serial alone; no official file has it. Where p stands,
        do without by --topology parallel
*       COCO's joints stand in for Human3.6M's: an approximation

open and open-plus need no file of yours. The others need SMPL's file and a
checkpoint of each network, vibe also of spin_hmr and hmmr_tf of hmr_tf; until
then their weights are seeded. Other networks of  pchmr networks  combine in the
same way."""


@dataclass(frozen=True)
class ReadyRow:
    """topologies: but for mesh-only, which all have. joints: skeletons that the body has to have
    regressors of. approximate: the conversions that are guesses."""

    recipe: str
    topologies: tuple[str, ...]
    joints: tuple[str, ...] = ()
    approximate: tuple[str, ...] = ()


def ready_rows() -> Iterator[ReadyRow]:
    """The ready recipes, by name behind the open ones."""
    yield from (ReadyRow(name, TOPOLOGIES) for name in OPEN)
    for name in sorted(set(ready_names()) - set(OPEN)):
        recipe = ready_recipe(name)
        topologies = tuple(form for form in TOPOLOGIES if form in recipe.topologies)
        yield ReadyRow(name, topologies, recipe.regressed, recipe.calibration.conversions)


def list_table() -> str:
    """The ready recipes, a line each, with the topologies and the regressors that each needs."""
    line = "{:<47}  {:5}  {:<14} {}"
    lines = [line.format("recipe", "runs", "joints", "")]
    for row in ready_rows():
        forms = " ".join(form[0] if form in row.topologies else " " for form in TOPOLOGIES)
        joints = ", ".join(row.joints) or "-"
        lines.append(line.format(row.recipe, forms, joints, "*" if row.approximate else ""))
    return "\n".join(map(str.rstrip, lines)) + "\n" + LEGEND


def ready_recipe(name: str) -> Recipe:
    """The recipe of a name such as "vibe+cpn50_384x288+videopose3d_coco_243": seeded weights, the
    synthetic body, and the approximate conversions that its joints need.

    Raises: InputError for networks that are unknown or do not make a topology.
    """
    stages: dict[str, StageRecipe] = {}
    for network in map(str.strip, name.split("+")):
        if network in OPEN:
            raise InputError(f"{name}: {network} is a bundle of its own, to which nothing is added")
        if network not in NETWORKS:
            raise InputError(
                f"{name} is no recipe: neither a file, nor one of {', '.join(OPEN)}, nor networks "
                f"joined by '+'; {network!r} is unknown: {nearest(network, NETWORKS)}"
            )
        stage = next((kind for kind in KINDS if network in plays(kind)), None)
        if stage is None or stage in stages:
            taken = f"{stages[stage].network} is there for that already" if stage else "has no part"
            raise InputError(f"{name}: {network} is one too many: {taken}")
        stages[stage] = StageRecipe(network=network, checkpoint=SEEDED)
    _check_whole(name, stages)
    if "generator" in stages and (
        encoder := encoder_of(NETWORKS[str(stages["generator"].network)])
    ):
        stages = {"encoder": StageRecipe(network=encoder, checkpoint=SEEDED), **stages}
    recipe = Recipe(name, stages, BodyRecipe("synthetic"))
    accepted = CalibrationRecipe(conversions=approximate_conversions(recipe, name))
    return checked(replace(recipe, calibration=accepted), name)


def _check_whole(name: str, stages: Collection[str]) -> None:
    """Raises: InputError with the name of a whole recipe, where a part would have no use."""
    if "pose2d" in stages and "lifter" not in stages:
        whole = f"{name}+videopose3d_coco_243"
        raise InputError(f"{name}: nothing lifts the 2D joints: add a lifter, as in {whole}")
    if "lifter" in stages and not {"generator", "pose2d"} & set(stages):
        raise InputError(
            f"{name}: there is nothing to lift: add a generator, as in spin_hmr+{name}"
        )


def recipe_text(recipe: Recipe) -> str:
    """The TOML of a recipe of registered networks, with what a holder of the files changes.

    Raises: InputError for what no ready recipe has: custom stages, settings or precisions of one.
    """
    own = (s.kind == "custom" or s.settings or s.precisions for s in recipe.stages.values())
    if recipe.people or any(own):
        raise InputError(f"{recipe.name} has stages of its own: change the recipe's own file")
    body, calibration = recipe.body, recipe.calibration
    lines = [f"name = {json.dumps(recipe.name)}", f"topologies = {json.dumps(recipe.topologies)}"]
    if recipe.precisions != ("fp32",):
        lines.append(f"precisions = {json.dumps(recipe.precisions)}")
    lines += ["", "[body]", f"file = {json.dumps(body.file)}      # or SMPL_NEUTRAL.pkl"]
    if body.regressors:
        pairs = ", ".join(f"{name} = {json.dumps(file)}" for name, file in body.regressors.items())
        lines.append(f"regressors = {{ {pairs} }}")
    else:
        lines.append(f'# regressors = {{ {recipe.skeleton} = "FILE.npy" }}')
    if body.licence:
        lines.append(f"licence = {json.dumps(body.licence)}")
    lines += ["", "[calibration]", f"conversions = {json.dumps(calibration.conversions)}"]
    if calibration.weights:
        lines.append(f"weights = {json.dumps(calibration.weights)}")
    else:
        lines.append('# weights = "calibration.npz"      # of pchmr train calibration')
    for name, stage in recipe.stages.items():
        lines += ["", f"[stages.{name}]", f"network = {json.dumps(stage.network)}"]
        lines.append(f"checkpoint = {json.dumps(stage.checkpoint)}")
    return "\n".join(lines) + "\n"
