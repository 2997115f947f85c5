"""Recording of a live session: the mp4 and npz that `pchmr run` writes, in a thread of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pchmr_engines.bundle import Bundle

from ..closing import Closing
from ..media import VideoWriter
from ..overlay import Renderer
from ..results import ResultWriter
from ..runner import VIDEO_SUFFIXES, Outputs
from ..sources import Source
from ..work_queue import WorkQueue
from .result import Result


class Recorder(Closing):
    """Draws and writes what it is given: picture k of the mp4 is `frame` k of the npz, whose t_ns
    is the mp4's time.

    The mesh is the calibrated one, whatever is shown. close: after that both files are whole.
    recorded, missed: frames so far, and those it had no time for. whole: both files are there.
    """

    def __init__(
        self,
        outputs: Outputs,
        faces: np.ndarray,
        source: Source,
        *,
        wait: bool = False,
        ahead: int = 8,
        bundle: Bundle | None = None,
    ) -> None:
        """bundle: named in the npz, so that `pchmr convert` finds the body.
        wait: `add` waits for room instead of missing a frame. ahead: frames that may wait.

        Raises:
            InputError: the place cannot be written to.
        """
        self.outputs, self.recorded, self.missed, self.whole = outputs, 0, 0, False
        self._wait, self._renderer = wait, Renderer(faces)
        self._begin_ns: int | None = None
        self._video = VideoWriter(outputs.overlay, source.fps, source.size)
        try:
            self._results = ResultWriter(
                outputs.results, faces, bundle=bundle, source=outputs.source
            )
        except BaseException:
            self._video.close()  # without frames it leaves nothing
            raise
        self._waiting = WorkQueue[Result](ahead)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pchmr-record", daemon=True)
        self._thread.start()

    def add(self, result: Result) -> None:
        """Record a frame. Raises: what went wrong with an earlier one, as a full disk."""
        self._check()
        if not self._wait:
            self.missed += not self._waiting.put(result, 0)
            return
        while self._thread.is_alive() and not self._waiting.put(result, 0.5):
            self._check()

    def close(self) -> None:
        """Write what waits and finish both files; without a frame there are none.

        Raises: what went wrong.
        """
        self._waiting.end()
        self._thread.join()
        if not self.recorded:
            self.outputs.results.unlink(missing_ok=True)
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        try:
            with self._video, self._results:  # where both fail, the video says more
                for result in self._waiting:
                    self._write(result)
            self.whole = self.recorded > 0
        except BaseException as error:
            self._error = error

    def _write(self, result: Result) -> None:
        if self._begin_ns is None:
            self._begin_ns = result.frame.t_ns
        t_ns = result.frame.t_ns - self._begin_ns
        image = result.frame.image
        if result.people:
            meshes = np.stack([person.vertices for person in result.people])
            image = self._renderer.render(image, meshes, result.people[0].camera)
        self._video.write(image, t_ns)
        self._results.add(self.recorded, [replace(person, t_ns=t_ns) for person in result.people])
        self.recorded += 1


def names_of_recordings(out: Path, source: Source, given: str) -> Iterator[Outputs]:
    """Where one recording after another goes: as `pchmr run` names them, then -2, -3, ...

    A file that is named is replaced by the first; in a folder nothing is replaced.

    Raises:
        InputError: `out` is no place for a video.
    """
    live = source.kind in ("camera", "stream")
    first = Outputs.beside(out, source, "live" if live else given, json=False)
    for number in itertools.count(1):
        ending = f"-{number}" if number > 1 else ""
        overlay, results = (
            path.with_name(f"{path.stem}{ending}{path.suffix}")
            for path in (first.overlay, first.results)
        )
        named = number == 1 and out.suffix.lower() in VIDEO_SUFFIXES and not out.is_dir()
        if named or not (overlay.exists() or results.exists()):
            yield replace(first, overlay=overlay, results=results)
