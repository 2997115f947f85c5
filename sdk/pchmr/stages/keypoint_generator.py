"""Mesh generator over 2D keypoints: the licence-free stand-in for HMR, network G."""

from __future__ import annotations

from pchmr_kernels.native import as_it_is
from pchmr_kernels.person import pose_rotmats

from ..compiled import Compiled, as_floats
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

    def compile(self, into: Compiled) -> None:
        arrays = self._network.compile(into, into["keypoints"])
        joints = arrays["rot6d"].shape[1]
        rot6d = as_it_is("rot6d", arrays["rot6d"], (into.people, joints, 6), "float32")
        rotmats = into.give("rotmats", joints, 3, 3)
        turn = into["crop_rotation"]
        into.call("pose_rotmats_f64", into.people, joints, rot6d, turn, rotmats)
        into["betas"] = as_floats(arrays["betas"])
