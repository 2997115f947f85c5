"""`pchmr profile`: where a frame's time goes, camera to mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pchmr_engines.cli import JsonOption, print_json
from pchmr_engines.errors import InputError

from .options import (
    BUNDLE,
    PipelineOptions,
    Topology,
    source_named,
    tell,
    with_pipeline_options,
)

if TYPE_CHECKING:
    from ..pipeline import Pipeline

Option = typer.Option
TOPOLOGIES = ("serial", "parallel", "template", "mesh-only")


@with_pipeline_options()
def profile(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help=BUNDLE)],
    options: PipelineOptions,
    source: Annotated[
        str, Option(metavar="SOURCE", help="Camera, stream, file, or demo for the demo video.")
    ] = "demo",
    frames: Annotated[
        int, Option(min=1, metavar="N", help="How many to measure, after a warm-up of 10.")
    ] = 300,
    topology: Topology = "parallel",
    vs: Annotated[
        str | None,
        Option(metavar="OTHER", help="Another bundle or topology, interleaved: as ratios."),
    ] = None,
    overhead: Annotated[
        bool, Option("--overhead", help="What profiling itself costs, interleaved: as ratios.")
    ] = False,
    fast: Annotated[
        bool, Option("--fast", help="A file as fast as it goes, not at its own rate.")
    ] = False,
    no_draw: Annotated[
        bool, Option("--no-draw", help="No overlay, which is drawn in the same thread.")
    ] = False,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Write a picture (png, svg, pdf).")
    ] = None,
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="Write a trace, for ui.perfetto.dev.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time every part of a frame's way from the camera to the mesh.

    A file plays at its own rate like a camera, the newest frame first.

    \b
    pchmr profile open
    pchmr profile open --source 0 --plot profile.png --trace trace.json
    pchmr profile open --vs open-plus        ratios, with 95 % intervals
    pchmr profile open --vs serial --json > ratios.json
    """
    from ..latency import machine
    from ..pipeline import Pipeline
    from ..profiling.tables import show_ratios, show_summary

    if vs and overhead:
        raise InputError("--vs and --overhead compare with different things: leave one out")
    if (vs or overhead) and (plot or trace or fast or no_draw):
        raise InputError(
            "--plot, --trace, --fast and --no-draw are of one pipeline; two are compared as fast "
            "as they go, undrawn: leave these, or --vs and --overhead, out"
        )
    _check_outputs(plot, trace)
    notes, keywords = options.notes(), options.keywords()

    def load(bundle: str, topology: str, **more: Any) -> Pipeline:
        pipeline = Pipeline.load(options.load(bundle), topology, **keywords, **more)
        notes.append(pipeline.device_note)
        return pipeline

    spec = source_named(source)
    if vs or overhead:
        figures = _compare(load, (bundle, topology), vs, spec, frames)
    else:
        figures = _profile(
            load, (bundle, topology), spec, not fast, frames, not no_draw, plot, trace
        )
    if as_json:
        about = {"source": source, "backend": options.backend, "device": options.device}
        print_json({**about, **figures, "machine": machine()})
    else:
        (show_ratios if vs or overhead else show_summary)(figures)
    tell(notes)


def _check_outputs(plot: Path | None, trace: Path | None) -> None:
    """Before minutes of measuring. Raises: InputError."""
    if plot and plot.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot {plot}: name a .png, .svg or .pdf")
    for path in filter(None, (plot, trace)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}: make it, or name another")


def _profile(
    load: Callable[..., Pipeline],
    which: tuple[str, str],
    spec: str,
    live: bool,
    frames: int,
    draw: bool,
    plot: Path | None,
    trace: Path | None,
) -> dict[str, Any]:
    """One pipeline, every part of the way."""
    from ..profiling.frames import timed_frames
    from ..profiling.measure import measure
    from ..profiling.recorder import Recorder
    from ..profiling.report import summary_of

    recorder = Recorder()
    with timed_frames(spec, live) as source, load(*which, recorder=recorder) as pipeline:
        measured = measure(pipeline, recorder, source, frames, draw)
        manifest = pipeline.bundle.manifest
    about = {"bundle": manifest.name, "topology": which[1]}
    summary = {**about, **summary_of(measured, manifest)}
    if trace:
        from ..profiling.trace import write_trace

        write_trace(trace, measured.spans)
    if plot:
        from ..profiling.plot import write_plot

        write_plot(plot, measured, summary)
    return summary


def _compare(
    load: Callable[..., Pipeline], first: tuple[str, str], vs: str | None, spec: str, frames: int
) -> dict[str, Any]:
    """Two pipelines, interleaved: another bundle or topology, or, where `vs` is None, the same one
    with every part recorded."""
    from ..profiling.compare import ROUNDS, Runs, Switched, compare
    from ..profiling.frames import timed_frames
    from ..profiling.recorder import Recorder

    bundle, topology = first
    second = (bundle, vs) if vs in TOPOLOGIES else (vs or bundle, topology)

    @contextmanager
    def both() -> Iterator[tuple[Runs, Runs]]:
        if vs:
            with load(*first) as a, load(*second) as b:
                yield a, b
        else:
            recorder = Recorder()
            with load(*first, recorder=recorder) as one:
                yield Switched(one, recorder, False), Switched(one, recorder, True)

    rounds = ROUNDS if vs else 1
    with timed_frames(spec, live=False) as source:
        comparison = compare(both, source, -(-frames // rounds), rounds)
    names = {"a": ", ".join(first), "b": ", ".join(second) + ("" if vs else ", profiled")}
    return {**names, **comparison}
