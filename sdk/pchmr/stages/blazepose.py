"""BlazePose's networks as stages: who is in the frame, and where their landmarks are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_kernels.crops import RegionCrops
from pchmr_kernels.person import FOUND, VIEW, view_people

from ..blazepose import (
    Detection,
    LandmarkDecoder,
    Landmarks,
    closer_rois,
    decode_detections,
)
from ..camera import Camera
from ..crops import Roi, letterbox_roi, region_rows
from ..tracking import Detection as AnyDetection
from ..tracking import RoiTracker, Tracked
from .base import BatchedEngine, Board

if TYPE_CHECKING:
    from ..compiled import Compiled

SEEN = 0.5
"""Visibility from which a landmark counts for the box and for validity."""


ON_BOARD = ("keypoints", "world", "crop_rotation", "crop_size", "box", "visible")
"""What `pchmr_kernels.person.VIEW` is called there."""


class PersonDetector:
    """Role detector: a frame -> the people in it."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._context = engine.context(1, threads=threads)
        self._context.freeze()
        self._crop = RegionCrops(self._context.buffers["image"])

    def __call__(self, image: np.ndarray, part: Roi | None = None) -> list[Detection]:
        """People in a (H, W, 3) uint8 BGR frame, or in a part of it, best first."""
        height, width = image.shape[:2]
        part = part or letterbox_roi(width, height)
        self._crop(image, region_rows([part]))
        self._context.enqueue()
        buffers = self._context.buffers
        boxes, scores = buffers["boxes"][0], buffers["scores"][0]
        return decode_detections(boxes, scores, width, height, roi=part)

    def look_closer(self, image: np.ndarray) -> list[Detection]:
        """People in overlapping parts of the frame, where the small are larger."""
        height, width = image.shape[:2]
        return [found for part in closer_rois(width, height) for found in self(image, part)]


class LandmarkNetwork:
    """Role pose2d: crops of a frame -> landmarks of the people in them."""

    def __init__(self, engine: Engine, max_people: int, threads: int) -> None:
        self._engine = BatchedEngine(engine, max_people, threads)
        self._parts: dict[int, tuple[Context, RegionCrops, LandmarkDecoder]] = {}  # by people
        self._rois: Sequence[Roi]
        self._regions: np.ndarray
        self._context: Context
        self._decode: LandmarkDecoder

    def prepare(self, image: np.ndarray, rois: Sequence[Roi]) -> None:
        """Cut the crops into the network's input."""
        self._rois, self._regions = rois, region_rows(rois)
        self._context, crop, self._decode = self._parts_of(len(rois))
        crop(image, self._regions)

    def _parts_of(self, people: int) -> tuple[Context, RegionCrops, LandmarkDecoder]:
        if people not in self._parts:
            own = self._engine.arrays(people)
            outputs = own["landmarks"], own["presence"], own["world"], own.get("heatmaps")
            crops, decoder = RegionCrops(own["image"], extend=True), LandmarkDecoder(*outputs)
            self._parts[people] = self._engine.context(people), crops, decoder
        return self._parts[people]

    def enqueue(self) -> None:
        self._context.enqueue()

    def collect(self) -> list[Landmarks]:
        """Landmarks of each crop, in the full frame."""
        return self._decode(self._rois, self._regions)


class Detector(Protocol):
    """BlazePose's `PersonDetector`, or one of boxes. Frames are (H, W, 3) uint8 BGR."""

    def __call__(self, image: np.ndarray) -> Sequence[AnyDetection]: ...
    def look_closer(self, image: np.ndarray) -> Sequence[AnyDetection]: ...


class PersonFinder:
    """Detector and landmark network with tracking: detection runs only when someone is missing.

    stride: frames between looks for further people while there is room for them.
    """

    def __init__(
        self, detector: Detector, landmarks: LandmarkNetwork, max_people: int, stride: int = 30
    ) -> None:
        self._detect, self._landmarks = detector, landmarks
        self.tracker = RoiTracker(max_people, look_every=stride)

    @property
    def detector_runs(self) -> int:
        """How often the detector was asked so far."""
        return self.tracker.detector_runs

    def __call__(self, image: np.ndarray) -> list[Tracked]:
        """People of the next frame, (H, W, 3) uint8 BGR."""

        def pose(rois: Sequence[Roi]) -> list[Landmarks]:
            self._landmarks.prepare(image, rois)
            self._landmarks.enqueue()
            return self._landmarks.collect()

        return self.tracker.step(
            lambda: self._detect(image), pose, lambda: self._detect.look_closer(image)
        )

    def reset(self) -> None:
        """Forget everybody."""
        self.tracker.reset()


def records_of(found: Sequence[Landmarks], camera: Camera) -> np.ndarray:
    """(P, n) uint8, the bytes of each person's `FOUND`, the middle of the region free of lens
    distortion."""
    raw = np.stack([person.raw for person in found]) if found[1:] else found[0].raw[None]
    if camera.distortion:
        raw = raw.copy()
        regions = np.ndarray(len(raw), FOUND, raw)["region"]
        regions[:, :2] = camera.undistort(regions[:, :2])
    return raw


def undistort_keypoints(keypoints: np.ndarray, camera: Camera) -> None:
    """Keypoints (P, 33, 3) in place, where the camera has distortion."""
    if camera.distortion:
        points = keypoints[..., :2]
        points[...] = camera.undistort(points)


def view_landmarks(found: Sequence[Landmarks], board: Board) -> np.ndarray:
    """People before the board's camera, free of lens distortion: see `view_people`."""
    camera = board.camera
    views = view_people(records_of(found, camera), camera.lens, SEEN, board.size)
    undistort_keypoints(views["keypoints"], camera)
    return views


def put_landmarks(board: Board) -> None:
    """The board's people onto the board: what the pipeline gives its stages."""
    views = view_landmarks(board.found, board)
    board.update((name, views[field]) for name, field in zip(ON_BOARD, VIEW, strict=True))


class PoseLandmarkStage:
    """A second landmark network for the pose stream, on the same crops as the mesh stream's."""

    name = "pose_landmarks"
    needs = frozenset({"crop_rotation"})
    gives = frozenset({"pose_keypoints", "pose_world"})

    def __init__(self, network: LandmarkNetwork) -> None:
        self._network = network

    def prepare(self, board: Board) -> None:
        self._network.prepare(board.image, board.rois)

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        views = view_landmarks(self._network.collect(), board)
        board["pose_keypoints"], board["pose_world"] = views["keypoints"], views["world"]

    def compile(self, into: Compiled) -> None:
        own = [into.give(name, 33, 3) for name in ("pose_keypoints", "pose_world")]

        def collect(board: Board) -> None:
            views = view_landmarks(self._network.collect(), board)
            own[0][:], own[1][:] = views["keypoints"], views["world"]

        into.host(self.prepare)
        into.network(self._network)
        into.host(collect)
