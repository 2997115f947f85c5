"""The command `pchmr`: its verbs come from the rooms, by entry points pchmr.commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from pchmr_engines.errors import PchmrError


def _verb(entry: EntryPoint) -> Callable[..., Any] | typer.Typer:
    """The function behind a verb; one whose room lacks a package says so when it is called."""
    try:
        return entry.load()
    except ImportError as error:
        reason = f"{entry.name} cannot run here: {error}"

        def unavailable() -> None:
            raise PchmrError(reason)

        unavailable.__doc__ = f"(not available: {error})"
        return unavailable


def make_app() -> typer.Typer:
    """The application with every registered verb, in alphabetical order."""
    app = typer.Typer(
        name="pchmr",
        help="From camera frame to pose-calibrated 3D body mesh.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for entry in sorted(entry_points(group="pchmr.commands"), key=lambda entry: entry.name):
        verb = _verb(entry)
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=entry.name)
        else:
            app.command(entry.name)(verb)
    return app


def main() -> None:
    """Entry point: a user's error is one line and exit code 1; a bug keeps its traceback."""
    try:
        make_app()()
    except PchmrError as error:
        print(f"pchmr: {error}", file=sys.stderr)
        raise SystemExit(1) from None
