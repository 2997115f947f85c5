"""`pchmr webcam`: a camera, a stream or a file as one, in real time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pchmr_engines.cli import JsonOption, print_json
from pchmr_engines.errors import InputError

from .options import (
    BundleOption,
    Frames,
    PipelineOptions,
    Topology,
    source_named,
    tell,
    with_pipeline_options,
)

if TYPE_CHECKING:
    import numpy as np

    from ..live import LiveSession, Viewer

Option = typer.Option
RECONNECT_S = 30.0


@with_pipeline_options()
def webcam(
    options: PipelineOptions,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Camera index, device path, stream URL (rtsp://), GStreamer pipeline, video file "
            "played at its own rate, or demo for the demo video.",
        ),
    ] = "0",
    bundle: BundleOption = "open",
    topology: Topology = "parallel",
    out: Annotated[
        Path | None,
        Option("--out", "-o", metavar="PATH", help="Record from the start: an mp4, or a folder."),
    ] = None,
    headless: Annotated[
        bool, Option("--headless", help="No window: a page for the browser, at an address told.")
    ] = False,
    no_draw: Annotated[
        bool, Option("--no-draw", help="Neither window nor page: figures only.")
    ] = False,
    host: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="Of the page; by default 127.0.0.1, this machine."),
    ] = None,
    port: Annotated[
        int | None,
        Option(
            min=1, max=65535, metavar="N", help="Of the page, or the next that is free; else 8080."
        ),
    ] = None,
    every_frame: Annotated[
        bool, Option("--every-frame", help="Infer every frame, late if need be; drop none.")
    ] = False,
    loop: Annotated[bool, Option("--loop", help="Begin a file again at its end.")] = False,
    reconnect: Annotated[
        float | None,
        Option(
            min=0,
            metavar="SECONDS",
            help=f"How long a lost camera or stream is looked for; else {RECONNECT_S:.0f}.",
        ),
    ] = None,
    frames: Frames = None,
    seconds: Annotated[
        float | None, Option(min=0.001, metavar="S", help="Stop so long after the first result.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the pose-calibrated mesh over a live picture, with its latency.

    \b
    Keys in the window, buttons on the page:
      t serial / parallel    c before / after calibration    r record
      space pause            q quit

    \b
    pchmr webcam                                 the first camera, in a window
    pchmr webcam rtsp://host/stream --headless   in the browser
    pchmr webcam demo --loop --people 2          the demo video, again and again
    pchmr webcam 0 --no-draw --seconds 60        figures of a minute
    """
    from contextlib import closing

    from ..live import LiveSession, Topologies, names_of_recordings, open_live

    if (host or port) and (no_draw or not headless):
        raise InputError("--host and --port are of the page: give --headless, without --no-draw")
    spec, keywords = source_named(source), options.keywords()
    kept_s = RECONNECT_S if reconnect is None else reconnect
    with open_live(spec, every_frame=every_frame, loop=loop, reconnect_s=kept_s) as input:
        if input.live and loop:
            raise InputError(f"--loop is of a file; {source} is a {input.kind}: leave it out")
        if reconnect is not None and not input.live:
            raise InputError(f"--reconnect is of a camera or stream; {source} is a file")
        names = names_of_recordings(out or Path("out"), input, spec)
        session: LiveSession | None = None
        try:
            with (
                Topologies(options.load(bundle), topology, **keywords) as topologies,
                closing(
                    _viewer(topologies.current.body.faces, headless, no_draw, host, port)
                ) as viewer,
            ):
                tell([*options.notes(), topologies.current.device_note])
                session = LiveSession(
                    input, topologies, recordings=names, record=out is not None, frames=frames
                )
                with session:
                    session.run(viewer, seconds)
        except KeyboardInterrupt:
            pass  # how a live session is ended
        finally:
            if session is not None:
                _report(session, as_json)


def _viewer(
    faces: np.ndarray, headless: bool, no_draw: bool, host: str | None, port: int | None
) -> Viewer:
    from ..live import Browser, Figures, Window

    if no_draw:
        return Figures()
    if not headless:
        return Window(faces)
    given: dict[str, Any] = {"host": host, "port": port}
    browser = Browser(faces, **{name: value for name, value in given.items() if value})
    typer.echo(f"look at {browser.url}  (Ctrl-C or the button quit ends it)", err=True)
    return browser


def _report(session: LiveSession, as_json: bool) -> None:
    """The figures of the whole session, and where the recordings are."""
    tell(session.source.notes)
    summary = {
        **session.log.summary(),
        "frames": session.log.frames,
        "frames_with_people": session.log.frames_with_people,
        "dropped": session.source.dropped,
        "recorded": [
            {"overlay": str(outputs.overlay), "results": str(outputs.results)}
            for outputs in session.written
        ],
        "not_recorded": session.missed,
    }
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    frames, dropped = summary["frames"], summary["dropped"]
    seen = summary["frames_with_people"]
    whom = f"{seen} with a person" if seen else "nobody was seen"
    typer.echo(f"{frames} frames, {whom}, {summary['fps']} a second, {dropped} dropped")
    if seen:
        _print_latency(summary)
    for written in summary["recorded"]:
        typer.echo(f"recorded {written['overlay']} and {written['results']}")
    if summary["not_recorded"]:
        typer.echo(f"frames not recorded for want of time: {summary['not_recorded']}")


def _print_latency(summary: dict[str, Any]) -> None:
    rows = {
        "camera to mesh": "camera_to_mesh_ms",
        "  capture wait and decoding": "decode_ms",
        "  queue": "queue_ms",
        "  inference": "inference_ms",
        "apart: display wait and drawing": "draw_ms",
    }
    typer.echo(f"{'ms':32}{'p50':>8}{'p95':>8}{'p99':>8}")
    for label, name in rows.items():
        if summary[name]["p50"] is not None:
            typer.echo(f"{label:32}" + "".join(f"{ms:8.1f}" for ms in summary[name].values()))
    typer.echo(f"camera to mesh is {summary['includes']}")
    typer.echo(f"not in it: {summary['excludes']}")
