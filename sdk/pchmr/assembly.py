"""The stages of a bundle for a topology, in the paper's order (Luan et al. 2021, Figure 2).

detector -> landmarks | generator -> body -> place -> [lifter -> target -> calibrate]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.manifest import Calibration
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_kernels.weights import SparseWeights

from .bodies import BodyModel
from .stages.base import KeypointEngine, Stage
from .stages.blazepose import LandmarkNetwork, PersonDetector, PersonFinder, PoseLandmarkStage
from .stages.body import BodyStage, PlaceStage, TemplateStage
from .stages.calibrate import CalibrateStage, ImageTarget
from .stages.keypoint_generator import KeypointGenerator
from .stages.lifter import KeypointLifter, MeshLifter

GIVEN = frozenset({"keypoints", "world", "crop_rotation", "crop_size"})
"""On the board before the first stage: landmarks of the mesh stream and how each crop lies."""


@dataclass(frozen=True)
class Assembly:
    """Makes the stages of one pipeline.

    model: the bundle's body. backend: of every engine. threads: CPU threads of the large networks.
    max_people: rows that a batch holds at most.
    """

    bundle: Bundle
    topology: str
    model: BodyModel
    backend: str
    threads: int
    max_people: int

    @property
    def pair(self) -> Calibration:
        """The calibration's weights and their skeleton."""
        return self.bundle.manifest.calibrations[0]

    @cached_property
    def skeleton(self) -> Skeleton:
        """The target's joints."""
        return get_skeleton(self.pair.skeleton)

    def finder(self) -> PersonFinder:
        """Frame -> the people in it."""
        detector = PersonDetector(self._engine("detector"), self.threads)
        return PersonFinder(detector, self._landmark_network("landmarks"), self.max_people)

    def stages(self) -> list[Stage]:
        """What follows once people are found."""
        root = self.skeleton.root
        body = BodyStage(self.model, self.skeleton.name)
        if self.topology == "template":
            rest = self.model.body
            template = TemplateStage(len(rest.parents), rest.shapedirs.shape[-1])
            return [
                template,
                body,
                *self._pose_stream(),
                PlaceStage("pose_landmarks", root),
                self._calibrate(prealign="torso"),
            ]
        mesh_stream: list[Stage] = [
            KeypointGenerator(self._keypoint_engine("generator")),
            body,
            PlaceStage("landmarks", root),
        ]
        if self.topology == "mesh-only":
            return mesh_stream
        if self.topology == "serial":
            return [*mesh_stream, MeshLifter(self._keypoint_engine("lifter")), self._calibrate()]
        return [*mesh_stream, *self._pose_stream(), self._calibrate()]

    def _pose_stream(self) -> list[Stage]:
        """Image -> target joints: a landmark network of its own where the bundle has one."""
        own = "pose_landmarks" in self.bundle.stages
        keypoints, world = ("pose_keypoints", "pose_world") if own else ("keypoints", "world")
        landmarks = self._landmark_network("pose_landmarks") if own else None
        first = [PoseLandmarkStage(landmarks)] if landmarks else []
        lifter = KeypointLifter(self._keypoint_engine("lifter"), keypoints)
        return [*first, lifter, ImageTarget(self._carry(), keypoints, world)]

    def _calibrate(self, prealign: str = "none") -> CalibrateStage:
        arrays = self.bundle.body()
        names = (f"{self.pair.prefix}{part}" for part in ("indices", "values", "offsets"))
        weights = SparseWeights(*(arrays[name] for name in names))
        return CalibrateStage(Calibrator(self.skeleton, weights, prealign=prealign))

    def _engine(self, stage: str, threads: int | None = None) -> Engine:
        return self.bundle.engine(stage, self.backend, threads or self.threads)

    def _landmark_network(self, stage: str) -> LandmarkNetwork:
        return LandmarkNetwork(self._engine(stage), self.max_people, self.threads)

    def _keypoint_engine(self, stage: str) -> KeypointEngine:
        """G or L; one thread suits them best."""
        landmarks = self.bundle.stage(stage).settings["landmarks"]
        return KeypointEngine(self._engine(stage, 1), landmarks, self.max_people, 1)

    def _carry(self) -> np.ndarray:
        """(J, 33) how a landmark's residual moves each joint; see `ImageTarget`."""
        landmarks = get_skeleton("blazepose33")
        carry = np.zeros((len(self.skeleton.joints), len(landmarks.joints)), np.float32)
        for joint, row in self.pair.settings["carry"].items():
            for landmark, weight in row.items():
                carry[self.skeleton.index(joint), landmarks.index(landmark)] = weight
        return carry
