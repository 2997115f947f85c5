"""The verb `pchmr export`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pchmr_engines.verify import Gate

    from .assemble import Progress
    from .recipe import Recipe
    from .single_forms import Whole


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
    """From PyTorch checkpoints to a verified bundle: ONNX stages, body, and gates on every backend.

    pchmr export --list
    pchmr export spin_hmr+videopose3d_h36m_243 --show > recipe.toml
    pchmr export recipe.toml -o bundle/
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
    if recipe in OPEN and single_file is not None:
        from .single_forms import whole_of_open

        _export_single(whole_of_open(recipe, topology), single_file)
        return
    if recipe in OPEN:
        _export_open(recipe, out)
        return
    chosen = _changed(_find(recipe), checkpoint, body, regressor, calibration)
    if show:
        typer.echo(recipe_text(chosen), nl=False)
        return
    if single_file is not None:
        from .single_forms import whole_of_recipe

        _export_single(whole_of_recipe(chosen, topology, trust), single_file)
        return
    from .assemble import export_recipe
    from .work_folder import WorkFolder

    folder = WorkFolder(work) if work else None
    with _progress(len(chosen.stages)) as progress:
        exported = export_recipe(chosen, out, folder, trust, progress)
    _print_gates(exported.gates)
    refused = exported.lowered.refused if exported.lowered else ()
    for line in refused:
        typer.echo(f"refused: {line}", err=True)
    if report:
        from .report import write_report

        typer.echo(str(write_report(exported.bundle, exported.gates, exported.lowered)))
    typer.echo(f"{exported.bundle.root}: {', '.join(chosen.topologies)}")
    if refused:
        raise typer.Exit(1)


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
) -> "Recipe":
    """The recipe with files of the command line, whose paths begin in the current folder."""
    from dataclasses import replace

    from .recipe import with_files

    def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
        return dict(_pair(option, text) for text in texts or ())

    recipe = with_files(
        recipe,
        {stage: _absolute(file) for stage, file in pairs("--checkpoint", checkpoints).items()},
        body if body in (None, "open", "synthetic") else _absolute(str(body)),
        {name: _absolute(file) for name, file in pairs("--regressor", regressors).items()},
    )
    if calibration is None:
        return recipe
    weights = _absolute(str(calibration))
    return replace(recipe, calibration=replace(recipe.calibration, weights=weights))


def _pair(option: str, text: str) -> tuple[str, str]:
    from pchmr_engines.errors import InputError

    name, _, file = text.partition("=")
    if not file:
        raise InputError(f"{option} {text}: expected NAME=FILE")
    return name, file


def _absolute(file: str) -> str:
    return file if file == "seeded" else str(Path(file).expanduser().absolute())


def _export_single(whole: "Whole", path: Path) -> None:
    from .single_file import export_single_file

    file, gates = export_single_file(whole, path)
    _print_gates(gates)
    typer.echo(f"{file.path}: {'; '.join(map(str, (*file.inputs, *file.outputs)))}")


def _export_open(name: str, out: Path) -> None:
    from .open_bundle import OPEN_LANDMARKS, build_bundle
    from .work_folder import locked

    with locked(out):
        build_bundle(out, name, OPEN_LANDMARKS[name])
    typer.echo(str(out))


@contextmanager
def _progress(stages: int) -> "Iterator[Progress]":
    """A bar on stderr that names the step and how long it has taken so far."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from .people_stages import PEOPLE

    steps = len(PEOPLE) + stages + 3  # body, bundle, composition
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("export", total=steps)
        begun = 0

        def begin(step: str) -> None:
            nonlocal begun
            bar.update(task, description=step, completed=begun)
            begun += 1

        yield begin
        bar.update(task, description="exported", completed=steps)


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
