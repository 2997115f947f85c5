"""The verb `pchmr export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe (.toml), or the name of a ready one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")] = Path(
        "bundle"
    ),
) -> None:
    """From checkpoints to a verified bundle."""
    from .assemble import export_recipe
    from .recipe import read_recipe

    result = export_recipe(read_recipe(Path(str(recipe))), out, progress=typer.echo)
    typer.echo(str(result.bundle.root))
