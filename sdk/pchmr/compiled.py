"""Stages recorded once and then replayed: networks, and between them one native call each.

A stage that can be compiled says, for a number of people, which native functions it calls on which
arrays, which stay where they are from frame to frame. The results are those of `executor`, bit by
bit, without the Python and the new arrays of each step: right after a network, which leaves the
CPU's caches to nobody else, these took longer than the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pchmr_engines.engine import Context
from pchmr_kernels.person import FOUND, VIEW, view_of
from pchmr_kernels.program import Program

from .camera import Camera
from .executor import Executor, levels_of
from .meshes import Meshes, MeshMaker
from .profiling.recorder import Recorder
from .stages.base import Board, Stage
from .stages.blazepose import ON_BOARD, SEEN, LandmarkNetwork, records_of, undistort_keypoints

MOST_MARKS = 64
MOST_COMPILED = 8
"""Numbers of people for which arrays are kept: a mesh each, twice."""


class NotCompiled(Exception):
    """A stage cannot be compiled, and all of them are to run one by one."""


def as_floats(array: np.ndarray) -> np.ndarray:
    """The array itself. Raises: NotCompiled where it is not float32, or not C-contiguous."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise NotCompiled(f"{array.dtype}, which only a stage by itself converts")
    return array


class Compiled(dict[str, np.ndarray]):
    """What runs a frame of `people` people: arrays by their names on the board, which stay where
    they are, and what is done with them in turn.

    lens: (4,) fx, fy, cx, cy of the frame. t_ns: (1,) its time. distortion: whether its camera has
    any.
    """

    def __init__(self, people: int, distortion: bool) -> None:
        super().__init__()
        self.people = people
        self.lens, self.t_ns = np.zeros(4), np.zeros(1, np.int64)
        self._frame = np.zeros(2)
        self.parts: list[tuple[str, str]] = []  # stage and kind of what follows each mark
        self.stages: list[tuple[str, int, int]] = []  # and which marks they are between
        self._clock = np.zeros(MOST_MARKS, np.int64)
        self._program: Program | None = None
        self._steps: list[Callable[[], object]] = []
        self._before: list[Callable[[Board], object]] = []
        self._followers: list[Callable[[Board], object]] = []
        self._found = self.array(FOUND.itemsize, dtype=np.uint8)
        self._camera: Camera | None = None
        self._size = 0, 0
        self._board: Board
        self._view(distortion)

    def _view(self, distortion: bool) -> None:
        """First of all: the tracker's people as `assembly.GIVEN` has them."""
        views = np.zeros((), view_of(self.people))
        out = [views[name] for name in VIEW]
        self.update(zip(ON_BOARD, out, strict=True))
        given = self.lens, self._frame, self.people, self._found, SEEN
        self.call("view_people_f64", *given, *out)
        if distortion:
            self.host(lambda board: undistort_keypoints(self["keypoints"], board.camera))

    def array(self, *shape: int, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
        """A new array (people, *shape)."""
        return np.zeros((self.people, *shape), dtype)

    def give(self, name: str, *shape: int, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
        """The same, under its name on the board."""
        self[name] = self.array(*shape, dtype=dtype)
        return self[name]

    def call(self, function: str, *arguments: Any) -> Callable[[int, int], None]:
        """A native call, see `Program.add`; what puts another argument in place of one."""
        if self._program is None:
            program = self._program = Program()
            self._steps.append(program)
        program = self._program
        first = program.add(function, *arguments)
        return lambda argument, value: program.put(first + argument, value)

    def widened(self, array: np.ndarray) -> np.ndarray:
        """The float64 copy of a float32 array. Raises: NotCompiled for another dtype."""
        if array.dtype == np.float64:
            return array
        wide = np.zeros(array.shape)
        self.call("widen_f64", array.size, as_floats(array), wide)
        return wide

    def network(self, context: Context | LandmarkNetwork) -> None:
        """A network's run, which is the stage's "enqueue"."""
        self.mark("enqueue")
        self._add(context.enqueue)
        self.mark("collect")

    def host(self, function: Callable[[Board], object]) -> None:
        """Something of Python's own, with the frame's board."""
        self._add(lambda: function(self._board))

    def _add(self, step: Callable[[], object]) -> None:
        self._program = None
        self._steps.append(step)

    def before(self, function: Callable[[Board], object]) -> None:
        """Something of Python's own before all else of a frame."""
        self._before.append(function)

    def when_others_come(self, follow: Callable[[Board], object]) -> None:
        """Something of Python's own before a frame whose people are not those of the last one."""
        self._followers.append(follow)

    def begin(self, stage: str) -> None:
        """What follows is a stage's, at first its "prepare"."""
        self._end_stage()
        self.stages.append((stage, len(self.parts), 0))
        self.parts.append((stage, "prepare"))
        self._mark()

    def _end_stage(self) -> None:
        if self.stages:
            self.stages[-1] = *self.stages[-1][:2], len(self.parts)

    def mark(self, kind: str) -> None:
        """What follows is the stage's "enqueue" or "collect"."""
        self.parts.append((self.parts[-1][0], kind))
        self._mark()

    def _mark(self) -> None:
        if len(self.parts) >= MOST_MARKS:
            raise NotCompiled(f"more than {MOST_MARKS} parts")
        self.call("clock_ns", self._clock[len(self.parts) - 1 :])

    def end(self) -> None:
        """What follows is no stage's."""
        self._end_stage()
        self.call("clock_ns", self._clock[len(self.parts) :])
        self._times = self._clock[: len(self.parts) + 1]

    def follow(self, board: Board) -> None:
        """Other people than in the last frame, or the last one was not run here."""
        for follow in self._followers:
            follow(board)

    def run(self, board: Board) -> list[int]:
        """A frame; when each part began, and the last one ended, as `perf_counter_ns` counts."""
        if self._camera is not board.camera or self._size != board.size:
            self._camera, self._size = board.camera, board.size
            self.lens[:], self._frame[:] = board.camera.lens, board.size
        self._found[:] = records_of(board.found, board.camera)
        self.t_ns[0] = board.t_ns
        for prepare in self._before:
            prepare(board)
        self._board = board
        try:
            for step in self._steps:
                step()
        finally:
            del self._board  # and the image with it
        return self._times.tolist()


@runtime_checkable
class CompilableStage(Stage, Protocol):
    """A stage that native calls and networks make up."""

    def compile(self, into: Compiled) -> None:
        """Record what prepare, enqueue and collect do. Raises: NotCompiled."""
        ...


def compile_stage(stage: Stage, into: Compiled) -> None:
    """Raises: NotCompiled for one that cannot be."""
    if not isinstance(stage, CompilableStage):
        raise NotCompiled(stage.name)
    try:
        stage.compile(into)
    except ValueError as error:  # arrays that do not fit: the stage by itself says so of a frame
        raise NotCompiled(stage.name) from error


def executor_of(
    stages: Sequence[Stage],
    given: frozenset[str],
    meshes: MeshMaker,
    parallel: bool,
    distortion: bool,
    recorder: Recorder | None,
) -> Executor | CompiledExecutor:
    """What runs the stages: compiled where all of them can be, and none is to run beside another.

    given, parallel, recorder: as of `Executor`. Raises: as that.
    """
    ordered = [stage for level in levels_of(stages, given) for stage in level]
    try:
        if parallel:
            raise NotCompiled("in threads")
        return CompiledExecutor(ordered, meshes, distortion, recorder)
    except NotCompiled:
        return Executor(stages, given, parallel, recorder)


class CompiledExecutor:
    """Replays its stages, which are compiled once for each number of people.

    stages: in an order in which they can run. distortion: whether the camera's lens has any.

    Raises: NotCompiled.
    """

    delays, owed, look_ahead = False, 0, 0

    def __init__(
        self,
        stages: Sequence[Stage],
        meshes: MeshMaker,
        distortion: bool,
        recorder: Recorder | None = None,
    ) -> None:
        self._distortion = distortion
        self._stages, self._meshes, self._recorder = stages, meshes, recorder
        self._compiled: dict[int, tuple[Compiled, Callable[[], Meshes]]] = {}
        self._last, _ = self._of(1)
        self._people: list[tuple[int, int]] = []
        self.latency_ms: dict[str, float] = {}

    def _of(self, people: int) -> tuple[Compiled, Callable[[], Meshes]]:
        if people not in self._compiled:
            compiled = Compiled(people, self._distortion)
            for stage in self._stages:
                compiled.begin(stage.name)
                compile_stage(stage, compiled)
            compiled.end()
            if len(self._compiled) == MOST_COMPILED:
                del self._compiled[next(iter(self._compiled))]  # the oldest: made in a millisecond
            self._compiled[people] = compiled, self._meshes.compile(compiled)
        return self._compiled[people]

    def run(self, board: Board) -> list[Board]:
        """The board, its `meshes` there. Raises: what a network raises."""
        self.latency_ms = {}
        if board.rows:
            compiled, meshes = self._of(len(board.rows))
            people = [(row.track, row.epoch) for row in board.rows]
            if compiled is not self._last or people != self._people:
                self._people = []  # until it is done
                compiled.follow(board)
                self._last, self._people = compiled, people
            times = compiled.run(board)
            board.meshes = meshes()
            for stage, first, last in compiled.stages:
                self.latency_ms[stage] = (times[last] - times[first]) / 1e6
            if self._recorder and self._recorder.on:
                self._recorder.add_parts(compiled.parts, times)
        return [board]

    def flush(self) -> list[Board]:
        return []

    def close(self) -> None:
        """Nothing: no thread was started."""
