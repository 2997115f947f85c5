"""`pchmr webcam`: a camera, a stream or a file as one, in real time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Backend,
    Bundle,
    CameraFile,
    Center,
    Detector,
    DetectorFormat,
    DetectorStride,
    Device,
    Distortion,
    Focal,
    People,
    Smooth,
    Threads,
    smoothing,
)

if TYPE_CHECKING:
    import numpy as np

    from ..live import LiveSession, Viewer

Option = typer.Option


def webcam(
    source: Annotated[
        str,
        typer.Argument(
            help="Camera index, device path, stream URL (rtsp://), GStreamer pipeline, video file "
            "played at its own rate, or demo for the demo video."
        ),
    ] = "0",
    topology: Annotated[str, Option(help="serial or parallel, to begin with.")] = "parallel",
    bundle: Bundle = "open",
    people: People = 1,
    camera_file: CameraFile = None,
    focal: Focal = None,
    center: Center = None,
    distortion: Distortion = None,
    detector: Detector = None,
    detector_format: DetectorFormat = "yolox",
    detector_stride: DetectorStride = 30,
    smooth: Smooth = None,
    backend: Backend = "auto",
    device: Device = "cpu",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="Record from the start, into this mp4 or folder."),
    ] = None,
    headless: Annotated[
        bool, Option("--headless", help="Show in the browser, not in a window.")
    ] = False,
    draw: Annotated[bool, Option(help="Show a picture at all; without, figures only.")] = True,
    host: Annotated[str, Option(help="Address the browser's page is served on.")] = "127.0.0.1",
    port: Annotated[
        int, Option(min=1, max=65535, help="Its port, or the next that is free.")
    ] = 8080,
    every_frame: Annotated[
        bool, Option("--every-frame", help="Infer every frame, late if need be; drop none.")
    ] = False,
    loop: Annotated[bool, Option("--loop", help="Begin a file again at its end.")] = False,
    reconnect: Annotated[
        float, Option(min=0, help="Seconds for which a lost camera or stream is looked for.")
    ] = 30.0,
    frames: Annotated[int | None, Option(min=1, help="Stop after so many frames.")] = None,
    seconds: Annotated[
        float | None, Option(min=0, help="Stop so long after the first mesh.")
    ] = None,
) -> None:
    """Show the pose-calibrated mesh over a live picture, with its latency.

    Keys in the window, buttons on the page: t serial / parallel, c before / after calibration,
    r record, space pause, q quit."""
    from contextlib import closing

    from ..assets import fetch
    from ..lens import read_lens
    from ..live import LiveSession, Topologies, names_of_recordings, open_live

    spec = str(fetch("demo_video")) if source == "demo" else source
    smoothed, notes = smoothing(device, smooth)
    options = {
        "backend": backend,
        "device": device,
        "threads": threads,
        "max_people": people,
        "camera": read_lens(camera_file, focal, center, distortion),
        "detector": detector,
        "detector_format": detector_format,
        "detector_stride": detector_stride,
        "smooth": smoothed,
    }
    with (
        open_live(spec, every_frame=every_frame, loop=loop, reconnect_s=reconnect) as input,
        Topologies(bundle, topology, **options) as topologies,
        closing(
            _viewer(topologies.current.body.faces, headless, draw, host, port),
        ) as viewer,
    ):
        names = names_of_recordings(out or Path("out"), input, spec)
        session = LiveSession(
            input, topologies, recordings=names, record=out is not None, frames=frames
        )
        for note in notes:
            typer.echo(f"note: {note}", err=True)
        try:
            with session:
                session.run(viewer, seconds)
        except KeyboardInterrupt:
            pass  # how a live session is ended
        finally:
            _report(session)


def _viewer(faces: np.ndarray, headless: bool, draw: bool, host: str, port: int) -> Viewer:
    from ..live import Browser, Figures, Window

    if not draw:
        return Figures()
    if not headless:
        return Window(faces)
    browser = Browser(faces, host, port)
    typer.echo(f"look at {browser.url}")
    return browser


def _report(session: LiveSession) -> None:
    """The figures of the whole session, and where the recordings are."""
    for note in session.source.notes:
        typer.echo(f"note: {note}", err=True)
    summary = session.log.summary()
    dropped = session.source.dropped
    typer.echo(f"{session.log.frames} frames, {summary['fps']} a second, {dropped} dropped")
    if not session.log.frames:
        return
    rows = {
        "camera to mesh": "camera_to_mesh_ms",
        "  capture wait and decoding": "decode_ms",
        "  queue": "queue_ms",
        "  inference": "inference_ms",
        "apart: display wait and drawing": "draw_ms",
    }
    for label, name in rows.items():
        if summary[name]["p50"] is not None:
            figures = "  ".join(f"{p} {ms:.1f}" for p, ms in summary[name].items())
            typer.echo(f"{label}, ms: {figures}")
    typer.echo(f"camera to mesh is {summary['includes']}")
    typer.echo(f"not in it: {summary['excludes']}")
    for outputs in session.written:
        typer.echo(f"recorded {outputs.overlay} and {outputs.results}")
    if session.missed:
        typer.echo(f"{session.missed} frames were not recorded for want of time")
