"""Mesh stream of a network over crops: its answer in the frame's camera, and its own image."""

from __future__ import annotations

import numpy as np

from ..bodies import BodyModel
from ..crop_camera import CropCamera
from .base import Board, HostStage
from .network import affine_points


class ViewStage(HostStage):
    """From the crop's own camera to the frame's: onto the crop's viewing ray, and where it stands.

    Gives turn (P, 3, 3); translation (P, 3) metres, to be added to vertices and source; placed (P,)
    bool; and, of a network that gives a pose, rotmats (P, 24, 3, 3): Theta of the turned mesh.
    """

    name = "view"

    def __init__(self, camera: CropCamera, rotmats: bool = True) -> None:
        self._camera = camera
        self.needs = frozenset({"cam", "crop_affine", *(["crop_rotmats"] if rotmats else [])})
        self.gives = frozenset({"turn", "translation", "placed", *(["rotmats"] if rotmats else [])})

    def collect(self, board: Board) -> None:
        cam, affine = board["cam"], board["crop_affine"]
        turn = board["turn"] = self._camera.turn(affine, board.camera)
        board["translation"], board["placed"] = self._camera.translation(cam, affine, board.camera)
        if "rotmats" in self.gives:
            rotmats = board["crop_rotmats"].copy()
            rotmats[:, 0] = turn @ rotmats[:, 0]
            board["rotmats"] = rotmats


class GivenVertices(HostStage):
    """In place of the body, for a generator that gives vertices itself: they are only turned.

    Gives vertices (P, V, 3) float32 about the origin they came with, turned about the root of
    `skeleton`; source (P, J, 3); pelvis (P, 3), that root; and rotmats (P, 0, 3, 3), betas (P, 0):
    there are none.
    """

    name = "body"
    needs = frozenset({"crop_vertices", "turn"})
    gives = frozenset({"vertices", "source", "pelvis", "rotmats", "betas"})

    def __init__(self, model: BodyModel, skeleton: str, root: int) -> None:
        self._joints_of, self._root = model.regressor(skeleton), root

    def collect(self, board: Board) -> None:
        seen = board["crop_vertices"]
        pelvis = self._joints_of(seen)[:, self._root, None]
        turn = board["turn"].transpose(0, 2, 1).astype(np.float32)
        vertices = board["vertices"] = (seen - pelvis) @ turn + pelvis
        board["source"] = self._joints_of(vertices)
        board["pelvis"] = pelvis[:, 0]
        board["rotmats"] = np.zeros((len(seen), 0, 3, 3), np.float32)
        board["betas"] = np.zeros((len(seen), 0), np.float32)


class CropProjection(HostStage):
    """The mesh's own image (Eq. 3) by its generator's camera, through the crop to the frame.

    Gives mesh_keypoints (P, J, 3): pixels without lens distortion, and 1, of joints of `skeleton`.
    """

    name = "project"
    needs = frozenset({"vertices", "pelvis", "turn", "cam", "crop_affine"})
    gives = frozenset({"mesh_keypoints"})

    def __init__(self, model: BodyModel, skeleton: str, camera: CropCamera) -> None:
        self._joints_of, self._camera = model.regressor(skeleton), camera
        self._sums = model.body.regressor(skeleton).sum(1, dtype=np.float64)[:, None]

    def collect(self, board: Board) -> None:
        pelvis = board["pelvis"][:, None].astype(np.float64)
        # The generator saw the mesh before it was turned about the pelvis: turn it back.
        about = self._joints_of(board["vertices"]) - self._sums * pelvis
        joints = about @ board["turn"] + self._sums * pelvis
        seen = self._camera.project(joints, board["cam"])
        frame = affine_points(board["crop_affine"], seen)
        keypoints = np.ones((*frame.shape[:2], 3))
        keypoints[..., :2] = board.camera.undistort(frame)
        board["mesh_keypoints"] = keypoints


class FrameProjection(HostStage):
    """The mesh's own image by the frame's camera, for a generator that has none of its own.

    Gives mesh_keypoints (P, J, 3): pixels without lens distortion, and 1, of joints of `skeleton`.
    """

    name = "project"
    needs = frozenset({"vertices", "translation"})
    gives = frozenset({"mesh_keypoints"})

    def __init__(self, model: BodyModel, skeleton: str) -> None:
        self._joints_of = model.regressor(skeleton)

    def collect(self, board: Board) -> None:
        points = self._joints_of(board["vertices"])
        points = points + board["translation"][:, None]
        keypoints = np.ones(points.shape)
        keypoints[..., :2] = board.camera.pinhole.project(points)
        board["mesh_keypoints"] = keypoints
