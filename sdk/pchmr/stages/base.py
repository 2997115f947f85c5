"""What a stage is: rows in, named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_kernels.geometry import points_to_crop
from pchmr_kernels.native import as_output
from pchmr_kernels.skeletons import get_skeleton

from ..blazepose import Landmarks
from ..camera import Camera
from ..crops import Roi

if TYPE_CHECKING:
    from ..compiled import Compiled
    from ..meshes import Meshes


@dataclass(frozen=True)
class Row:
    """One person in one frame: the unit of work. `slot` is the row's place in per-person state."""

    frame: int
    t_ns: int
    track: int
    slot: int
    epoch: int = 0  # another each time a slot is given to a track


class Board(dict[str, np.ndarray]):
    """The arrays that stages read and write, one row a person, for one frame: name -> (rows, ...),
    written by exactly one stage (its `gives`).

    image: (H, W, 3) uint8 BGR. rois: the square crop of each row. found: who each row is, as the
    frame's own landmarks. t_ns: of the frame. size: its (width, height), also when the image is
    gone. meshes: the results, where the executor has made them.
    """

    def __init__(
        self,
        image: np.ndarray,
        camera: Camera,
        rows: Sequence[Row],
        rois: Sequence[Roi],
        found: Sequence[Landmarks] = (),
        t_ns: int = 0,
    ) -> None:
        super().__init__()
        self.image, self.camera, self.t_ns = image, camera, t_ns
        self.rows, self.rois, self.found = rows, rois, found
        self.size = image.shape[1], image.shape[0]
        self.meshes: Meshes | None = None

    def park(self) -> None:
        """Make it fit to wait for later frames: arrays of its own, and no image."""
        self.image = np.empty((0, 0, 3), np.uint8)
        self.update({name: array.copy() for name, array in self.items()})


class Stage(Protocol):
    """One step: host work in, the capturable part, host work out.

    The pipeline derives order, branches and joins from `needs` and `gives`; the executor alone
    decides on threads.
    """

    name: str
    needs: frozenset[str]
    gives: frozenset[str]

    def prepare(self, board: Board) -> None:
        """Preprocess: read `needs` into the stage's own fixed buffers."""
        ...

    def enqueue(self) -> None:
        """Run on the fixed buffers; no host logic, so that a GPU executor can capture it."""
        ...

    def collect(self, board: Board) -> None:
        """Postprocess: write `gives`."""
        ...


@runtime_checkable
class TemporalStage(Stage, Protocol):
    """A stage whose result of a frame may come with a later one; it has a memory of each person.

    It runs on boards in the order of their frames, those without rows too: whoever is not on a
    board any more has gone, and gets what is owed as if their last frame went on. `collect` writes
    nothing. look_ahead: frames a result waits for.
    """

    @property
    def look_ahead(self) -> int: ...

    def finished(self) -> Iterable[tuple[Row, Mapping[str, np.ndarray]]]:
        """Rows that are now complete and their `gives`, once each, in the order of frames."""
        ...

    def finish(self) -> None:
        """Compute all that is owed, as if everybody had gone; `finished` then gives it."""
        ...

    def forget(self) -> None:
        """Forget everybody and what is owed to them."""
        ...


class HostStage:
    """A stage with nothing to capture: all it does is in `collect`."""

    def prepare(self, board: Board) -> None:
        """Nothing."""

    def enqueue(self) -> None:
        """Nothing."""


class BatchedEngine:
    """An engine with one context for each power-of-two batch up to `max_people`.

    Rows beyond the people present are padding: their outputs are never read.
    """

    def __init__(self, engine: Engine, max_people: int, threads: int) -> None:
        self.contexts: dict[int, Context] = {}
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        batch = 1
        while True:
            context = engine.context(batch, stream=None, threads=threads)
            context.freeze()
            self.contexts[batch] = context
            if batch >= max_people:
                break
            batch *= 2

    def context(self, people: int) -> Context:
        """The smallest context that holds `people` rows."""
        return self.contexts[1 << max(people - 1, 0).bit_length()]

    def arrays(self, people: int) -> dict[str, np.ndarray]:
        """The first `people` rows of that context's buffers."""
        if people not in self._arrays:
            buffers = self.context(people).buffers
            self._arrays[people] = {name: buffer[:people] for name, buffer in buffers.items()}
        return self._arrays[people]


class KeypointEngine:
    """A network over keypoints of a crop: G or L. landmarks: those it takes, in its order."""

    def __init__(
        self, engine: Engine, landmarks: Sequence[str], max_people: int, threads: int
    ) -> None:
        skeleton = get_skeleton("blazepose33")
        self._columns = np.array([skeleton.index(name) for name in landmarks], np.int32)
        self._engine = BatchedEngine(engine, max_people, threads)
        self._context: Context
        self._arrays: dict[str, np.ndarray]

    def feed(self, board: Board, keypoints: np.ndarray) -> None:
        """Put keypoints (P, 33, 3) of the full frame in, as the crop's own camera sees them."""
        people = len(keypoints)
        self._context, self._arrays = self._engine.context(people), self._engine.arrays(people)
        points_to_crop(
            *(keypoints, board["crop_rotation"], board["crop_size"], board.camera.lens),
            columns=self._columns,
            out=self._arrays["keypoints"],
        )

    def enqueue(self) -> None:
        self._context.enqueue()

    def output(self, name: str) -> np.ndarray:
        """(P, ...), overwritten by the next run."""
        return self._arrays[name]

    def compile(self, into: Compiled, keypoints: np.ndarray) -> Mapping[str, np.ndarray]:
        """Record `feed` and the run; the network's arrays (P, ...)."""
        arrays = self._engine.arrays(into.people)
        out = as_output(arrays["keypoints"], (into.people, len(self._columns), 3))
        into.call(
            "points_to_crop_f64",
            *(into.lens, into.people, *keypoints.shape[1:], keypoints),
            *(len(self._columns), self._columns, into["crop_rotation"], into["crop_size"], out),
        )
        into.network(self._engine.context(into.people))
        return arrays
