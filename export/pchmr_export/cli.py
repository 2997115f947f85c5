"""The verb `pchmr export`."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pchmr_engines.manifest import Precision
    from pchmr_engines.verify import Gate

    from .assemble import Exported, Progress
    from .lowering import LoweredBundle
    from .recipe import Recipe
    from .single_whole import Whole


def export(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe (.toml), or the name of a ready one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")] = Path(
        "bundle"
    ),
    list_ready: Annotated[
        bool, typer.Option("--list", help="List the ready recipes and stop.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe as TOML, to be changed, and stop.")
    ] = False,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="STAGE=FILE: the weights of a stage; repeat.")
    ] = None,
    body: Annotated[
        str | None, typer.Option(help="SMPL .pkl or .npz, an open body's .npz, open, synthetic.")
    ] = None,
    regressor: Annotated[
        list[str] | None,
        typer.Option(help="SKELETON=FILE.npy: joints that the body file lacks; repeat."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Weights of pchmr train calibration.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Where finished stages are kept; the cache by default.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Also fp16, bf16, int8, fp8, within budgets; repeat. Default stays fp32."
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option(help="Run the code of the recipe's custom stages.")
    ] = False,
    single_file: Annotated[
        Path | None,
        typer.Option(help="Write no bundle, but one ONNX of the whole, for other runtimes."),
    ] = None,
    topology: Annotated[
        str, typer.Option(help="Of the single file: serial or parallel.")
    ] = "serial",
    report: Annotated[
        bool, typer.Option(help="Write report/ into the bundle: tables, plots, times measured.")
    ] = True,
) -> None:
    """From PyTorch checkpoints to a verified bundle, gated on every backend.

    pchmr export --list
    pchmr export spin_hmr+videopose3d_h36m_243 --show > recipe.toml
    pchmr export recipe.toml -o bundle/
    pchmr export open -o bundle/ --precision fp16 --precision bf16
    """
    from importlib.util import find_spec

    from pchmr_engines.errors import InputError, MissingDependency

    if find_spec("torch") is None:
        raise MissingDependency("torch", "export", "pchmr export")
    from .ready import OPEN, list_table, recipe_text

    if list_ready:
        typer.echo(list_table())
        return
    if recipe is None:
        raise InputError("which recipe? give a .toml or a name that  pchmr export --list  shows")
    from .assemble import export_open, export_recipe
    from .work_folder import WorkFolder

    if recipe in OPEN and (show or checkpoint or body or regressor or calibration):
        raise InputError(
            f"{recipe} is built from pinned files, with no recipe to show or change: name networks "
            "joined by +, or leave --show, --checkpoint, --body, --regressor, --calibration out"
        )
    folder, precisions = WorkFolder(work) if work else None, _precisions(precision)
    if recipe in OPEN and single_file is not None:
        from .single_whole import whole_of_open

        _export_single(whole_of_open(recipe, topology), single_file)
        return
    if recipe in OPEN:
        with _progress() as progress:
            exported = export_open(recipe, out, precisions or ("fp32",), folder, progress)
        _print_exported(exported, report)
        return
    chosen = _changed(_find(recipe), checkpoint, body, regressor, calibration, precisions)
    if show:
        typer.echo(recipe_text(chosen), nl=False)
        return
    if single_file is not None:
        from .single_whole import whole_of_recipe

        _export_single(whole_of_recipe(chosen, topology, trust), single_file)
        return
    with _progress() as progress:
        exported = export_recipe(chosen, out, folder, trust, progress)
    _print_exported(exported, report)


def _find(text: str) -> "Recipe":
    from .ready import ready_recipe
    from .recipe import read_recipe

    is_file = text.endswith(".toml") or Path(text).exists()
    return read_recipe(Path(text)) if is_file else ready_recipe(text)


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

    from .recipe import with_files
    from .recipe_checks import checked

    def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
        return dict(_pair(option, text) for text in texts or ())

    recipe = with_files(
        recipe,
        {stage: _absolute(file) for stage, file in pairs("--checkpoint", checkpoints).items()},
        body if body in (None, "open", "synthetic") else _absolute(str(body)),
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

    named = tuple(dict.fromkeys(precision_named(text) for text in texts or ()))
    return named if "fp32" in named or not named else ("fp32", *named)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A spinner on stderr that names the step, with the time since the export began."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("export", total=None)
        steps = count(1)
        yield lambda step: bar.update(task, description=f"{next(steps)}. {step}")
        bar.update(task, description="exported")


def _export_single(whole: "Whole", path: Path) -> None:
    from .single_file import export_single_file

    file, gates = export_single_file(whole, path)
    _print_gates(gates)
    typer.echo(f"{file.path}: {'; '.join(map(str, (*file.inputs, *file.outputs)))}")


def _print_exported(exported: "Exported", report: bool) -> None:
    """Tables, and where things are. Raises: Exit 1 where a precision was refused."""
    _print_gates(exported.gates)
    lowered = exported.lowered
    if lowered:
        _print_lowered(lowered)
    if report:
        from .report import write_report

        typer.echo(str(write_report(exported.bundle, exported.gates, lowered)))
    typer.echo(f"{exported.bundle.root}: {', '.join(exported.bundle.manifest.topologies)}")
    if lowered and lowered.refused:
        raise typer.Exit(1)


def _print_lowered(lowered: "LoweredBundle") -> None:
    """What of each budget was spent, the layers that stayed float32, and what did not hold."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("lowered", "quantity", "precision", "backend", "mean", "budget"):
        table.add_column(column, overflow="fold")
    for figure in (*lowered.spent, *(mesh.spent for mesh in lowered.composed)):
        budget = f"{figure.budget:.2g} {figure.unit}"
        names = figure.stage, figure.quantity, figure.precision, figure.backend
        table.add_row(*names, f"{figure.mean:.2g}", budget)
    Console(markup=False, highlight=False).print(table)
    for stage in lowered.stages:
        for graph in stage.graphs:
            typer.echo(": ".join((f"{stage.name} in {graph.precision}", *graph.notes)))
    for line in lowered.refused:
        typer.echo(f"refused: {line}", err=True)


def _print_gates(gates: "tuple[Gate, ...]") -> None:
    """The parity table: a line for each output, with its worst value on each backend."""
    from rich.console import Console
    from rich.table import Table

    backends = list(dict.fromkeys(gate.backend for gate in gates))
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "output", "precision", *backends, "allowed"):
        table.add_column(column, overflow="fold")
    rows: dict[tuple[str, str, str], dict[str, Gate]] = {}
    for gate in gates:
        rows.setdefault((gate.stage, gate.output, gate.precision), {})[gate.backend] = gate
    for key, found in rows.items():
        values = [f"{found[name].value:.2g}" if name in found else "" for name in backends]
        gate = next(iter(found.values()))
        table.add_row(*key, *values, f"{gate.tolerance:.2g} {gate.unit}")
    Console(markup=False, highlight=False).print(table)
