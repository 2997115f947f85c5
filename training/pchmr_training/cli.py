"""The verb `pchmr networks`: what the networks cost, and whether they agree with the originals."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pchmr_engines.errors import InputError, MissingDependency

networks = typer.Typer(help="The paper's networks: cost, and parity with the originals.")


@networks.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """List the networks: parameters and multiply-adds, beside those of the originals."""
    if find_spec("torch") is None:
        raise MissingDependency("torch", "train", "pchmr networks")
    if context.invoked_subcommand is not None:
        return
    from .networks import NETWORKS
    from .networks.cost import PAPER_DESIGNS, count_macs, count_parameters

    line = "{:33} {:>10} {:>12} {:>12}  {:>7} {:>7} {:>6}".format
    typer.echo(line("network", "input", "parameters", "original", "GMACs", "original", ""))
    gmacs = {}
    for name, spec in NETWORKS.items():
        gmacs[name] = count_macs(spec) / 1e9
        shape = "x".join(map(str, spec.input.shape[1:]))
        counts = f"{count_parameters(spec):,}", f"{spec.parameters:,}"
        stated = "" if spec.gmacs is None else f"{spec.gmacs:.4g}"
        off = "" if spec.gmacs is None else f"{gmacs[name] / spec.gmacs - 1:+.1%}"
        typer.echo(line(name, shape, *counts, f"{gmacs[name]:.4g}", stated, off))

    line = "{:33} {:>6} {:>6}  {}".format
    typer.echo(line("\nTable 2 of the paper, a frame", "paper", "here", "networks"))
    for row in PAPER_DESIGNS:
        ours = sum(share * gmacs[name] for name, share in row.networks.items())
        parts = " + ".join(row.networks)
        typer.echo(line(row.design, f"{row.paper_gmacs}", f"{ours:.1f}", parts))


@networks.command()
def verify(
    fixtures: Annotated[
        Path | None, typer.Option(help="Folder of the parity kit, or of fixtures alone.")
    ] = None,
) -> None:
    """Repeat every fixture in a folder; exit code 1 when one fails, is unknown or cannot run."""
    from .networks.fixtures import find_parity_kit, verify_fixture

    folder = fixtures or find_parity_kit()
    if folder is None:
        raise InputError("no parity kit here: say where with --fixtures DIR, or set PCHMR_PARITY")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise InputError(f"{folder} holds no fixtures (.npz)")
    typer.echo(f"{'fixture':34} error / tolerance, worst output")
    failed = 0
    for path in paths:
        try:
            ratios = verify_fixture(path)
        except Exception as error:  # whatever a file holds, the others are still to be run
            failed += 1
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            typer.echo(f"{path.stem:34} CANNOT RUN: {kind}{error}")
            continue
        worst = max(ratios, key=lambda name: ratios[name])
        passed = ratios[worst] <= 1
        failed += not passed
        typer.echo(f"{path.stem:34} {ratios[worst]:8.3f}  {worst}{'' if passed else '  FAIL'}")
    typer.echo(f"{len(paths) - failed} of {len(paths)} fixtures agree")
    if failed:
        raise typer.Exit(1)
