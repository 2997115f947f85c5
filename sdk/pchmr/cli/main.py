"""The command `pchmr`: its verbs come from the rooms, by entry points pchmr.commands."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points

import typer

from pchmr_engines.errors import PchmrError

EXTRAS = {"pchmr_export": "export", "pchmr_training": "train"}
"""Which extra brings the packages of a room."""


def _add_verb(app: typer.Typer, entry: EntryPoint) -> None:
    """Register a verb; one whose room lacks a package is listed, and says so when it is called."""
    try:
        verb = entry.load()
    except ImportError as error:
        extra = EXTRAS.get(entry.module.split(".")[0], "cpu")
        reason = f"{entry.name} cannot run here: {error}: run  pip install 'pchmr[{extra}]'"

        def unavailable() -> None:
            raise PchmrError(reason)

        anything = {"allow_extra_args": True, "ignore_unknown_options": True}
        short = f"(needs the extra {extra}: {error})"
        app.command(entry.name, help=short, context_settings=anything)(unavailable)
        return
    if isinstance(verb, typer.Typer):
        app.add_typer(verb, name=entry.name)
    else:
        app.command(entry.name)(verb)


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
        _add_verb(app, entry)
    return app


def _warning_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning as the command line says it: what is to be known, not where in the code."""
    return f"note: {message}\n"


def main() -> None:
    """Entry point: a user's error is one line and exit code 1; a bug keeps its traceback."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # our own line says what is wrong
    warnings.formatwarning = _warning_line
    try:
        make_app()()
    except (PchmrError, ImportError) as error:  # ImportError: the native library's, in one line too
        if getattr(error, "name", None):  # one of Python's own names a module: a bug
            raise
        print(f"pchmr: {error}", file=sys.stderr)
        raise SystemExit(1) from None
