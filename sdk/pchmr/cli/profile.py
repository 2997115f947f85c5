"""`pchmr profile`: where a frame's time goes, camera to mesh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import BUNDLE, Backend, Device, People, Smooth, Threads, Topology, smoothing

Option = typer.Option
TOPOLOGIES = ("serial", "parallel", "template", "mesh-only")


def profile(
    bundle: Annotated[str, typer.Argument(help=BUNDLE)],
    source: Annotated[
        str | None,
        Option(help="Camera, stream or file; by default the demo video."),
    ] = None,
    frames: Annotated[int, Option(min=1, help="How many to measure, after 10.")] = 300,
    topology: Topology = "parallel",
    vs: Annotated[
        str | None, Option(help="Another bundle, or topology, interleaved: as ratios.")
    ] = None,
    overhead: Annotated[
        bool, Option("--overhead", help="What profiling itself costs, interleaved.")
    ] = False,
    fast: Annotated[
        bool, Option("--fast", help="A file as fast as it goes, not at its own rate.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "cpu",
    threads: Threads = None,
    people: People = 1,
    smooth: Smooth = None,
    draw: Annotated[bool, Option(help="Draw the overlay too, in the same thread.")] = True,
    json: Annotated[Path | None, Option(help="Write all figures here.")] = None,
    plot: Annotated[Path | None, Option(help="Write a picture here (png, svg, pdf).")] = None,
    trace: Annotated[Path | None, Option(help="Write a trace here, for ui.perfetto.dev.")] = None,
) -> None:
    """Time every part of a frame's way from the camera to the mesh.

    A file plays at its own rate like a camera, the newest frame first."""
    from ..assets import fetch
    from ..latency import machine

    _check_outputs(json, plot, trace, bool(vs or overhead))
    spec = source or str(fetch("demo_video"))
    smoothed, notes = smoothing(device, smooth)
    options = {"backend": backend, "threads": threads, "max_people": people, "smooth": smoothed}
    options["device"] = device
    about = {"source": source or "demo video", "backend": backend, "device": device}
    if vs or overhead:
        figures = _compare(bundle, topology, vs, spec, frames, options)
    else:
        outputs = {"plot": plot, "trace": trace}
        figures = _profile(bundle, topology, spec, not fast, frames, draw, options, outputs)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if json:
        from json import dumps

        from pchmr_engines.errors import InputError

        try:
            json.write_text(dumps({**about, **figures, "machine": machine()}, indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"{json} cannot be written ({error.strerror}): name another"
            ) from error


def _check_outputs(json: Path | None, plot: Path | None, trace: Path | None, two: bool) -> None:
    """Before minutes of measuring. Raises: InputError."""
    from pchmr_engines.errors import InputError

    if two and (plot or trace):
        raise InputError(
            "--plot and --trace are of one pipeline: leave them or --vs, --overhead out"
        )
    if plot and plot.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot {plot}: name a .png, .svg or .pdf")
    for path in filter(None, (json, plot, trace)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}: make it, or name another")


def _profile(
    bundle: str,
    topology: str,
    spec: str,
    live: bool,
    frames: int,
    draw: bool,
    options: Mapping[str, Any],
    outputs: Mapping[str, Path | None],
) -> dict[str, Any]:
    """One pipeline, every part of the way."""
    from ..pipeline import Pipeline
    from ..profiling.frames import timed_frames
    from ..profiling.measure import measure
    from ..profiling.recorder import Recorder
    from ..profiling.report import summary_of
    from ..profiling.tables import show_summary

    recorder = Recorder()
    with (
        timed_frames(spec, live) as source,
        Pipeline.load(bundle, topology, recorder=recorder, **options) as pipeline,
    ):
        measured = measure(pipeline, recorder, source, frames, draw)
        manifest = pipeline.bundle.manifest
    summary = {"bundle": manifest.name, "topology": topology, **summary_of(measured, manifest)}
    title = f"{manifest.name}, {topology}"
    show_summary(summary, title)
    if trace := outputs["trace"]:
        from ..profiling.trace import write_trace

        write_trace(trace, measured.spans)
    if plot := outputs["plot"]:
        from ..profiling.plot import write_plot

        write_plot(plot, measured, summary, title)
    return summary


def _compare(
    bundle: str,
    topology: str,
    vs: str | None,
    spec: str,
    frames: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Two pipelines, interleaved: another bundle or topology, or, where `vs` is None, the same one
    with every part recorded."""
    from ..pipeline import Pipeline
    from ..profiling.compare import ROUNDS, Runs, Switched, compare
    from ..profiling.frames import timed_frames
    from ..profiling.recorder import Recorder
    from ..profiling.tables import show_ratios

    first = (bundle, topology)
    second = (bundle, vs) if vs in TOPOLOGIES else (vs or bundle, topology)

    @contextmanager
    def load() -> Iterator[tuple[Runs, Runs]]:
        if vs:
            with Pipeline.load(*first, **options) as a, Pipeline.load(*second, **options) as b:
                yield a, b
        else:
            recorder = Recorder()
            with Pipeline.load(*first, recorder=recorder, **options) as both:
                yield Switched(both, recorder, False), Switched(both, recorder, True)

    with timed_frames(spec, live=False) as source:
        comparison = compare(load, source, -(-frames // ROUNDS), ROUNDS)
    names = {"a": ", ".join(first), "b": ", ".join(second) + ("" if vs else ", profiled")}
    figures = {**names, **comparison}
    show_ratios(figures)
    return figures
