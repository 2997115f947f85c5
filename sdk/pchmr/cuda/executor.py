"""The pipeline's finder and executor on a GPU: both halves of one run of `Frames`."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns

import numpy as np

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import InputError

from ..assembly import Assembly
from ..bodies import BodyModel, body_from_arrays
from ..bundle_networks import BundleNetworks
from ..camera import Camera
from ..lens import Lens
from ..stages.base import Board
from ..tracking import RoiTracker, Tracked
from .cupy_device import CupyDevice
from .frames import STREAMS, Frames
from .parts import NotWhole, parts_of


def on_device(
    device: str,
    assembly: Assembly,
    camera: Camera | Lens,
    smooth: bool,
    graph: bool | None = None,
) -> tuple[CudaFinder, CudaExecutor]:
    """What finds people and what makes their meshes, of one pipeline on a GPU. graph: see `Frames`.

    Raises: InputError for an unknown device; NotWhole where frames cannot stay there whole, and
    `networks.BundleOnGpu` is to be used; EngineError without a GPU, or where no engine runs on it;
    MissingDependency.
    """
    if device != "cuda":
        raise InputError(f"device {device!r} is unknown; expected cpu or cuda")
    gpu, networks = CupyDevice(), assembly.networks
    if smooth:
        raise NotWhole("smoothing over time")
    if camera.distortion:
        raise NotWhole("a lens with distortion")
    frames = Frames(parts_of(assembly, networks.backend), gpu, networks.max_people, graph)
    finder = CudaFinder(frames, camera, networks.max_people, assembly.detector_stride)
    return finder, CudaExecutor(frames)


def load_frames(
    bundle: Bundle,
    topology: str = "parallel",
    backend: str = "auto",
    max_people: int = 1,
    graph: bool | None = None,
    engines: Mapping[str, Engine] | None = None,
    streams: int = STREAMS,
) -> Frames:
    """The frames alone, without a tracker or results for people, as benchmarks want them.

    graph, engines, streams: see `Frames` and `parts_of`, and there for what is raised.
    """
    gpu, model = CupyDevice(), BodyModel(body_from_arrays(bundle.body()))
    assembly = Assembly(BundleNetworks(bundle, backend, 1, max_people), topology, model)
    return Frames(parts_of(assembly, backend, engines), gpu, max_people, graph, streams)


class CudaFinder:
    """Who is in a frame: detection runs only when someone is missing. See `stages.blazepose`."""

    def __init__(self, frames: Frames, camera: Camera | Lens, max_people: int, stride: int) -> None:
        self._frames, self._camera = frames, camera
        self.tracker = RoiTracker(max_people, look_every=stride)

    @property
    def detector_runs(self) -> int:
        """How often the detector was asked so far."""
        return self.tracker.detector_runs

    def __call__(self, image: np.ndarray) -> list[Tracked]:
        """People of the next frame, (H, W, 3) uint8 BGR."""
        height, width = image.shape[:2]
        self._frames.begin(image, self._camera.of_size(width, height))
        frames = self._frames
        return self.tracker.step(frames.detect, frames.follow, frames.look_closer)

    def reset(self) -> None:
        """Forget everybody."""
        self.tracker.reset()


class CudaExecutor:
    """What came of the run that found the people, onto the board. Nothing is owed, ever."""

    delays, owed, look_ahead = False, 0, 0

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self.latency_ms: dict[str, float] = {}

    def run(self, board: Board) -> list[Board]:
        begin = perf_counter_ns()
        self.latency_ms = {}
        if board.rows:
            results = self._frames.results(board.rois)
            results["placed"] = results["placed"] > 0
            given = set(board) | {"roi", "score"}
            board.update({n: x for n, x in results.items() if n not in given})
            self.latency_ms["download"] = (perf_counter_ns() - begin) / 1e6
        return [board]

    def flush(self) -> list[Board]:
        return []

    def close(self) -> None:
        """Nothing: the device's memory goes with the pipeline."""
