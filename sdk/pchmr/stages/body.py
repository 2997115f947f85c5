"""Mesh stream: pose and shape become a mesh (Eq. 1-2), placed before the camera (Eq. 3)."""

from __future__ import annotations

import numpy as np

from pchmr_kernels.skeletons import get_skeleton

from ..bodies import BodyModel
from ..compiled import Compiled, NotCompiled
from ..placement import solve_translation
from .base import Board, HostStage


class BodyStage:
    """Body pose and shape -> mesh about its pelvis, and the joints of the target's skeleton.

    Gives vertices (P, V, 3) float32, metres, oriented as the camera; source (P, J, 3), the joints
    U_S M (Eq. 2); pelvis (P, 3), what the global rotation turns about; and landmarks (P, 33, 3),
    the mesh's own BlazePose landmarks, unless the body has no regressor for them.
    """

    name = "body"
    needs = frozenset({"rotmats", "betas"})

    def __init__(self, model: BodyModel, skeleton: str, landmarks: bool = True) -> None:
        self._model = model
        self._skeletons = (skeleton, "blazepose33") if landmarks else (skeleton,)
        self._joints_of = model.regressor(*self._skeletons)
        self.gives = frozenset({"vertices", "source", "pelvis"})
        if landmarks:
            self.gives |= {"landmarks"}
        self._joints = len(get_skeleton(skeleton))
        self._rotmats: np.ndarray
        self._betas: np.ndarray
        self._vertices: np.ndarray

    def prepare(self, board: Board) -> None:
        self._rotmats, self._betas = board["rotmats"], board["betas"]

    def enqueue(self) -> None:
        self._vertices = self._model.pose(self._rotmats, self._betas)

    def collect(self, board: Board) -> None:
        board["vertices"] = self._vertices
        joints = self._joints_of(self._vertices)
        board["pelvis"] = self._model.joints[:, 0]
        board["source"] = joints[:, : self._joints]
        if "landmarks" in self.gives:
            board["landmarks"] = joints[:, self._joints :]

    def compile(self, into: Compiled) -> None:
        betas = into.widened(into["betas"])
        into.mark("enqueue")
        vertices, joints = self._model.compile(into, into["rotmats"], betas)
        into.mark("collect")
        into["vertices"], into["pelvis"] = vertices, joints[:, 0]
        for name, skeleton in zip(("source", "landmarks"), self._skeletons, strict=False):
            own = into.give(name, len(get_skeleton(skeleton)), 3, dtype=np.float32)
            into.call("regress_f32", *self._model.regressor(skeleton).arguments(vertices, own))


class PlaceStage(HostStage):
    """Where the body stands: the translation that puts 3D landmarks onto the image keypoints.

    points: which landmarks are placed, the mesh's own ("landmarks"), or the pose stream's
    ("pose_landmarks") where the mesh is a template in a pose of its own.
    Gives translation (P, 3) float64, metres, to be added to vertices and source; placed (P,) bool.
    """

    name = "place"
    gives = frozenset({"translation", "placed"})

    def __init__(self, points: str, root: int) -> None:
        self._points, self._root = points, root
        self.needs = frozenset({points, "keypoints", "source"})

    def collect(self, board: Board) -> None:
        translation, board["placed"] = solve_translation(
            board[self._points], board["keypoints"], board.camera
        )
        if self._points == "pose_landmarks":
            # These are about the pelvis joint, which on the mesh is not quite the origin.
            translation -= board["source"][:, self._root]
        board["translation"] = translation

    def compile(self, into: Compiled) -> None:
        if self._points == "pose_landmarks":
            raise NotCompiled(self.name)
        into.mark("collect")
        points = into.widened(into[self._points])
        out = into.give("translation", 3), into.give("placed", dtype=np.bool_)
        given = into.lens, into.people, points.shape[1], points, into["keypoints"]
        into.call("solve_translation_f64", *given, *out)


class TemplateStage(HostStage):
    """The rest mesh in place of the mesh stream: the paper's PC-Template (Table 3)."""

    name = "generator"
    needs = frozenset({"crop_rotation"})
    gives = frozenset({"rotmats", "betas"})

    def __init__(self, joints: int, shapes: int) -> None:
        self._rest = np.tile(np.eye(3, dtype=np.float32), (joints, 1, 1))
        self._rest[0] = np.diag([1.0, -1.0, -1.0])  # a body file is y up and faces the viewer
        self._shapes = shapes

    def collect(self, board: Board) -> None:
        people = len(board.rows)
        rotmats = np.tile(self._rest, (people, 1, 1, 1))
        rotmats[:, 0] = board["crop_rotation"] @ rotmats[:, 0]
        board["rotmats"] = rotmats
        board["betas"] = np.zeros((people, self._shapes), np.float32)
