"""`pchmr demo`: the main job on the demo video, in one command."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from pchmr_engines.cli import JsonOption, print_json

from .options import BundleOption, PipelineOptions, tell, with_pipeline_options

if TYPE_CHECKING:
    from ..media import Image
    from ..overlay import Renderer
    from ..people import Person
    from ..pipeline import Pipeline
    from ..readers import Frame

TOPOLOGIES = ("serial", "parallel")
PANEL = (640, 360)  # width, height
SHEET = (0.27, 0.61)  # where in the video the frames of the close-ups are
CLOSE_UP = 480  # pixels, of one person
SIDE = "side view: before, after"


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

    Writes a video, a sheet of close-ups (photo, meshes, side view), the meshes, the latency.
    """
    from ..assets import fetch
    from ..latency import machine
    from ..pipeline import Pipeline
    from ..results import ResultWriter
    from ..whole import whole_file

    video, loaded, keywords = fetch("demo_video"), options.load(bundle), options.keywords()
    pipelines = {name: Pipeline.load(loaded, name, **keywords) for name in TOPOLOGIES}
    faces = pipelines["parallel"].body.faces
    with ResultWriter(out / "meshes.npz", faces, groups=TOPOLOGIES, bundle=loaded) as meshes:
        latency = {
            name: _measure(name, pipeline, video, meshes) for name, pipeline in pipelines.items()
        }
    figures = {**latency, "machine": machine()}
    with whole_file(out / "latency.json") as part:
        part.write_text(json.dumps(figures, indent=1))
    _draw(pipelines, video, out, options.people)
    if as_json:
        print_json(figures)
    else:
        _report(latency, out)
    tell([*options.notes(), *(pipeline.device_note for pipeline in pipelines.values())])


def _measure(name: str, pipeline: Pipeline, video: Path, meshes: Any) -> dict[str, Any]:
    """The summary of a run without drawing; its meshes go to `meshes`."""
    from ..latency import LatencyLog
    from ..media import open_source
    from ..runner import progress

    log = LatencyLog()
    with open_source(video) as source:
        for frame, found in _found(progress(source, f"{name}, measured"), {name: pipeline}):
            log.add(found[name])
            meshes.add(frame.index, found[name], name)
    return log.summary()


def _found(
    frames: Iterable[Frame], pipelines: Mapping[str, Pipeline]
) -> Iterator[tuple[Frame, dict[str, list[Person]]]]:
    """The frames in order, each once all pipelines have found its people."""
    from ..delay import Delay

    delays: dict[str, Delay[Frame]] = {name: Delay(pipe) for name, pipe in pipelines.items()}
    done: dict[str, deque[tuple[Frame, list[Person]]]] = {name: deque() for name in pipelines}

    def complete() -> Iterator[tuple[Frame, dict[str, list[Person]]]]:
        while all(done.values()):
            taken = {name: waiting.popleft() for name, waiting in done.items()}
            (frame, _), *_ = taken.values()
            yield frame, {name: people for name, (_, people) in taken.items()}

    for frame in frames:
        for name, delay in delays.items():
            done[name] += delay(frame, frame.image, frame.t_ns)
        yield from complete()
    for name, delay in delays.items():
        done[name] += delay.flush()
    yield from complete()


def _draw(pipelines: Mapping[str, Pipeline], video: Path, out: Path, people: int) -> None:
    """out/demo.mp4: for each topology photo, both meshes, and the side view; out/demo.png."""
    from ..media import VideoWriter, open_source, write_photo
    from ..overlay import Renderer, compose_panels
    from ..runner import progress

    faces = pipelines["parallel"].body.faces
    renderer = Renderer(faces, (PANEL[0] // people, PANEL[1]))
    close = Renderer(faces, (CLOSE_UP, CLOSE_UP))
    for pipeline in pipelines.values():
        pipeline.reset()
    with open_source(video) as source:
        wanted = {round(share * (source.count or 1)) for share in SHEET}
        sheet: list[Image] = []
        size = (4 * PANEL[0], len(pipelines) * PANEL[1])
        with VideoWriter(out / "demo.mp4", source.fps, size) as writer:
            for frame, found in _found(progress(source, "drawing"), pipelines):
                panels: list[Image] = []
                labels = []
                for name, persons in found.items():
                    panels += _panels(frame.image, persons, renderer)
                    labels += ["photo", "generator mesh", f"calibrated, {name}", SIDE]
                writer.write(compose_panels(panels, labels, columns=4), frame.t_ns)
                if frame.index in wanted:
                    for serial, parallel in zip(*(found[x] for x in TOPOLOGIES), strict=False):
                        sheet += _close_ups(frame.image, serial, parallel, close)
    labels = ["photo", "generator mesh", *(f"calibrated, {name}" for name in TOPOLOGIES), SIDE]
    sheet = sheet or panels[:1]  # of nobody
    columns = min(len(sheet), len(labels))
    write_photo(out / "demo.png", compose_panels(sheet, labels, columns=columns))


def _close_ups(
    image: Image, serial: Person, parallel: Person, renderer: Renderer
) -> tuple[Image, ...]:
    """One person's photo, generator mesh, calibrated meshes and side view, CLOSE_UP wide."""
    import cv2

    from ..overlay import CALIBRATED, GENERATOR

    meshes = np.stack([parallel.generator_vertices, serial.vertices, parallel.vertices])
    pixels = parallel.camera.project(meshes).reshape(-1, 2)
    low, high = pixels.min(0), pixels.max(0)
    side = min(int(1.15 * (high - low).max()), *image.shape[:2])
    room = np.array([image.shape[1] - side, image.shape[0] - side])
    x, y = np.clip((low + high - side) / 2, 0, room).astype(int)
    size = (CLOSE_UP, CLOSE_UP)
    photo = np.asarray(cv2.resize(image[y : y + side, x : x + side], size), np.uint8)
    full = parallel.camera
    camera = replace(full, cx=full.cx - x, cy=full.cy - y).scaled(CLOSE_UP / side)
    tints = (GENERATOR, CALIBRATED, CALIBRATED)
    drawn = [
        renderer.render(photo, mesh, camera, colors=tint)
        for mesh, tint in zip(meshes, tints, strict=True)
    ]
    return photo, *drawn, _side_view(parallel, renderer)


def _side_view(person: Person, renderer: Renderer) -> Image:
    """The mesh before and after calibration, one in the other."""
    from ..overlay import CALIBRATED, GENERATOR

    meshes = np.stack([person.generator_vertices, person.vertices])
    return renderer.render_view(meshes, center=person.joints[0], colors=[GENERATOR, CALIBRATED])


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
        left = i * renderer.size[0]
        views[:, left : left + renderer.size[0]] = _side_view(person, renderer)
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
    Console().print(table)
    summary = latency["parallel"]
    typer.echo(f"camera to mesh is {summary['includes']}")
    typer.echo(f"not in it: {summary['excludes']}")
    for name, what in (
        ("demo.mp4", "photo | generator mesh | calibrated mesh | side view"),
        ("demo.png", "close-ups"),
        ("meshes.npz", "vertices, joints and poses of both topologies"),
        ("latency.json", "all figures"),
    ):
        typer.echo(f"{out / name}: {what}")
