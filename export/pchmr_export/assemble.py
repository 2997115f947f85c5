"""From a recipe to a bundle: people, stages, body, gates, precisions; written whole or not at all.

exported = export_recipe(read_recipe(Path("recipe.toml")), Path("bundle"))
exported.gates, exported.bundle.manifest
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from pchmr_engines.bundle import Bundle, check_target, write_bundle
from pchmr_engines.manifest import BodyFile, Manifest, Precision
from pchmr_engines.store import folder_beside, npz_bytes, path_inside, sha256_of
from pchmr_engines.verify import Gate, verify_bundle

from .custom_stage import OnnxModule, check_trust, check_vertices, is_file, load_custom
from .gates import check, installed_backends
from .lowering import LoweredBundle, Progress, Wanted, lower_bundle, lower_precisions
from .people_stages import build_people_stage
from .recipe import MADE_BODIES, PEOPLE, Recipe
from .recipe_body import RecipeBody, make_body
from .room import SPARE, room
from .stage_build import BuiltStage, build_stage, load_network, stage_module
from .stage_forms import LoadedNetwork
from .torch_programs import OPEN_MODULES
from .work_folder import WorkFolder, locked


@dataclass(frozen=True)
class Exported:
    """bundle: as written. gates: all that were met, of stages and of the composition. modules:
    stage -> what makes the module it was exported from, as far as there is one. lowered: what
    became of other precisions than fp32, where the recipe wants some."""

    bundle: Bundle
    gates: tuple[Gate, ...]
    modules: Mapping[str, Callable[[], nn.Module]]
    lowered: LoweredBundle | None = None


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
    specs = [stage.spec for stage in recipe.stages.values()]
    weights = sum(4 * spec.parameters for spec in specs if spec)
    with locked(target), _room(recipe.name, target, work, weights):
        _check_files(recipe, trust)
        lower_precisions(recipe.wanted)
        progress("body and calibration weights")
        body = make_body(recipe)
        built = []
        for name in PEOPLE:
            progress(f"stage {name}")
            built.append(build_people_stage(name, work))
        # Once: a factory that draws weights gives others the next time.
        custom = {
            name: load_custom(recipe, name, trust)
            for name, stage in recipe.stages.items()
            if stage.kind == "custom"
        }
        for name in recipe.stages:
            progress(f"stage {name}")
            built.append(build_stage(recipe, name, work, custom.get(name)))
            check_vertices(recipe.name, built[-1].stage.outputs, len(body.body.v_template))
        manifest, files = _bundle_parts(recipe, body, built)
        progress("composition")
        composed = _composition(recipe, body, manifest, files, work, custom)
        gates = (*(gate for stage in built for gate in stage.gates), *composed)
        manifest = _with_composition(manifest, composed)
        wanted = recipe.wanted
        bundle, lowered = _written(target, manifest, files, wanted, work, progress)
        return Exported(bundle, gates, _modules(recipe, custom), lowered)


def export_open(
    name: str,
    target: Path,
    precisions: Sequence[Precision] = ("fp32",),
    work: WorkFolder | None = None,
    progress: Progress = lambda step: None,
) -> Exported:
    """The bundle `open` or `open-plus` in a folder of its own, all its stages in `precisions`.

    Raises: PchmrError, as `export_recipe`.
    """
    work = work or WorkFolder()
    with locked(target), _room(name, target, work):
        bundle = Bundle.load(name)  # built where it is not there yet, with a progress of its own
        wanted = dict.fromkeys(bundle.stages, precisions)
        lower_precisions(wanted)
        progress("gates")
        files = {ref.file: path_inside(bundle.root, ref.file) for ref in bundle.manifest.files()}
        gates = tuple(
            gate
            for backend in installed_backends()
            for gate in check(verify_bundle(bundle, backend, precision="fp32"))
        )
        written, lowered = _written(target, bundle.manifest, files, wanted, work, progress)
        return Exported(written, gates, OPEN_MODULES, lowered)


def _written(
    target: Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    wanted: Wanted,
    work: WorkFolder,
    progress: Progress,
) -> tuple[Bundle, LoweredBundle | None]:
    """The bundle, with the graphs of other precisions than fp32 that held."""
    lowered = None
    if lower_precisions(wanted):
        with folder_beside(work.root / "lower") as folder:
            bundle = write_bundle(folder / "bundle", manifest, files)
            lowered = lower_bundle(bundle, wanted, work, progress)
        manifest, files = replace(manifest, stages=lowered.stages), {**files, **lowered.files}
    progress("bundle")
    return write_bundle(target, manifest, files), lowered


def _modules(
    recipe: Recipe, custom: Mapping[str, LoadedNetwork]
) -> dict[str, Callable[[], nn.Module]]:
    """Of registered networks and the user's own modules; an ONNX file has none."""
    found = {name: OPEN_MODULES[name] for name in PEOPLE}
    for name in recipe.stages:
        if name not in custom:
            found[name] = partial(stage_module, recipe, name)
        elif (form := custom[name].form) and not isinstance(form.module, OnnxModule):
            found[name] = partial(getattr, form, "graph_module")
    return found


def _composition(
    recipe: Recipe,
    body: RecipeBody,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    work: WorkFolder,
    custom: Mapping[str, LoadedNetwork],
) -> tuple[Gate, ...]:
    """The gates of the whole, from the work folder where the very same parts were tried before.

    Raises: GateFailed where the bundle is not what PyTorch computes.
    """
    from .composition import composition_gates

    def make(folder: Path) -> None:
        with folder_beside(folder / "bundle") as scratch:
            bundle = write_bundle(scratch / "bundle", manifest, files)
            own = {name: load_network(recipe, name) for name in recipe.stages if name not in custom}
            gates = composition_gates(recipe, body, {**own, **custom}, bundle, installed_backends())
        text = json.dumps([asdict(gate) for gate in check(gates)])
        (folder / "gates.json").write_text(text, encoding="utf-8")

    hashes = {
        name: hashlib.sha256(part).hexdigest() if isinstance(part, bytes) else sha256_of(part)
        for name, part in files.items()
    }
    folder = work.step({"files": hashes, "topologies": list(recipe.topologies)}, make)
    stored = json.loads((folder / "gates.json").read_text(encoding="utf-8"))
    return tuple(Gate(**gate) for gate in stored)


def _with_composition(manifest: Manifest, gates: Sequence[Gate]) -> Manifest:
    """The manifest with the worst of each composition gate, mm, beside the calibration."""
    worst: dict[str, float] = {}
    for gate in gates:
        worst[gate.output] = max(gate.value, worst.get(gate.output, 0.0))
    (pair,) = manifest.calibrations
    pair = replace(pair, settings={**pair.settings, "composition": worst})
    return replace(manifest, calibrations=(pair,))


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


def _check_files(recipe: Recipe, trust: bool) -> None:
    """Raises: InputError for a file that the recipe names and that is not there, or for code that
    it would run without `trust`."""
    body, weights = recipe.body, recipe.calibration.weights
    named = [*body.regressors.values(), *([weights] if weights else [])]
    named += [] if body.file in MADE_BODIES else [body.file]
    for name, stage in recipe.stages.items():
        check_trust(recipe, name, trust)
        named += [stage.checkpoint] if stage.checkpoint and not stage.is_seeded else []
        named += [stage.source] if stage.source and is_file(stage.source) else []
    for text in named:
        recipe.path(text)


def _room(
    name: str, target: Path, work: WorkFolder, weights: int = 0
) -> AbstractContextManager[None]:
    """Room for a bundle and its stages, of `weights` bytes. Raises: BundleError where no bundle
    can be put; and as `room`."""
    check_target(target)
    then = f", and run it again: finished stages are kept in {work.root}"
    return room(name, SPARE + weights, target, work.root / "step", then=then)
