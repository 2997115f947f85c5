"""The verb `pchmr export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pchmr_engines.cli import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from pchmr_engines.manifest import Precision
    from pchmr_engines.verify import Gate

    from .lowering import LoweredBundle
    from .recipe import Recipe


def export(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe (.toml), or the name of a ready one."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the bundle goes.")
    ] = Path("bundle"),
    list_ready: Annotated[
        bool, typer.Option("--list", help="List the ready recipes and stop.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe as TOML, to be changed, and stop.")
    ] = False,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE=FILE", help="The weights of a stage; repeat."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="SMPL's .pkl or .npz, or another body's; open, synthetic."
        ),
    ] = None,
    regressor: Annotated[
        list[str] | None,
        typer.Option(metavar="SKELETON=FILE", help="Joints that the body lacks (.npy); repeat."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of pchmr train calibration.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where finished stages are kept; by default the cache."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Also fp16,bf16,int8,fp8, each within its budget; fp32 still runs by default.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of the recipe's custom stages.")
    ] = False,
    single_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="No bundle: one ONNX of the whole, for other runtimes."),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this one of a recipe's; of a single file serial by default."
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report", help="report/ in the bundle: tables, plots, times measured."
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """From PyTorch checkpoints to a verified bundle, gated on every backend.

    \b
    pchmr export --list
    pchmr export spin_hmr+videopose3d_h36m_243 --show > recipe.toml
    pchmr export recipe.toml -o bundle/
    pchmr export open -o bundle/ --precision fp16,bf16
    """
    from dataclasses import asdict
    from importlib.util import find_spec

    from pchmr_engines.errors import InputError, MissingDependency

    for package in ("torch", "onnxscript"):  # the second, torch's exporter, comes by no other extra
        if find_spec(package) is None:
            raise MissingDependency(package, "export", "pchmr export")
    from .ready import OPEN, list_table, ready_rows, recipe_text

    if list_ready:
        if as_json:
            print_json([asdict(row) for row in ready_rows()])
        else:
            typer.echo(list_table())
        return
    if recipe is None:
        raise InputError("which recipe? give a .toml or a name that  pchmr export --list  shows")
    if show and as_json:
        raise InputError("--show prints TOML: leave it or --json out")
    precisions = _precisions(precision)
    if single_file is not None and precisions:
        raise InputError("a single file is float32: leave --precision out, or export a bundle")
    chosen = None
    if recipe not in OPEN:
        chosen = _find(recipe, None if single_file else topology)
        chosen = _changed(chosen, checkpoint, body, regressor, calibration, precisions)
    elif show or checkpoint or body or regressor or calibration or (topology and not single_file):
        raise InputError(
            f"{recipe} is built from pinned files, with no recipe to show or change: name networks "
            "joined by +, or leave --show, --checkpoint, --body, --regressor, --calibration, "
            "--topology out"
        )
    if show and chosen is not None:
        typer.echo(recipe_text(chosen), nl=False)
    elif single_file is not None:
        _export_single(chosen or recipe, topology or "serial", trust, single_file, as_json)
    else:
        _export_bundle(chosen or recipe, out, precisions, work, trust, report, as_json)


def _export_bundle(
    recipe: "Recipe | str",
    out: Path,
    precisions: "tuple[Precision, ...]",
    work: Path | None,
    trust: bool,
    report: bool,
    as_json: bool,
) -> None:
    """recipe: one that has its precisions, or the name of an open bundle.

    Raises: Exit 1 where a precision was refused.
    """
    from pchmr_engines.progress import progress

    from .assemble import export_open, export_recipe
    from .report import outcome, write_report
    from .work_folder import WorkFolder

    folder = WorkFolder(work) if work else None
    with progress() as tell:
        if isinstance(recipe, str):
            exported = export_open(recipe, out, precisions or ("fp32",), folder, tell)
        else:
            exported = export_recipe(recipe, out, folder, trust, tell)
        lowered, bundle = exported.lowered, exported.bundle
        written = None
        if report:
            tell("report: times of every stage")
            written = write_report(bundle, exported.gates, lowered, modules=exported.modules)
    if as_json:
        about = {
            "bundle": str(bundle.root),
            "topologies": bundle.manifest.topologies,
            "report": str(written) if written else None,
        }
        print_json({**about, **outcome(exported.gates, lowered)})
    else:
        _print_gates(exported.gates)
        if lowered:
            _print_lowered(lowered)
        typer.echo(f"{bundle.root}: {', '.join(bundle.manifest.topologies)}")
        if written:
            typer.echo(str(written))
    if lowered and lowered.refused:
        raise typer.Exit(1)


def _export_single(
    recipe: "Recipe | str", topology: str, trust: bool, path: Path, as_json: bool
) -> None:
    from dataclasses import asdict

    from pchmr_engines.progress import progress

    from .report import outcome
    from .single_file import export_single_file
    from .single_whole import whole_of_open, whole_of_recipe

    with progress() as tell:
        tell("the whole in PyTorch, on the demo video")
        if isinstance(recipe, str):
            whole = whole_of_open(recipe, topology)
        else:
            whole = whole_of_recipe(recipe, topology, trust)
        tell("one ONNX of it, and its gates")
        file, gates = export_single_file(whole, path)
    if as_json:
        ends = {"inputs": file.inputs, "outputs": file.outputs}
        tensors = {key: [asdict(spec) for spec in specs] for key, specs in ends.items()}
        print_json({"file": str(file.path), "topology": topology, **tensors, **outcome(gates)})
        return
    _print_gates(gates)
    for spec in file.inputs:
        typer.echo(f"   {spec}")
    for spec in file.outputs:
        typer.echo(f"-> {spec}")
    typer.echo(f"{file.path}: {topology}")


def _find(text: str, topology: str | None) -> "Recipe":
    """The recipe of a file or a name, with one topology of it. Raises: InputError."""
    from dataclasses import replace

    from pchmr_engines.errors import InputError

    from .ready import ready_recipe
    from .recipe import read_recipe

    is_file = text.endswith(".toml") or Path(text).exists()
    recipe = read_recipe(Path(text)) if is_file else ready_recipe(text)
    if topology is None:
        return recipe
    for known in recipe.topologies:
        if known == topology:
            return replace(recipe, topologies=(known,))
    raise InputError(
        f"{recipe.name}: --topology {topology}: its stages allow {', '.join(recipe.topologies)}"
    )


def _changed(
    recipe: "Recipe",
    checkpoints: list[str] | None,
    body: str | None,
    regressors: list[str] | None,
    calibration: Path | None,
    precisions: "tuple[Precision, ...]",
) -> "Recipe":
    """The recipe with files of the command line, whose paths begin in the current folder."""
    from dataclasses import replace

    from .recipe import MADE_BODIES, with_files
    from .recipe_checks import checked

    def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
        return dict(_pair(option, text) for text in texts or ())

    recipe = with_files(
        recipe,
        {stage: _absolute(file) for stage, file in pairs("--checkpoint", checkpoints).items()},
        body if body is None or body in MADE_BODIES else _absolute(body),
        {name: _absolute(file) for name, file in pairs("--regressor", regressors).items()},
    )
    if calibration is not None:
        weights = _absolute(str(calibration))
        recipe = replace(recipe, calibration=replace(recipe.calibration, weights=weights))
    return checked(replace(recipe, precisions=precisions or recipe.precisions), recipe.name)


def _pair(option: str, text: str) -> tuple[str, str]:
    from pchmr_engines.errors import InputError

    name, _, file = text.partition("=")
    if not file:
        raise InputError(f"{option} {text}: expected NAME=FILE")
    return name, file


def _absolute(file: str) -> str:
    return file if file == "seeded" else str(Path(file).expanduser().absolute())


def _precisions(texts: list[str] | None) -> "tuple[Precision, ...]":
    """Of the command line; fp32 leads unless it has a place of its own. Raises: InputError."""
    from pchmr_engines.manifest import precision_named

    parts = [part.strip() for text in texts or () for part in text.split(",")]
    named = tuple(dict.fromkeys(map(precision_named, parts)))
    return named if "fp32" in named or not named else ("fp32", *named)


def _print_lowered(lowered: "LoweredBundle") -> None:
    """What of each budget was spent, the layers that stayed float32, and what did not hold."""
    print_table(
        ("lowered", "precision", "backend", "mean", "budget"),
        [
            (
                f"{figure.stage}: {figure.quantity}",
                *(figure.precision, figure.backend, f"{figure.mean:.2g}"),
                f"{figure.budget:.2g} {figure.unit}",
            )
            for figure in lowered.figures
        ],
    )
    for stage in lowered.stages:
        for graph in stage.graphs:
            if graph.notes:
                typer.echo(": ".join((f"{stage.name} in {graph.precision}", *graph.notes)))
    for line in lowered.refused:
        typer.echo(f"refused: {line}", err=True)


def _print_gates(gates: "tuple[Gate, ...]") -> None:
    """The parity table: a line for each output, with its worst value on each backend."""
    backends = tuple(dict.fromkeys(gate.backend for gate in gates))
    found: dict[tuple[str, str, str], dict[str, Gate]] = {}
    for gate in gates:
        found.setdefault((gate.stage, gate.output, gate.precision), {})[gate.backend] = gate
    rows = []
    for key, its in found.items():
        values = [f"{its[name].value:.2g}" if name in its else "" for name in backends]
        gate = next(iter(its.values()))
        rows.append((*key, *values, f"{gate.tolerance:.2g} {gate.unit}"))
    print_table(("stage", "output", "precision", *backends, "allowed"), rows)
