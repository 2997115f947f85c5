"""From one camera frame to the calibrated meshes of the people in it; read from top to bottom.

    frame -> detector -> pose2d -> generator -> body -> place -> [lifter -> target -> calibrate]

The part in brackets is what PC-HMR adds (Luan et al. 2021, Figure 2). *Serial* lifts the mesh's
own 2D projection; *parallel* lifts the image keypoints, beside the mesh stream; *template* puts the
rest mesh in place of the mesh stream; *mesh-only* leaves the bracket out.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from time import perf_counter_ns

import numpy as np

from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError

from .assembly import GIVEN, Assembly
from .bodies import BodyModel, body_from_arrays
from .bundle_networks import BundleNetworks
from .camera import Camera
from .checks import check_options, checked_frame, checked_threads
from .closing import Closing
from .compiled import CompiledExecutor, executor_of
from .cuda.executor import CudaExecutor, CudaFinder, on_device
from .cuda.networks import BundleOnGpu
from .cuda.parts import NotWhole
from .cuts import CutDetector
from .detections import DetectedKeypoints
from .executor import Executor
from .lens import Lens
from .meshes import MeshMaker
from .people import Person
from .profiling.recorder import Recorder
from .slots import Slots
from .stages.base import Board
from .stages.blazepose import PersonFinder, put_landmarks
from .stages.detectors import detector_from_onnx
from .stages.smoothed import Smoothed, smoothed
from .swaps import SwapRejection
from .tracking import Tracked

FEWEST = 6
"""Landmarks seen that a calibration needs."""

LONGEST_GAP_NS = 500_000_000
"""Between two frames; after a longer one nobody's movement goes on from before."""


class Pipeline(Closing):
    """Finds people in frames and gives each a mesh. Not thread-safe, but for `submit`: call it
    from one thread, or submit to it from any. Pipelines share nothing that changes.

        pipe = Pipeline.load("open", topology="parallel")
        people = pipe(frame)

    People are followed from one frame to the next; call `reset` between unrelated pictures.

    frames: how many were given so far, which numbers the next one. device_note: what runs on the
    CPU although a GPU was asked for, "" for nothing.
    """

    def __init__(
        self,
        bundle: Bundle,
        topology: str = "parallel",
        *,
        backend: str = "auto",
        threads: int | None = None,
        max_people: int = 1,
        camera: Camera | Lens | None = None,
        side_by_side: bool = False,
        pose2d: DetectedKeypoints | None = None,
        detector: str | os.PathLike[str] | None = None,
        detector_format: str = "yolox",
        detector_stride: int = 30,
        recorder: Recorder | None = None,
        smooth: bool = False,
        device: str = "cpu",
        cuda_graph: bool | None = None,
    ) -> None:
        """
        bundle: a loaded bundle. topology: serial, parallel, template or mesh-only.
        backend: onnxruntime, openvino, or auto, which measures once and remembers.
        threads: CPU threads of the large networks; all usable CPUs by default, and at most.
        max_people: how many people are followed at once, 1 to 64.
        camera: intrinsics of the frames, or what is known of them; by default
            f = sqrt(w^2 + h^2), centred.
        side_by_side: run branches that need nothing of each other in threads of their own; on
            two CPUs it gained nothing over giving each network both.
        pose2d: keypoints found beforehand, in place of the bundle's 2D network.
        detector: an ONNX file in place of the bundle's person detector, and what it gives: a name
            of `pchmr.stages.detector_formats.FORMATS`. detector_stride: frames between looks for
            further people while there is room for them.
        recorder: gets where the time goes, as for `pchmr profile`.
        smooth: one-euro filters over time on pose, shape, place and target, and landmarks whose
            left and right change places from one frame to the next put right.
        device: "cpu", or "cuda": all between the frame and the meshes stays on an NVIDIA GPU, or
            where that cannot be, which `device_note` then says, the networks alone run there;
            `backend` is one of the GPU's; see `pchmr.cuda`. cuda_graph: a frame, or
            each network, is one launch; by default where engines can be captured.

        Raises:
            InputError: no loaded bundle, an unknown topology or number.
            PchmrError: the bundle lacks a stage, or a backend cannot run.
        """
        if not isinstance(bundle, Bundle):
            raise InputError(f"bundle is {bundle!r}; expected a Bundle: use Pipeline.load")
        if topology not in bundle.manifest.topologies:
            raise InputError(
                f"topology {topology!r}: bundle {bundle.manifest.name!r} has "
                f"{', '.join(bundle.manifest.topologies)}; choose one of these"
            )
        check_options(max_people, detector_stride, camera)
        self.bundle, self.topology, self.camera = bundle, topology, camera or Lens()
        self.body = body_from_arrays(bundle.body())
        model = BodyModel(self.body)
        networks = BundleNetworks(bundle, backend, checked_threads(threads), max_people)
        boxes = detector and detector_from_onnx(detector, detector_format, networks.threads)
        assembly = Assembly(networks, topology, model, pose2d, boxes or None, detector_stride)
        self.skeleton = assembly.skeleton
        joints_of = model.regressor(self.skeleton.name)
        self._meshes = MeshMaker(joints_of, self.skeleton, topology != "mesh-only")
        if topology != "mesh-only" and assembly.pair and not assembly.pair.settings.get("trained"):
            warnings.warn(
                f"the calibration weights of bundle {bundle.manifest.name!r} for "
                f"{self.skeleton.name} are untrained: pchmr train calibration trains them",
                stacklevel=2,
            )
        self._smoothed: list[Smoothed] = []
        self._sides = SwapRejection() if smooth else None
        self._finder: PersonFinder | CudaFinder
        self._executor: Executor | CompiledExecutor | CudaExecutor
        whole, self.device_note = None, ""
        if device != "cpu":
            try:
                whole = on_device(device, assembly, self.camera, smooth, cuda_graph)
            except NotWhole as why:
                self.device_note = f"device {device}: {why}"
                bundle = BundleOnGpu.of(bundle, cuda_graph)
        if whole:
            self._finder, self._executor = whole
        else:
            recorded = recorder.bundle(bundle) if recorder else bundle
            assembly = replace(assembly, networks=replace(networks, bundle=recorded))
            self._finder = assembly.finder()
            stages = assembly.stages()
            if smooth:
                stages = smoothed(stages, self.skeleton)
                self._smoothed = [stage for stage in stages if isinstance(stage, Smoothed)]
            threaded = side_by_side or device != "cpu"
            self._executor = executor_of(
                stages, GIVEN, self._meshes, threaded, bool(self.camera.distortion), recorder
            )
        find = self._finder.__call__
        self._find = recorder.watch("find", "find", find) if recorder else find
        self._cuts = CutDetector() if smooth or self._executor.delays else None
        self._camera_of = lru_cache(maxsize=4)(self.camera.of_size)
        self._slots = Slots(max_people)
        self.frames = self._last_ns = 0
        self._busy = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "pchmr-pipeline")  # no thread before `submit`

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle = "open",
        topology: str = "parallel",
        *,
        trust: bool = False,
        backend: str = "auto",
        threads: int | None = None,
        max_people: int = 1,
        camera: Camera | Lens | None = None,
        side_by_side: bool = False,
        pose2d: DetectedKeypoints | None = None,
        detector: str | os.PathLike[str] | None = None,
        detector_format: str = "yolox",
        detector_stride: int = 30,
        recorder: Recorder | None = None,
        smooth: bool = False,
        device: str = "cpu",
        cuda_graph: bool | None = None,
    ) -> Pipeline:
        """A pipeline from a bundle's folder, zip or registered name ("open", "open-plus").

        trust: allow networks in formats that can run code, as torch's are. The others, and what is
        raised: as for `Pipeline`.
        """
        if isinstance(bundle, Bundle):
            loaded = replace(bundle, trust=True) if trust else bundle
        else:
            loaded = Bundle.load(os.fspath(bundle), trust)
        return cls(
            loaded,
            topology,
            backend=backend,
            threads=threads,
            max_people=max_people,
            camera=camera,
            side_by_side=side_by_side,
            pose2d=pose2d,
            detector=detector,
            detector_format=detector_format,
            detector_stride=detector_stride,
            recorder=recorder,
            smooth=smooth,
            device=device,
            cuda_graph=cuda_graph,
        )

    def __call__(self, image: np.ndarray, t_ns: int | None = None) -> list[Person]:
        """The people in one frame, in the order they were first seen.

        With temporal networks that look ahead these are the people of an earlier frame, which they
        name: of the frame `look_ahead` before this one, of none while there is no such frame, and,
        where a network has a rate of its own and the frames' changes, of the few due by now.

        image: (H, W, 3) uint8 BGR, as OpenCV reads it; grey, alpha and other depths are
            converted. t_ns: its time, by default the frame's number at 30 frames a second.

        Raises:
            InputError: the image is something else, or another thread is in the pipeline.
        """
        if not self._busy.acquire(blocking=False):
            raise InputError(
                "another thread is in this pipeline; expected one at a time: hand frames to "
                "`submit`, or load a pipeline for each thread"
            )
        try:
            return self._people_in(image, t_ns)
        finally:
            self._busy.release()

    def _people_in(self, image: np.ndarray, t_ns: int | None) -> list[Person]:
        begin = perf_counter_ns()
        image = checked_frame(image)
        height, width = image.shape[:2]
        camera = self._camera_of(width, height)
        time = self.frames * 1_000_000_000 // 30 if t_ns is None else t_ns
        if self._cuts and self._cuts(image):
            self.reset()
        tracks = self._find(image)
        if self._sides:
            tracks = self._sides(tracks, time)
        found_ms = (perf_counter_ns() - begin) / 1e6
        if not 0 <= time - self._last_ns <= LONGEST_GAP_NS:
            self._slots.clear()
        self._last_ns = time
        board = self._board(image, camera, time, tracks)
        self.frames += 1
        boards = self._executor.run(board)
        return [x for done in boards for x in self._people(done, begin, {"find": found_ms})]

    def flush(self) -> list[list[Person]]:
        """The people of the frames that are still owed, frame by frame, as at the end of a video.

        Temporal stages take everybody's last frame to go on; whoever is still there starts anew.
        """
        begin = perf_counter_ns()
        self._slots.clear()
        return [self._people(board, begin, {}) for board in self._executor.flush()]

    @property
    def look_ahead(self) -> int:
        """Frames by which people come late: 0 without temporal networks that look ahead.

        Where a network has a rate of its own, those that come in the same time, as frames come now.
        """
        return self._executor.look_ahead

    @property
    def owed(self) -> int:
        """Frames, the last ones given, whose people have not come yet."""
        return self._executor.owed

    def submit(self, image: np.ndarray, t_ns: int | None = None) -> Future[list[Person]]:
        """As a call, in the pipeline's own thread, in the order of submission.

        The image must stay as it is until the future is done, which holds the people or the error.

        Raises: InputError after `close`.
        """
        try:
            return self._worker.submit(self, image, t_ns)
        except RuntimeError as error:
            raise InputError("the pipeline is closed; expected frames before: load one") from error

    def _board(
        self, image: np.ndarray, camera: Camera, t_ns: int, tracks: Sequence[Tracked]
    ) -> Board:
        found = [track.landmarks for track in tracks]
        rois = [landmarks.roi for landmarks in found]
        rows = self._slots.rows(self.frames, t_ns, [track.track_id for track in tracks])
        board = Board(image, camera, rows, rois, found=found, t_ns=t_ns)
        if tracks and not isinstance(self._executor, CompiledExecutor):  # which does it itself
            put_landmarks(board)
        return board

    def _people(self, board: Board, begin_ns: int, spent_ms: Mapping[str, float]) -> list[Person]:
        """The public result, in arrays of its own."""
        if not board.rows:
            return []
        latency_ms = {**spent_ms, **self._executor.latency_ms}
        meshes = board.meshes or self._meshes(board)
        target = meshes.target
        people = []
        for i, (row, found) in enumerate(zip(board.rows, board.found, strict=True)):
            people.append(
                Person(
                    track_id=row.track,
                    frame=row.frame,
                    t_ns=row.t_ns,
                    vertices=meshes.vertices[i],
                    generator_vertices=meshes.generator_vertices[i],
                    joints=meshes.joints[i],
                    target_joints=None if target is None else target[i],
                    joint_confidence=meshes.confidence[i],
                    skeleton=self.skeleton.name,
                    keypoints_2d=found.keypoints_2d,
                    rotmats=meshes.rotmats[i],
                    betas=meshes.betas[i],
                    transl=meshes.transl[i],
                    camera=board.camera,
                    bbox=meshes.boxes[i],
                    score=found.score,
                    valid=meshes.placed[i] and meshes.visible[i] >= FEWEST,
                    latency_ms=latency_ms,
                )
            )
        waited_ms = (self._last_ns - board.t_ns) / 1e6
        if self._executor.delays:
            latency_ms["look_ahead"] = waited_ms
        if lags := [lag for stage in self._smoothed if (lag := stage.lag_ms) is not None]:
            latency_ms["smoothing_lag"] = max(lags)
        latency_ms["total"] = (perf_counter_ns() - begin_ns) / 1e6 + waited_ms
        return people

    @property
    def detector_runs(self) -> int:
        """How often the detector was asked so far; the rest were tracked frames."""
        return self._finder.detector_runs

    def reset(self) -> None:
        """Forget who was followed, as at a cut or before an unrelated picture.

        What is owed still comes, with the next frames or from `flush`.
        """
        self._finder.reset()

    def take_over(self, other: Pipeline) -> None:
        """Go on with whom `other`, of the same bundle and options, follows: ids, sides, smoothing.

        Flush `other` before, and let it rest afterwards: they share what they know of people.
        Temporal networks begin anew.
        """
        self._finder.tracker = other._finder.tracker
        self.frames, self._last_ns = other.frames, other._last_ns
        self._slots.clear()
        self._sides = self._sides and other._sides
        self._cuts = self._cuts and (other._cuts or CutDetector())
        if self.skeleton.name == other.skeleton.name:
            for stage in self._smoothed:
                stage.take_over(other._smoothed)

    def close(self) -> None:
        """Stop worker threads, once what was submitted is done."""
        self._worker.shutdown()
        self._executor.close()
