"""From a recipe to a bundle: people, stages, body and gates, written whole or not at all.

report = export_recipe(read_recipe(Path("recipe.toml")), Path("bundle"))
report.gates, report.bundle.manifest
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import BodyFile, Manifest
from pchmr_engines.store import npz_bytes
from pchmr_engines.verify import Gate

from .people_stages import PEOPLE, build_people_stage
from .recipe import Recipe
from .recipe_body import RecipeBody, make_body
from .stage_build import BuiltStage, build_stage
from .work_folder import WorkFolder, locked

Progress = Callable[[str], None]
"""Called with each step as it begins."""


@dataclass(frozen=True)
class Exported:
    """bundle: as written. gates: all that were met, of stages and of the composition."""

    bundle: Bundle
    gates: tuple[Gate, ...]


def export_recipe(
    recipe: Recipe,
    target: Path,
    work: WorkFolder | None = None,
    trust: bool = False,
    progress: Progress = lambda step: None,
) -> Exported:
    """Make the bundle of a recipe; a bundle that is there already is replaced in one step.

    work: where finished stages are kept, by default in the cache. trust: run the recipe's own
    code (custom stages from a module or TorchScript).

    Raises: PchmrError, one line: whatever in the recipe, its files, this machine or the gates
    stands in the way; the old bundle is then as it was.
    """
    work = work or WorkFolder()
    with locked(target):
        _check_files(recipe)
        _check_space(recipe, target, work)
        progress("body and calibration weights")
        body = make_body(recipe)
        built = []
        for name in (*PEOPLE, *recipe.stages):
            progress(f"stage {name}")
            built.append(
                build_people_stage(name, work)
                if name in PEOPLE
                else build_stage(recipe, name, work)
            )
        manifest, files = _bundle_parts(recipe, body, built)
        progress("bundle")
        bundle = write_bundle(target, manifest, files)
    return Exported(bundle, tuple(gate for stage in built for gate in stage.gates))


def _bundle_parts(
    recipe: Recipe, body: RecipeBody, built: list[BuiltStage]
) -> tuple[Manifest, Mapping[str, bytes | Path]]:
    files: dict[str, bytes | Path] = {"body.npz": npz_bytes(dict(body.arrays))}
    for stage in built:
        files |= stage.files
    manifest = Manifest(
        name=recipe.name,
        topologies=recipe.topologies,
        stages=tuple(stage.stage for stage in built),
        body=BodyFile("body.npz", body.provenance),
        calibrations=(body.calibration,),
    )
    return manifest, files


def _check_files(recipe: Recipe) -> None:
    """Raises: InputError for a file that the recipe names and that is not there."""
    body, weights = recipe.body, recipe.calibration.weights
    named = [*body.regressors.values(), *([weights] if weights else [])]
    named += [] if body.file in ("open", "synthetic") else [body.file]
    for stage in recipe.stages.values():
        named += [stage.checkpoint] if stage.checkpoint and not stage.is_seeded else []
    for text in named:
        recipe.path(text)


def _check_space(recipe: Recipe, target: Path, work: WorkFolder) -> None:
    """Raises: InputError where the disk cannot hold the graphs, in work folder or bundle."""
    specs = [stage.spec for stage in recipe.stages.values()]
    needed = 2**28 + sum(4 * spec.parameters for spec in specs if spec)
    for folder in (target, work.root):
        existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise InputError(
                f"{folder} has {free / 1e9:.1f} GB free; {recipe.name} needs about "
                f"{needed / 1e9:.1f} GB: free some, or choose another disk"
            )
