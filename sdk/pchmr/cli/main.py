"""The command `pchmr`: its verbs come from the rooms, by entry points pchmr.commands."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points, version
from inspect import signature
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from pchmr_engines.errors import PchmrError

HELP = """From camera frame to pose-calibrated 3D body mesh.

\b
pchmr demo                         the demo video through both topologies
pchmr run walk.mp4                 a video or photo to overlay and meshes
pchmr webcam                       live; --headless: in the browser
pchmr convert out/walk.npz -o walk.glb
pchmr VERB --help                  options and more examples
"""
EXTRAS = {"pchmr_export": "export", "pchmr_training": "train"}
"""Which extra brings the packages of a room."""


ORDER = (
    *("run", "webcam", "demo", "convert", "profile"),
    *("export", "build", "verify", "inspect", "networks", "train"),
    *("doctor", "assets"),
)
"""Of the verbs in the help: use, bundles, this machine; others follow."""


class Verbs(TyperGroup):
    """The verbs in their order."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = {name: number for number, name in enumerate(ORDER)}
        return sorted(self.commands, key=lambda name: (known.get(name, len(known)), name))


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
        app.add_typer(verb, name=entry.name, short_help=verb.info.help)
    else:
        first = (verb.__doc__ or "").strip().partition("\n")[0]
        # One that takes the context looks at further arguments itself.
        more = {"allow_extra_args": "context" in signature(verb).parameters}
        app.command(entry.name, short_help=first, context_settings=more)(verb)


def make_app() -> typer.Typer:
    """The application with every registered verb."""
    app = typer.Typer(
        name="pchmr",
        help=HELP,
        cls=Verbs,
        rich_markup_mode=None,  # plain text: two columns that can be read at 80
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for entry in entry_points(group="pchmr.commands"):
        _add_verb(app, entry)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pchmr {version('pchmr')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None: ...


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
    """A user's error is one line and exit code 1; a bug keeps its traceback."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # our own line says what is wrong
    warnings.formatwarning = _warning_line
    try:
        make_app()()
    except (PchmrError, ImportError) as error:  # ImportError: the native library's, in one line too
        if getattr(error, "name", None):  # one of Python's own names a module: a bug
            raise
        _fail(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail(f"{error.strerror}: make room")  # where it prints to


def _fail(reason: str) -> NoReturn:
    print(f"pchmr: {reason}", file=sys.stderr)
    raise SystemExit(1) from None
