"""2D-to-3D pose lifter L: from image keypoints (parallel) or from the mesh's own (serial)."""

from __future__ import annotations

import numpy as np

from pchmr_kernels.geometry import project, rotate
from pchmr_kernels.native import as_it_is

from ..compiled import Compiled
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

    def compile(self, into: Compiled) -> None:
        arrays = self._network.compile(into, into[self._keypoints])
        for given, name in (("joints", "joints_3d"), ("landmarks", "pose_landmarks")):
            _compile_rotate(into, arrays[given], name)


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
        keypoints = project(board["landmarks"], board["translation"], board.camera.lens)
        self._network.feed(board, keypoints)  # all of a mesh is visible to its own projection

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        target = rotate(self._network.output("joints"), board["crop_rotation"])
        board["target"], board["confidence"] = target, np.ones(target.shape[:2])

    def compile(self, into: Compiled) -> None:
        landmarks, keypoints = into["landmarks"], into.array(33, 3)
        given = into.lens, into.people, 33, landmarks, into["translation"]
        into.call("project_f64", *given, keypoints)
        arrays = self._network.compile(into, keypoints)
        target = _compile_rotate(into, arrays["joints"], "target")
        into.give("confidence", target.shape[1])[:] = 1


def _compile_rotate(into: Compiled, points: np.ndarray, name: str) -> np.ndarray:
    """Record points (P, N, 3) of the crop's camera as the frame's has them."""
    count = points.shape[1]
    points = as_it_is(name, points, (into.people, count, 3), "float32")
    turned = into.give(name, count, 3)
    into.call("rotate_f64", into.people, count, points, into["crop_rotation"], turned)
    return turned
