"""The target pose and the calibration of the mesh onto it (Section 3.3)."""

from __future__ import annotations

import numpy as np

from pchmr_kernels import person
from pchmr_kernels.calibration import Calibrator

from ..compiled import Compiled, NotCompiled
from ..perceptrons import Perceptrons
from .base import Board, HostStage


class ImageTarget(HostStage):
    """Target joints of the parallel form: x, y from the image, depth from the pose stream.

    Depth is a mean of the lifter's landmarks and the landmark network's world landmarks; the image
    gives x and y at that depth. BlazePose's landmarks are no joint centres: the lifter's
    joints are moved by what its own landmarks are off (`carry`), not replaced.

    carry: (J, 33) how a landmark's residual moves a joint; rows of 1 follow, smaller ones damp.
    keypoints: board names of the pose stream's (image keypoints, world landmarks).
    Gives target (P, J, 3) in the frame of the mesh's vertices, and confidence (P, J).
    """

    name = "target"
    gives = frozenset({"target", "confidence"})

    def __init__(self, carry: np.ndarray, keypoints: str, world: str) -> None:
        trust = carry / np.maximum(carry.sum(1, keepdims=True), 1e-6)
        self._target = person.ImageTarget(carry, trust)
        self._keypoints, self._world = keypoints, world
        self.needs = frozenset(
            {"joints_3d", "pose_landmarks", "translation", "source", keypoints, world}
        )

    def collect(self, board: Board) -> None:
        board["target"], board["confidence"] = self._target(
            *(board["joints_3d"], board["pose_landmarks"]),
            *(board[self._keypoints], board[self._world]),
            root=board["translation"] + board["source"][:, 0],
            lens=board.camera.lens,
        )

    def compile(self, into: Compiled) -> None:
        into.mark("collect")
        source, root = into["source"], into.array(3)
        joints = source.shape[1]
        given = into.people, joints, 0, source, into["translation"]
        into.call("joint_places_f64", *given, root)
        names = "joints_3d", "pose_landmarks", self._keypoints, self._world
        out = into.give("target", joints, 3), into.give("confidence", joints)
        arrays = (*(into[name] for name in names), root, *out)
        into.call("image_target_f64", *self._target.arguments(into.lens, *arrays))


class CalibrateStage:
    """Moves the mesh onto the target pose (Eq. 6-13); a joint of low confidence fades out.

    perceptrons: what was learnt beside the weights, if anything; they need the generator's Theta.
    Gives calibrated (P, V, 3) float32 about the same origin as vertices.
    """

    name = "calibrate"
    gives = frozenset({"calibrated"})

    def __init__(self, calibrator: Calibrator, perceptrons: Perceptrons | None = None) -> None:
        self._calibrator, self._perceptrons = calibrator, perceptrons
        self._theta = ("rotmats", "betas") if perceptrons else ()
        self.needs = frozenset({"vertices", "source", "target", "confidence", *self._theta})
        self._given: dict[str, np.ndarray]
        self._calibrated: np.ndarray

    def prepare(self, board: Board) -> None:
        self._given = {name: board[name] for name in self.needs}
        for name in self._theta:
            self._given[name] = board[name].astype(np.float32)

    def enqueue(self) -> None:
        given, learnt, alpha = self._given, self._perceptrons, None
        pose = given["source"], given["target"], given["confidence"]
        if learnt and learnt.self_rotation:
            alpha = learnt.self_rotation(given["rotmats"], given["betas"], self._psi(pose))
        self._calibrated = self._calibrator(given["vertices"], *pose, alpha=alpha)
        if learnt and learnt.shape:
            psi = self._psi(pose, alpha)
            self._calibrated += learnt.compensation(given["rotmats"], given["betas"], psi)

    def _psi(
        self, pose: tuple[np.ndarray, np.ndarray, np.ndarray], alpha: np.ndarray | None = None
    ) -> np.ndarray:
        """(P, K, 3, 3): how each bone is turned."""
        return self._calibrator.bone_transforms(*pose, alpha)[0][..., :3]

    def collect(self, board: Board) -> None:
        board["calibrated"] = self._calibrated

    def compile(self, into: Compiled) -> None:
        if self._perceptrons:
            raise NotCompiled(self.name)
        pose = into.widened(into["source"]), into["target"], into["confidence"]
        into.mark("enqueue")
        out = into.give("calibrated", *into["vertices"].shape[1:], dtype=np.float32)
        into.call("calibrate_f32", *self._calibrator.arguments(into["vertices"], *pose, out))
        into.mark("collect")
