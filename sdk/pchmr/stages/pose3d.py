"""3D pose networks over crops as the target: PoseNet's cells, and joints in metres."""

from __future__ import annotations

import numpy as np

from pchmr_kernels.skeletons import Skeleton

from ..crop_camera import crop_turn
from ..placement import NEAREST_M, unproject
from ..prepost.posenet import CELLS, cells_to_depth
from .base import Board, HostStage
from .network import affine_points
from .skeletons import conversion_between


class CellJoints:
    """PoseNet's cells as joints of the calibration's skeleton, but for the depth Z of their root.

    joints: the network's skeleton. size: (width, height) of its crop, pixels.
    """

    def __init__(self, joints: str, skeleton: str, size: tuple[int, int]) -> None:
        self._convert = conversion_between(joints, skeleton, "the pose stream's joints")
        self._pixels_a_cell = np.array(size) / CELLS

    def __call__(self, board: Board) -> tuple[np.ndarray, np.ndarray]:
        """base and slope (P, J, 3), metres in the frame's camera: joints are base + Z slope."""
        cells = board["pose3d"].astype(np.float64)
        pixels = affine_points(board["pose_affine"], cells[..., :2] * self._pixels_a_cell)
        rays = unproject(board.camera.undistort(pixels), np.ones(cells.shape[:2]), board.camera)
        return self._convert(rays * cells_to_depth(cells)[..., None]), self._convert(rays)


class CellTarget(HostStage):
    """PoseNet's joints before the frame's camera, their root as deep as the mesh's.

    Gives target (P, J, 3) metres and confidence (P, J), all trusted alike.
    """

    name = "target"
    needs = frozenset({"pose3d", "pose_affine", "translation", "source"})
    gives = frozenset({"target", "confidence"})

    def __init__(self, joints: CellJoints, root: int) -> None:
        self._joints, self._root = joints, root

    def collect(self, board: Board) -> None:
        base, slope = self._joints(board)
        depth = board["translation"][:, 2] + board["source"][:, self._root, 2]
        board["target"] = base + depth[:, None, None] * slope
        board["confidence"] = np.ones(base.shape[:2])


class CellPlacement(HostStage):
    """Where a template stands that PoseNet's joints are the target of: so far away that their bones
    are together as long as its own (in the sum of squares).

    Gives translation (P, 3), which moves the mesh's root there, and placed (P,).
    """

    name = "place"
    needs = frozenset({"pose3d", "pose_affine", "source"})
    gives = frozenset({"translation", "placed"})

    def __init__(self, joints: CellJoints, skeleton: Skeleton) -> None:
        self._joints, self._skeleton = joints, skeleton

    def collect(self, board: Board) -> None:
        base, slope = self._joints(board)
        parent, child = self._skeleton.bones.T
        fixed, grown, wanted = (x[:, parent] - x[:, child] for x in (base, slope, board["source"]))
        # |fixed + Z grown|^2 summed = |wanted|^2 summed: a Z^2 + 2 b Z + c = 0
        a, b = (grown * grown).sum((1, 2)), (fixed * grown).sum((1, 2))
        c = (fixed * fixed).sum((1, 2)) - (wanted * wanted).sum((1, 2))
        root = b * b - a * c
        depth = (np.sqrt(np.maximum(root, 0)) - b) / np.maximum(a, 1e-12)
        board["placed"] = (root > 0) & (depth > NEAREST_M)
        depth = np.where(board["placed"], depth, NEAREST_M)
        at = self._skeleton.root
        board["translation"] = depth[:, None] * slope[:, at] - board["source"][:, at]


class JointTarget(HostStage):
    """Joints (P, J, 3) in metres of a network over crops, turned onto the crop's viewing ray.

    joints, size: as of `CellJoints`.
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
