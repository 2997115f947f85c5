"""2D-to-3D pose lifter L: from image keypoints (parallel) or from the mesh's own (serial)."""

from __future__ import annotations

import numpy as np

from pchmr_kernels.geometry import rotate

from .base import Board, KeypointEngine


class KeypointLifter:
    """Keypoints of the crop -> joints_3d (P, 24, 3) and pose_landmarks (P, 33, 3), metres.

    Both are about the pelvis joint, oriented as the camera. keypoints: of which image keypoints.
    """

    name = "lifter"
    gives = frozenset({"joints_3d", "pose_landmarks"})

    def __init__(self, network: KeypointEngine, keypoints: str) -> None:
        self._network, self._keypoints = network, keypoints
        self.needs = frozenset({keypoints, "crop_rotation", "crop_size"})

    def prepare(self, board: Board) -> None:
        self._network.feed(board, board[self._keypoints])

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        turn = board["crop_rotation"]
        board["joints_3d"] = rotate(self._network.output("joints"), turn)
        board["pose_landmarks"] = rotate(self._network.output("landmarks"), turn)


class MeshLifter:
    """The serial form (Eq. 4): lifts the mesh's own 2D projection; no image keypoint enters.

    Gives the target joints (P, 24, 3), metres about the pelvis, all trusted alike.
    """

    name = "lifter"
    needs = frozenset({"landmarks", "translation", "crop_rotation", "crop_size"})
    gives = frozenset({"target", "confidence"})

    def __init__(self, network: KeypointEngine) -> None:
        self._network = network

    def prepare(self, board: Board) -> None:
        points = board["landmarks"] + board["translation"][:, None]
        keypoints = np.ones(points.shape)  # all of a mesh is visible to its own projection
        keypoints[..., :2] = board.camera.pinhole.project(points)
        self._network.feed(board, keypoints)

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        target = rotate(self._network.output("joints"), board["crop_rotation"])
        board["target"], board["confidence"] = target, np.ones(target.shape[:2])
