"""Mesh generator over 2D keypoints: the licence-free stand-in for HMR, network G."""

from __future__ import annotations

from pchmr_kernels.person import pose_rotmats

from .base import Board, KeypointEngine


class KeypointGenerator:
    """Keypoints of the crop -> body pose and shape (theta, beta of Section 3.1).

    Gives rotmats (P, 24, 3, 3), turned onto the crop's viewing ray, and betas (P, 10).
    """

    name = "generator"
    needs = frozenset({"keypoints", "crop_rotation", "crop_size"})
    gives = frozenset({"rotmats", "betas"})

    def __init__(self, network: KeypointEngine) -> None:
        self._network = network

    def prepare(self, board: Board) -> None:
        self._network.feed(board, board["keypoints"])

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        board["rotmats"] = pose_rotmats(self._network.output("rot6d"), board["crop_rotation"])
        board["betas"] = self._network.output("betas").copy()
