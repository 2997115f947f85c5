"""Ready recipes: a generator and a pose stream of registered networks, joined by "+".

recipe = ready_recipe("spin_hmr+hrnet_w32_256x192+videopose3d_h36m_27")
print(recipe_text(recipe))        # as a file, to be changed
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
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


def ready_names() -> Iterator[str]:
    """The names of the ready recipes that are listed; other networks combine in the same way."""
    parts: Mapping[str, list[str]] = read_toml(PARTS)
    yield from OPEN
    for generator in parts["generator"]:
        yield from (f"{generator}+{lifter}" for lifter in parts["lifter"])
        for pose2d in parts["pose2d"]:
            yield from (f"{generator}+{pose2d}+{lifter}" for lifter in parts["lifter"])
        yield from (f"{generator}+{pose3d}" for pose3d in parts["pose3d"])


def list_table() -> str:
    """The ready recipes with the topologies and the approximate conversions of each."""
    lines = [f"{name}  serial, parallel, template, mesh-only" for name in OPEN]
    for name in ready_names():
        if name not in OPEN:
            recipe = ready_recipe(name)
            guesses = "; ".join(recipe.calibration.conversions)
            note = f"  (approximate: {guesses})" if guesses else ""
            lines.append(f"{name}  {', '.join(recipe.topologies)}{note}")
    return "\n".join(lines) + "\nOther networks of  pchmr networks  combine in the same way."


def ready_recipe(name: str) -> Recipe:
    """The recipe of a name such as "vibe+cpn50_384x288+videopose3d_coco_243": seeded weights, the
    synthetic body, and the approximate conversions that its joints need.

    Raises: InputError for networks that are unknown or do not make a topology.
    """
    stages: dict[str, StageRecipe] = {}
    for network in name.split("+"):
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
    if "generator" in stages and (
        encoder := encoder_of(NETWORKS[str(stages["generator"].network)])
    ):
        stages = {"encoder": StageRecipe(network=encoder, checkpoint=SEEDED), **stages}
    recipe = Recipe(name, stages, BodyRecipe("synthetic"))
    accepted = CalibrationRecipe(conversions=approximate_conversions(recipe, name))
    return checked(replace(recipe, calibration=accepted), name)


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
