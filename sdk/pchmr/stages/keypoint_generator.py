"""Mesh generator over 2D keypoints: the licence-free stand-in for HMR, network G."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_kernels.skeletons import get_skeleton

from ..geometry import rot6d_to_rotmat
from ..placement import points_to_crop
from .base import BatchedEngine, Board


class KeypointGenerator:
    """Keypoints of the crop -> body pose and shape (theta, beta of Section 3.1).

    landmarks: names of the BlazePose landmarks the network takes, in its order.
    Gives rotmats (P, 24, 3, 3), turned onto the crop's viewing ray, and betas (P, 10).
    """

    name = "generator"
    needs = frozenset({"keypoints", "crop_rotation", "crop_size"})
    gives = frozenset({"rotmats", "betas"})

    def __init__(
        self, engine: Engine, landmarks: Sequence[str], max_people: int, threads: int
    ) -> None:
        skeleton = get_skeleton("blazepose33")
        self._columns = np.array([skeleton.index(name) for name in landmarks])
        self._engine = BatchedEngine(engine, max_people, threads)
        self._context: Context

    def prepare(self, board: Board) -> None:
        people = len(board.rows)
        self._context = self._engine.context(people)
        keypoints = board["keypoints"][:, self._columns]
        feed = self._context.buffers["keypoints"][:people]
        feed[..., :2] = points_to_crop(
            keypoints[..., :2], board["crop_rotation"], board["crop_size"], board.camera
        )
        feed[..., 2] = keypoints[..., 2]

    def enqueue(self) -> None:
        self._context.enqueue()

    def collect(self, board: Board) -> None:
        people = len(board.rows)
        rotmats = rot6d_to_rotmat(self._context.buffers["rot6d"][:people])
        rotmats[:, 0] = board["crop_rotation"] @ rotmats[:, 0]
        board["rotmats"] = rotmats
        board["betas"] = self._context.buffers["betas"][:people].copy()
