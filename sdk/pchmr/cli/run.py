"""`pchmr run`: any input to overlay and meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pchmr_engines.cli import JsonOption, print_json

from .options import (
    BundleOption,
    Frames,
    PipelineOptions,
    Topology,
    source_named,
    tell,
    with_pipeline_options,
)


@with_pipeline_options()
def run(
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Photo, video, folder of photos, stream URL, camera index or demo.",
        ),
    ],
    options: PipelineOptions,
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="PATH", help="Overlay file, or a folder for overlay and results."
        ),
    ] = Path("out"),
    bundle: BundleOption = "open",
    topology: Topology = "parallel",
    frames: Frames = None,
    write_json: Annotated[
        bool, typer.Option("--write-json", help="Beside the npz, joints and boxes as JSON.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Photo, video or folder in, meshes out: an overlay and an npz.

    The overlay is of the input's kind; the npz has vertices in metres, joints, keypoints and
    pose of every person and frame.

    \b
    pchmr run photo.jpg
    pchmr run walk.mp4 -o walk_mesh.mp4 --people 2
    pchmr run photos/ -o out/ --topology serial --write-json
    pchmr run walk.mp4 --detector yolox_s.onnx --camera-file lens.json
    """
    from pchmr_engines.errors import InputError, PchmrError

    from ..media import open_source
    from ..pipeline import Pipeline
    from ..runner import Outputs, run_source

    if context.args:
        others = len(context.args)
        raise InputError(f"one input, not {1 + others}: give the folder that holds the photos")
    input = source_named(input)
    with open_source(input) as source:
        outputs = Outputs.beside(out, source, input, write_json)
        moving = source.kind not in ("photo", "folder")
        keywords = options.keywords(moving)
        with Pipeline.load(options.load(bundle), topology, **keywords) as pipeline:
            try:
                log = run_source(source, pipeline, outputs, limit=frames)
            except KeyboardInterrupt:
                raise PchmrError(
                    f"stopped; what was done so far is in {outputs.overlay} and {outputs.results}"
                ) from None
        tell([*source.warnings, *options.notes(moving), pipeline.device_note])
        if frames and source.kind == "photo":
            tell(["--frames changes nothing: a photo is one"])
    summary = log.summary()
    files = {"overlay": outputs.overlay, "results": outputs.results, "json": outputs.json}
    written = {name: str(path) for name, path in files.items() if path}
    if as_json:
        print_json({**summary, "written": written})
        return
    latency = summary["camera_to_mesh_ms"]
    lag = summary["stages_ms"].get("smoothing_lag")
    behind = f", smoothing lags {lag['p50']:.0f} ms more" if lag else ""
    typer.echo(
        f"people in {log.frames_with_people} of {log.frames} frames, {log.people} in all; "
        f"camera to mesh p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms{behind}; "
        f"wrote {', '.join(written.values())}"
    )
