"""`pchmr demo`: the main job on the demo video, in one command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from pchmr_engines.cli import JsonOption, print_json

from .options import BundleOption, PipelineOptions, with_pipeline_options

if TYPE_CHECKING:
    from ..media import Image
    from ..overlay import Renderer
    from ..people import Person
    from ..pipeline import Pipeline

TOPOLOGIES = ("serial", "parallel")
PANEL = (640, 360)  # width, height
SHEET = 5  # frames of the contact sheet


@with_pipeline_options(people=2)
def demo(
    options: PipelineOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to write to.")
    ] = Path("out"),
    bundle: BundleOption = "open",
    as_json: JsonOption = False,
) -> None:
    """Run the demo video through serial and parallel, and draw both.

    Writes a video and a contact sheet (photo, both meshes, side view), the meshes, the latency.
    """
    from ..assets import fetch
    from ..latency import machine
    from ..pipeline import Pipeline
    from ..results import ResultWriter

    video, loaded, keywords = fetch("demo_video"), options.load(bundle), options.keywords()
    pipelines = {name: Pipeline.load(loaded, name, **keywords) for name in TOPOLOGIES}
    faces = pipelines["parallel"].body.faces
    with ResultWriter(out / "meshes.npz", faces, groups=TOPOLOGIES, bundle=loaded) as meshes:
        latency = {
            name: _measure(name, pipeline, video, meshes) for name, pipeline in pipelines.items()
        }
    figures = {**latency, "machine": machine()}
    (out / "latency.json").write_text(json.dumps(figures, indent=1))
    _draw(pipelines, video, out, options.people)
    if as_json:
        print_json(figures)
    else:
        _report(latency, out)
    for note in options.notes():
        typer.echo(f"note: {note}", err=True)


def _measure(name: str, pipeline: Pipeline, video: Path, meshes: Any) -> dict[str, Any]:
    """The summary of a run without drawing; its meshes go to `meshes`."""
    from ..latency import LatencyLog
    from ..media import open_source
    from ..runner import progress

    log = LatencyLog()
    with open_source(video) as source:
        for frame in progress(source, f"{name}, measured"):
            people = pipeline(frame.image, frame.t_ns)
            log.add(people)
            meshes.add(frame.index, people, name)
    return log.summary()


def _draw(pipelines: Mapping[str, Pipeline], video: Path, out: Path, people: int) -> None:
    """out/demo.mp4 and out/demo.png: for each topology photo, both meshes, and the side view."""
    from ..media import VideoWriter, open_source, write_photo
    from ..overlay import Renderer, compose_panels, contact_sheet
    from ..runner import progress

    faces = pipelines["parallel"].body.faces
    renderer = Renderer(faces, (PANEL[0] // people, PANEL[1]))
    for pipeline in pipelines.values():
        pipeline.reset()
    with open_source(video) as source:
        wanted = {round(i) for i in np.linspace(0.08, 0.92, SHEET) * ((source.count or SHEET) - 1)}
        sheet = []
        size = (4 * PANEL[0], len(pipelines) * PANEL[1])
        with VideoWriter(out / "demo.mp4", source.fps, size) as writer:
            for frame in progress(source, "drawing"):
                panels, labels = [], []
                for name, pipeline in pipelines.items():
                    found = pipeline(frame.image, frame.t_ns)
                    panels += _panels(frame.image, found, renderer)
                    labels += [
                        "photo",
                        "generator mesh",
                        f"calibrated, {name}",
                        "side view: before, after",
                    ]
                picture = compose_panels(panels, labels, columns=4)
                writer.write(picture, frame.t_ns)
                if frame.index in wanted:
                    sheet.append(picture)
    write_photo(out / "demo.png", contact_sheet(sheet, columns=1))


def _panels(image: Image, people: Sequence[Person], renderer: Renderer) -> list[Image]:
    """Photo, generator mesh, calibrated mesh and side views, each of size PANEL."""
    import cv2

    from ..overlay import BACKGROUND, CALIBRATED, GENERATOR

    photo = np.asarray(cv2.resize(image, PANEL, interpolation=cv2.INTER_AREA), np.uint8)
    views = np.full_like(photo, BACKGROUND)
    if not people:
        return [photo, photo, photo, views]
    camera = people[0].camera.scaled(PANEL[0] / image.shape[1])
    for i, person in enumerate(people):
        views[:, i * renderer.size[0] :][:, : renderer.size[0]] = renderer.render_view(
            np.stack([person.generator_vertices, person.vertices]),
            center=person.joints[0],
            colors=[GENERATOR, CALIBRATED],
        )
    before = np.stack([person.generator_vertices for person in people])
    after = np.stack([person.vertices for person in people])
    return [
        photo,
        renderer.render(photo, before, camera, colors=GENERATOR),
        renderer.render(photo, after, camera, colors=CALIBRATED),
        views,
    ]


def _report(latency: Mapping[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="camera to mesh, without drawing", box=None, pad_edge=False)
    for column in ("topology", "frames", "with a person", "frames/s", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="right" if column != "topology" else "left")
    for name, summary in latency.items():
        ms = summary["camera_to_mesh_ms"]
        counts = (summary["frames"], summary["frames_with_people"], summary["fps"])
        table.add_row(name, *map(str, (*counts, ms["p50"], ms["p95"], ms["p99"])))
    console = Console()
    console.print(table)
    summary = latency["parallel"]
    console.print(f"camera to mesh is {summary['includes']}")
    console.print(f"not in it: {summary['excludes']}")
    for name, what in (
        ("demo.mp4", "photo | generator mesh | calibrated mesh | side view"),
        ("demo.png", "contact sheet"),
        ("meshes.npz", "vertices, joints and poses of both topologies"),
        ("latency.json", "all figures"),
    ):
        console.print(f"{out / name}: {what}")
