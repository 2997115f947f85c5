"""3D pose networks over crops as the target: PoseNet's cells, and joints in metres."""

from __future__ import annotations

import numpy as np

from ..crop_camera import crop_turn
from ..placement import unproject
from ..prepost.posenet import CELLS, cells_to_depth
from .base import Board, HostStage
from .network import affine_points
from .skeletons import conversion_between


class CellTarget(HostStage):
    """PoseNet's cells as target joints before the frame's camera, the root as deep as the mesh's.

    joints: the network's skeleton; skeleton, root: the calibration's; size: (width, height) of the
    network's crop, pixels.
    Gives target (P, J, 3) metres and confidence (P, J), all trusted alike.
    """

    name = "target"
    needs = frozenset({"pose3d", "pose_affine", "translation", "source"})
    gives = frozenset({"target", "confidence"})

    def __init__(self, joints: str, skeleton: str, root: int, size: tuple[int, int]) -> None:
        self._convert = conversion_between(joints, skeleton, "the pose stream's joints")
        self._root, self._pixels_a_cell = root, np.array(size) / CELLS

    def collect(self, board: Board) -> None:
        cells = board["pose3d"].astype(np.float64)
        pixels = affine_points(board["pose_affine"], cells[..., :2] * self._pixels_a_cell)
        root_depth = board["translation"][:, None, 2] + board["source"][:, self._root, None, 2]
        depth = root_depth + cells_to_depth(cells)
        joints = unproject(board.camera.undistort(pixels), depth, board.camera)
        board["target"] = self._convert(joints)
        board["confidence"] = np.ones(board["target"].shape[:2])


class JointTarget(HostStage):
    """Joints (P, J, 3) in metres of a network over crops, turned onto the crop's viewing ray.

    Gives target (P, J, 3) about any origin, and confidence (P, J), all trusted alike.
    """

    name = "target"
    needs = frozenset({"pose3d", "pose_affine"})
    gives = frozenset({"target", "confidence"})

    def __init__(self, joints: str, skeleton: str, size: tuple[int, int]) -> None:
        self._convert = conversion_between(joints, skeleton, "the pose stream's joints")
        self._size = size

    def collect(self, board: Board) -> None:
        turn = crop_turn(board["pose_affine"], self._size, board.camera)
        joints = board["pose3d"].astype(np.float64) @ turn.transpose(0, 2, 1)
        board["target"] = self._convert(joints)
        board["confidence"] = np.ones(board["target"].shape[:2])
