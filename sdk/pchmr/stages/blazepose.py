"""BlazePose's networks as stages: who is in the frame, and where their landmarks are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_kernels.person import view_people

from ..blazepose import (
    Detection,
    LandmarkDecoder,
    Landmarks,
    closer_rois,
    decode_detections,
)
from ..crops import Roi, letterbox_roi, warp_crops
from ..tracking import Detection as AnyDetection
from ..tracking import RoiTracker, Tracked
from .base import BatchedEngine, Board

SEEN = 0.5
"""Visibility from which a landmark counts for the box and for validity."""


class PersonDetector:
    """Role detector: a frame -> the people in it."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._context = engine.context(1, threads=threads)
        self._context.freeze()

    def __call__(self, image: np.ndarray, part: Roi | None = None) -> list[Detection]:
        """People in a (H, W, 3) uint8 BGR frame, or in a part of it, best first."""
        height, width = image.shape[:2]
        part = part or letterbox_roi(width, height)
        buffers = self._context.buffers
        warp_crops(image, [part], buffers["image"])
        self._context.enqueue()
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
        self._decoders: dict[int, LandmarkDecoder] = {}  # by the number of people
        self._rois: Sequence[Roi]
        self._context: Context

    def prepare(self, image: np.ndarray, rois: Sequence[Roi]) -> None:
        """Cut the crops into the network's input."""
        self._rois = rois
        self._context = self._engine.context(len(rois))
        warp_crops(image, rois, self._engine.arrays(len(rois))["image"], extend=True)

    def enqueue(self) -> None:
        self._context.enqueue()

    def collect(self) -> list[Landmarks]:
        """Landmarks of each crop, in the full frame."""
        people = len(self._rois)
        if people not in self._decoders:
            found = self._engine.arrays(people)
            self._decoders[people] = LandmarkDecoder(
                found["landmarks"], found["presence"], found["world"], found.get("heatmaps")
            )
        return self._decoders[people](self._rois)


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


def put_landmarks(
    board: Board, found: Sequence[Landmarks], keypoints: str, world: str
) -> np.ndarray:
    """Write landmarks onto the board: keypoints (P, 33, 3), free of lens distortion, and world.

    World landmarks (P, 33, 3), metres about the hips, are turned onto the crop's viewing ray.
    Returns (P,) `pchmr_kernels.person.VIEW`.
    """
    camera = board.camera
    regions = np.array(
        [(*person.roi.center, person.roi.size, person.roi.angle) for person in found]
    )
    if camera.distortion:
        regions[:, :2] = camera.undistort(regions[:, :2])
    views = view_people(
        np.array([person.keypoints_2d for person in found], np.float32),
        np.array([person.world for person in found], np.float32),
        *(regions, camera.lens, SEEN, *board.size),
    )
    if camera.distortion:
        points = views["keypoints"][..., :2]
        points[...] = camera.undistort(points)
    board[keypoints], board[world] = views["keypoints"], views["world"]
    return views


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
        put_landmarks(board, self._network.collect(), "pose_keypoints", "pose_world")
