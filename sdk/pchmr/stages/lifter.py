"""2D-to-3D pose lifter L: from image keypoints (parallel) or from the mesh's own (serial)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_kernels.skeletons import get_skeleton

from ..placement import points_to_crop
from .base import BatchedEngine, Board


class KeypointLifter:
    """Keypoints of the crop -> joints_3d (P, 24, 3) and pose_landmarks (P, 33, 3), metres.

    Both are about the pelvis joint, oriented as the camera. landmarks: names of the BlazePose
    landmarks the network takes, in its order. keypoints: the image keypoints it lifts.
    """

    name = "lifter"
    gives = frozenset({"joints_3d", "pose_landmarks"})

    def __init__(
        self,
        engine: Engine,
        landmarks: Sequence[str],
        max_people: int,
        threads: int,
        keypoints: str = "keypoints",
    ) -> None:
        skeleton = get_skeleton("blazepose33")
        self._columns = np.array([skeleton.index(name) for name in landmarks])
        self._engine = BatchedEngine(engine, max_people, threads)
        self._keypoints = keypoints
        self.needs = frozenset({keypoints, "crop_rotation", "crop_size"})
        self._context: Context

    def prepare(self, board: Board) -> None:
        self._feed(board, board[self._keypoints][:, self._columns])

    def _feed(self, board: Board, keypoints: np.ndarray) -> None:
        people = len(board.rows)
        self._context = self._engine.context(people)
        feed = self._context.buffers["keypoints"][:people]
        feed[..., :2] = points_to_crop(
            keypoints[..., :2], board["crop_rotation"], board["crop_size"], board.camera
        )
        feed[..., 2] = keypoints[..., 2]

    def enqueue(self) -> None:
        self._context.enqueue()

    def collect(self, board: Board) -> None:
        people, turn = len(board.rows), board["crop_rotation"].transpose(0, 2, 1)
        board["joints_3d"] = self._context.buffers["joints"][:people] @ turn
        board["pose_landmarks"] = self._context.buffers["landmarks"][:people] @ turn


class MeshLifter(KeypointLifter):
    """The serial form (Eq. 4): lifts the mesh's own 2D projection; no image keypoint enters.

    Gives joints_3d and, since it trusts every one alike, target and confidence as well.
    """

    gives = frozenset({"joints_3d", "pose_landmarks", "target", "confidence"})

    def __init__(
        self, engine: Engine, landmarks: Sequence[str], max_people: int, threads: int
    ) -> None:
        super().__init__(engine, landmarks, max_people, threads)
        self.needs = frozenset({"landmarks", "translation", "crop_rotation", "crop_size"})

    def prepare(self, board: Board) -> None:
        points = board["landmarks"][:, self._columns] + board["translation"][:, None]
        keypoints = np.ones(points.shape, np.float32)
        keypoints[..., :2] = board.camera.project(points)
        self._feed(board, keypoints)

    def collect(self, board: Board) -> None:
        super().collect(board)
        board["target"] = board["joints_3d"]
        board["confidence"] = np.ones(board["joints_3d"].shape[:2], np.float32)
