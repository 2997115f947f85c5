"""Runs a pipeline over any input and writes what it finds: overlay, results, latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns

import cv2
import numpy as np

from pchmr_engines.errors import InputError

from .delay import Delay, KeptFrame
from .latency import LatencyLog
from .media import Frame, Image, Source, VideoWriter, write_photo
from .overlay import Renderer
from .people import Person
from .pipeline import Pipeline
from .results import ResultWriter, source_of

PHOTO_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov"}
OTHER_SUFFIXES = {".avi", ".gif", ".json", ".mkv", ".mpeg", ".mpg", ".npz", ".ts", ".webm", ".wmv"}

Draw = Callable[[Frame, Sequence[Person]], Image]
Write = Callable[[Frame, Image], object]


@dataclass(frozen=True)
class Outputs:
    """Where a run writes. overlay: a photo, a video or, for a folder of photos, a folder.

    source: the input's name and its folder's, kept in the results.
    """

    overlay: Path
    results: Path
    json: Path | None = None
    source: str = field(default="", compare=False)

    @classmethod
    def beside(cls, out: Path, source: Source, given: str, json: bool) -> Outputs:
        """From the command's -o: a picture or video file, or a folder for everything.

        given: the input as the user named it; outputs in a folder are called after it.

        Raises:
            InputError: a video was asked for of a photo, or the other way round, or the overlay
                would replace the input.
        """
        suffix = out.suffix.lower()
        video = source.kind in ("video", "stream", "camera")
        here = Path(given).expanduser().resolve()
        if suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES | OTHER_SUFFIXES and not out.is_dir():
            expected = VIDEO_SUFFIXES if video else PHOTO_SUFFIXES
            if suffix not in expected or source.kind == "folder":
                wanted = "" if source.kind == "folder" else f" or one of {sorted(expected)}"
                raise InputError(
                    f"output {out} for a {source.kind}; expected a folder{wanted}: change -o"
                )
            overlay, results = out, out.with_suffix(".npz")
        else:
            stem = here.stem if here.exists() else "live"
            name = {"folder": "overlay", "photo": f"{stem}.png"}.get(source.kind, f"{stem}.mp4")
            overlay, results = out / name, out / f"{stem}.npz"
        if overlay.resolve() == here:
            raise InputError(f"output {overlay} is the input: name another place with -o")
        name = "/".join(here.parts[-2:]) if here.exists() else "live"  # a URL may hold a password
        return cls(overlay, results, results.with_suffix(".json") if json else None, name)

    def check_not_of_another(self) -> None:
        """Raises: InputError where the results of another input would be replaced, as those of
        walk.jpg by those of walk.mp4."""
        other = source_of(self.results)
        if self.source and other not in ("", self.source):
            raise InputError(
                f"{self.results} holds the results of {other}: name another place with -o, or "
                "remove it"
            )


def run_source(
    source: Source,
    pipeline: Pipeline,
    outputs: Outputs,
    draw: Draw | None = None,
    limit: int | None = None,
) -> LatencyLog:
    """Every frame of the source through the pipeline; what was done so far is never lost.

    draw: makes the overlay of a frame; the calibrated meshes over the picture by default.
    limit: stop after so many frames. A KeyboardInterrupt ends a live source, and is no error.

    Raises:
        InputError: the input was cut short, or no frame held a person; all outputs are written
            before. Results of another input are there.
    """
    outputs.check_not_of_another()
    if draw is None:
        renderer = Renderer(pipeline.body.faces)

        def draw(frame: Frame, people: Sequence[Person]) -> Image:
            if not people:
                return frame.image
            meshes = np.stack([person.vertices for person in people])
            # Into the frame itself: nobody needs it unchanged any more.
            return renderer.render(frame.image, meshes, people[0].camera, in_place=True)

    log = LatencyLog()
    with ExitStack() as stack:
        write = stack.enter_context(_overlay_writer(source, outputs.overlay))
        results = stack.enter_context(
            ResultWriter(
                outputs.results,
                pipeline.body.faces,
                outputs.json,
                bundle=pipeline.bundle,
                source=outputs.source,
            )
        )
        delay = Delay[KeptFrame](pipeline)

        def note(done: Sequence[tuple[KeptFrame, Sequence[Person]]]) -> None:
            for kept, people in done:
                frame = kept.restore()
                log.add(people)
                results.add(frame.index, people)
                begin = perf_counter_ns()
                write(frame, draw(frame, people))
                log.add_apart("draw", (perf_counter_ns() - begin) / 1e6)

        try:
            for frame in progress(source, source.kind, limit):
                if frame.cut or source.kind == "folder":  # each photo stands alone
                    note(delay.flush())
                    pipeline.reset()
                kept = KeptFrame.keep(frame, pipeline.look_ahead)
                note(delay(kept, frame.image, frame.t_ns))
        except KeyboardInterrupt:
            if not source.live:
                raise
        note(delay.flush())
    if source.incomplete and log.frames != limit:
        raise InputError(
            f"the {source.kind} {source.incomplete}; expected all of it: copy, download or record "
            f"it again. The frames there are were written to {outputs.overlay}"
        )
    if not log.people:
        raise InputError(
            f"no person found in {log.frames} frames; expected someone at least half visible and "
            f"a tenth of the picture high: try a nearer view. The pictures are in {outputs.overlay}"
        )
    return log


@contextmanager
def _overlay_writer(source: Source, path: Path) -> Iterator[Write]:
    """A function that writes one overlay, made for the kind of the source."""
    if source.kind == "photo":
        yield lambda frame, image: write_photo(path, image)
    elif source.kind == "folder":
        yield lambda frame, image: write_photo(path / _photo_name(str(frame.path)), image)
    else:
        with VideoWriter(path, source.fps, source.size) as video:
            yield lambda frame, image: video.write(image, frame.t_ns)


def _photo_name(path: str) -> str:
    """The photo's own name, as PNG where its format can only be read."""
    name = Path(path).name
    return name if cv2.haveImageWriter(name) else f"{name}.png"


def progress(source: Source, label: str, limit: int | None = None) -> Iterator[Frame]:
    """The frames, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    total = min(source.count or limit or 0, limit or source.count or 0) or None
    columns = (
        SpinnerColumn(),
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        TextColumn("{task.completed} frames"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        for count, frame in enumerate(source, start=1):
            yield frame
            bar.advance(task)
            if count == limit:
                return
