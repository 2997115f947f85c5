"""`pchmr run`: any input to overlay and meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Topology,
    smoothing,
)

Option = typer.Option


def run(
    input: Annotated[
        str, typer.Argument(help="Photo, video, folder of photos, stream URL or camera index.")
    ],
    out: Annotated[
        Path, Option("--out", "-o", help="Overlay file, or a folder for overlay and results.")
    ] = Path("out"),
    bundle: Bundle = "open",
    topology: Topology = "parallel",
    backend: Backend = "auto",
    device: Device = "cpu",
    threads: Threads = None,
    people: People = 1,
    camera_file: CameraFile = None,
    focal: Focal = None,
    center: Center = None,
    distortion: Distortion = None,
    detector: Detector = None,
    detector_format: DetectorFormat = "yolox",
    detector_stride: DetectorStride = 30,
    smooth: Smooth = None,
    frames: Annotated[int | None, Option(min=1, help="Stop after so many frames.")] = None,
    json: Annotated[bool, Option("--json", help="Also write joints and boxes as JSON.")] = False,
) -> None:
    """Photo, video or folder in, meshes out: an overlay and an npz.

    The overlay is of the input's kind; the npz has vertices in metres, joints, keypoints, pose."""
    from pchmr_engines.errors import PchmrError

    from ..lens import read_lens
    from ..media import open_source
    from ..pipeline import Pipeline
    from ..runner import Outputs, run_source

    with open_source(input) as source:
        outputs = Outputs.beside(out, source, input, json)
        smoothed, notes = smoothing(device, smooth, source.kind not in ("photo", "folder"))
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
        with Pipeline.load(bundle, topology, **options) as pipeline:
            try:
                log = run_source(source, pipeline, outputs, limit=frames)
            except KeyboardInterrupt:
                raise PchmrError(
                    f"stopped; what was done so far is in {outputs.overlay} and {outputs.results}"
                ) from None
        for note in (*source.warnings, *notes):
            typer.echo(f"note: {note}", err=True)
    summary = log.summary()
    latency = summary["camera_to_mesh_ms"]
    lag = summary["stages_ms"].get("smoothing_lag")
    behind = f", smoothing lags {lag['p50']:.0f} ms more" if lag else ""
    written = [path for path in (outputs.overlay, outputs.results, outputs.json) if path]
    typer.echo(
        f"people in {log.frames_with_people} of {log.frames} frames, {log.people} in all; "
        f"camera to mesh p50 {latency['p50']} ms, p95 {latency['p95']} ms{behind}; "
        f"wrote {', '.join(map(str, written))}"
    )
