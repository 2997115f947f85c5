"""What stands before and behind a lifter: joint sets by name, the frame's coordinates, the target.

keypoints -> LifterInput -> lifter (one frame, or a temporal stage) -> LiftedTarget
"""

from __future__ import annotations

import numpy as np

from pchmr_engines.errors import BundleError
from pchmr_kernels.conversions import Conversion, get_conversion
from pchmr_kernels.skeletons import get_skeleton

from ..placement import solve_translation
from ..prepost.sequences import pixels_to_screen
from .base import Board, HostStage

NORMALISATIONS = ("screen", "pose2mesh")


def conversion_between(source: str, target: str, what: str) -> Conversion:
    """The conversion for `what`. Warns once, here, where it is approximate. Raises: BundleError."""
    try:
        return get_conversion(source, target)
    except ValueError as error:
        raise BundleError(f"{what}: {error}") from error


def normalise_keypoints(points: np.ndarray, rule: str, width: int, height: int) -> np.ndarray:
    """Full-frame pixels (..., J, 2) as a lifter takes them.

    rule: "screen" (VideoPose3D, SemGCN, Martinez): -1..1 over the frame's width; "pose2mesh": about
    the joints' mean, in their standard deviations, x and y apart.
    """
    if rule == "screen":
        return pixels_to_screen(points, width, height)
    mean, std = points.mean(-2, keepdims=True), points.std(-2, keepdims=True)
    return np.asarray((points - mean) / np.maximum(std, 1e-9))


class LifterInput(HostStage):
    """Keypoints of the frame, as the lifter takes them.

    keypoints, skeleton: board name of the (P, J, 3) it reads, and their joint order. taken: the
    lifter's. normalise: one of `NORMALISATIONS`.
    Gives lifter_keypoints (P, J2, 3) full-frame pixels and score; lifter_input (P, J2, 2).

    Raises: BundleError for skeletons without a conversion, or an unknown rule.
    """

    name = "normalise"
    gives = frozenset({"lifter_keypoints", "lifter_input"})

    def __init__(self, keypoints: str, skeleton: str, taken: str, normalise: str) -> None:
        if normalise not in NORMALISATIONS:
            raise BundleError(
                f"a lifter has normalise {normalise!r}; known are {', '.join(NORMALISATIONS)}"
            )
        self._keypoints, self._normalise = keypoints, normalise
        self._convert = conversion_between(skeleton, taken, "keypoints for the lifter")
        self.needs = frozenset({keypoints})

    def collect(self, board: Board) -> None:
        given, convert = board[self._keypoints], self._convert
        keypoints = np.empty((len(given), len(convert.uses), 3))
        keypoints[..., :2] = convert(given[..., :2].astype(np.float64))
        keypoints[..., 2] = convert.confidence(given[..., 2])
        width, height = board.size
        board["lifter_keypoints"] = keypoints
        board["lifter_input"] = normalise_keypoints(
            keypoints[..., :2], self._normalise, width, height
        )


class LiftedTarget(HostStage):
    """Target joints of a lifter's answer (Eq. 4): its joints in the calibration's skeleton.

    taken, lifted: joint orders of its keypoints and of its answer. skeleton: the calibration's.
    Gives target (P, J, 3) metres about the lifter's root, and confidence (P, J): the least score of
    the keypoints that each joint is made of.

    Raises: BundleError for skeletons without a conversion.
    """

    name = "target"
    needs = frozenset({"lifted", "lifter_keypoints"})
    gives = frozenset({"target", "confidence"})

    def __init__(self, taken: str, lifted: str, skeleton: str) -> None:
        self._within = conversion_between(taken, lifted, "scores of the lifter's joints")
        self._after = conversion_between(lifted, skeleton, "the lifter's joints for calibration")

    def collect(self, board: Board) -> None:
        board["target"] = self._after(board["lifted"].astype(np.float64))
        scores = self._within.confidence(board["lifter_keypoints"][..., 2])
        board["confidence"] = self._after.confidence(scores)


class JointPlacement(HostStage):
    """Where a template stands: the lifted joints are brought onto their own keypoints.

    Gives translation (P, 3), which moves the mesh's root there, and placed (P,).
    """

    name = "place"
    needs = frozenset({"lifted", "lifter_keypoints", "source"})
    gives = frozenset({"translation", "placed"})

    def __init__(self, taken: str, lifted: str, root: int) -> None:
        self._within = conversion_between(taken, lifted, "keypoints of the lifter's joints")
        self._lifted_root, self._root = get_skeleton(lifted).root, root

    def collect(self, board: Board) -> None:
        given = board["lifter_keypoints"]
        keypoints = np.concatenate(
            [self._within(given[..., :2]), self._within.confidence(given[..., 2])[..., None]], -1
        )
        joints = board["lifted"] - board["lifted"][:, self._lifted_root, None]
        translation, board["placed"] = solve_translation(joints, keypoints, board.camera)
        board["translation"] = translation - board["source"][:, self._root]
