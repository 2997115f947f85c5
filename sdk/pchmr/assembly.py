"""The stages of a bundle for a topology, by role, in the order of the paper's Figure 2.

    detector -> tracker | encoder -> mesh generator -> body | pose2d -> lifter | calibrate
                                                            |      pose3d      |

Networks over the tracker's keypoints (the open default's) and networks over upright crops (the
official ones) may stand beside each other, as long as their joints meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pchmr_engines import manifest
from pchmr_engines.errors import BundleError, InputError
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_kernels.weights import SparseWeights

from .bodies import BodyModel
from .bundle_networks import (
    BundleNetworks,
    check_outputs,
    check_shapes,
    crop_camera,
    crop_of,
    gives_vertices,
    lifter_skeletons,
    skeleton_of,
    takes_landmarks,
    takes_rois,
)
from .detections import DetectedKeypoints
from .perceptrons import Perceptrons
from .stages.base import Stage
from .stages.blazepose import ON_BOARD, Detector, PersonFinder, PoseLandmarkStage
from .stages.body import BodyStage, PlaceStage, TemplateStage
from .stages.calibrate import CalibrateStage, ImageTarget
from .stages.keypoint_generator import KeypointGenerator
from .stages.lifter import KeypointLifter, MeshLifter
from .stages.network import CropStage
from .stages.pose2d import Pose2DStage
from .stages.pose3d import CellJoints, CellPlacement, CellTarget, JointTarget
from .stages.skeletons import JointPlacement, LiftedTarget, LifterInput
from .stages.view import CropProjection, FrameProjection, GivenVertices, ViewStage

GIVEN = frozenset(ON_BOARD)
"""On the board before the first stage: the tracker's landmarks, how each of its crops lies, (P, 4)
tight upright boxes of the people, pixels, and (P,) how many landmarks are visible."""


@dataclass(frozen=True)
class Assembly:
    """Makes the stages of one pipeline.

    model: the bundle's body. pose2d: keypoints found beforehand, in place of the 2D network.
    detector: one in place of the bundle's. detector_stride: frames between its looks for further
    people.

    Raises, from its methods: BundleError or InputError when the bundle lacks what the topology
    needs, or its joints do not meet.
    """

    networks: BundleNetworks
    topology: str
    model: BodyModel
    pose2d: DetectedKeypoints | None = None
    detector: Detector | None = None
    detector_stride: int = 30

    def finder(self) -> PersonFinder:
        """Frame -> the people in it."""
        networks = self.networks
        detector = self.detector or networks.detector(networks.need("detector"))
        landmarks = networks.landmarks(networks.need("tracker"))
        return PersonFinder(detector, landmarks, networks.max_people, self.detector_stride)

    def stages(self) -> list[Stage]:
        """What follows once people are found."""
        if self.topology == "template":
            return [*self._template(), *self._pose_stream(), self._calibrate()]
        if self.topology == "mesh-only":
            return self._mesh_stream()
        if self.topology == "serial":
            return [*self._mesh_stream(), *self._relift(), self._calibrate()]
        return [*self._mesh_stream(), *self._pose_stream(), self._calibrate()]

    # The mesh stream

    def _mesh_stream(self) -> list[Stage]:
        """Image -> mesh (Eq. 1-2), before the camera."""
        generator = self.networks.need("mesh-generator")
        if takes_landmarks(generator):
            self._regressed("blazepose33")
            network = KeypointGenerator(self.networks.keypoints(generator))
            return [network, self._body(), PlaceStage("landmarks", self.skeleton.root)]
        camera, body = crop_camera(generator), self.skeleton
        if gives_vertices(generator):
            read = {"vertices": "crop_vertices", "cam": "cam"}
            given = GivenVertices(self.model, body.name, body.root)
            return [*self._generator(generator, read), ViewStage(camera, rotmats=False), given]
        read = {"rotmats": "crop_rotmats", "betas": "betas", "cam": "cam"}
        return [*self._generator(generator, read), ViewStage(camera), self._body()]

    def _generator(self, generator: manifest.Stage, read: Mapping[str, str]) -> list[Stage]:
        """The network, behind its encoder where it takes features."""
        networks, body = self.networks, self.model.body
        check_outputs(generator, read)
        check_shapes(
            generator,
            vertices=body.v_template.shape,
            rotmats=(len(body.parents), 3, 3),
            betas=(body.num_betas,),
        )
        if generator.crop:
            return [CropStage("generator", networks.crops(generator), read, "crop_affine")]
        encoder = networks.need("encoder")
        check_outputs(encoder, ["features"])
        return [
            CropStage("encoder", networks.crops(encoder), {"features": "features"}, "crop_affine"),
            networks.arrays("generator", generator, {"features": "features"}, read),
        ]

    def _template(self) -> list[Stage]:
        """The rest mesh in place of the mesh stream (Table 3, III)."""
        rest = self.model.body
        return [TemplateStage(len(rest.parents), rest.num_betas), self._body()]

    def _body(self) -> BodyStage:
        landmarks = "blazepose33" in self.model.body.regressors
        return BodyStage(self.model, self._regressed(self.skeleton.name), landmarks)

    # The pose stream

    def _relift(self) -> list[Stage]:
        """Serial: the mesh's own image (Eq. 3), lifted again (Eq. 4)."""
        lifter, generator = (self.networks.need(role) for role in ("lifter", "mesh-generator"))
        if takes_landmarks(lifter):
            self._regressed("blazepose33")
            return [MeshLifter(self.networks.keypoints(lifter))]
        seen = self._seen_joints(lifter)
        lift = self._lift(lifter, "mesh_keypoints", seen)
        if takes_landmarks(generator):
            return [FrameProjection(self.model, seen), *lift]
        return [CropProjection(self.model, seen, crop_camera(generator)), *lift]

    def _pose_stream(self) -> list[Stage]:
        """Parallel: image -> target joints, in 3D at once or by lifting 2D ones.

        A template has no place of its own: it stands where these joints are seen.
        """
        if pose3d := self.networks.find("pose3d"):
            return self._pose3d(pose3d)
        lifter, place = self.networks.need("lifter"), self.topology == "template"
        if takes_landmarks(lifter):
            placed = [PlaceStage("pose_landmarks", self.skeleton.root)]
            return [*self._landmark_target(lifter), *(placed if place else ())]
        placement = JointPlacement(*lifter_skeletons(lifter), self.skeleton.root)
        return [*self._lifted_target(lifter), *([placement] if place else ())]

    def _landmark_target(self, lifter: manifest.Stage) -> list[Stage]:
        """The open default's: a landmark network of its own where the bundle has one."""
        network, pose2d = self.networks.keypoints(lifter), self.networks.find("pose2d")
        if pose2d is None or not takes_rois(pose2d):
            target = ImageTarget(self.carry(), "keypoints", "world")
            return [KeypointLifter(network, "keypoints"), target]
        own = PoseLandmarkStage(self.networks.landmarks(pose2d))
        target = ImageTarget(self.carry(), "pose_keypoints", "pose_world")
        return [own, KeypointLifter(network, "pose_keypoints"), target]

    def _lifted_target(self, lifter: manifest.Stage) -> list[Stage]:
        """2D joints found beforehand, those of the bundle's 2D network, or the tracker's."""
        pose2d = self.networks.find("pose2d")
        if self.pose2d is not None:
            return [self.pose2d, *self._lift(lifter, "pose_keypoints", self.pose2d.skeleton)]
        if pose2d is None:
            return self._lift(lifter, "keypoints", "blazepose33")
        lift = self._lift(lifter, "pose_keypoints", skeleton_of(pose2d))
        if takes_rois(pose2d):
            return [PoseLandmarkStage(self.networks.landmarks(pose2d)), *lift]
        decoder, output = pose2d.settings.get("decoder", "keypoints"), pose2d.outputs[0].name
        return [Pose2DStage(self.networks.crops(pose2d), decoder, output), *lift]

    def _lift(self, lifter: manifest.Stage, keypoints: str, skeleton: str) -> list[Stage]:
        """Keypoints of `skeleton` in the frame -> target joints."""
        taken, lifted = lifter_skeletons(lifter)
        normalise = lifter.settings.get("normalise", "screen")
        read = {"joints": "lifted"}
        return [
            LifterInput(keypoints, skeleton, taken, normalise),
            self.networks.arrays("lifter", lifter, {"keypoints": "lifter_input"}, read),
            LiftedTarget(taken, lifted, self.skeleton.name),
        ]

    def _pose3d(self, stage: manifest.Stage) -> list[Stage]:
        """PoseNet's cells, whose root is as deep as the mesh's, or joints in metres."""
        joints, crop = skeleton_of(stage), crop_of(stage)
        decoder = stage.settings.get("decoder", "joints")
        read = {stage.outputs[0].name: "pose3d"}
        network = CropStage("pose3d", self.networks.crops(stage), read, "pose_affine")
        target, place = self.skeleton, self.topology == "template"
        if decoder == "posenet":
            cells = CellJoints(joints, target.name, crop.size)
            placement = [CellPlacement(cells, target)] if place else []
            return [network, *placement, CellTarget(cells, target.root)]
        if decoder == "joints" and not place:
            return [network, JointTarget(joints, target.name, crop.size)]
        expected = "posenet, which says where a template stands" if place else "posenet or joints"
        raise BundleError(
            f"stage {stage.name!r} (pose3d) has decoder {decoder!r}; expected {expected}"
        )

    # Calibration and joints

    def _calibrate(self) -> CalibrateStage:
        pair, arrays = self.pair, self.networks.bundle.body()
        if pair is None:
            raise BundleError(
                f"bundle {self.networks.bundle.manifest.name!r} has no calibration weights: choose "
                "topology mesh-only, or export it with a pose stream"
            )
        names = (f"{pair.prefix}{part}" for part in ("indices", "values", "offsets"))
        weights = SparseWeights(*(arrays[name] for name in names))
        if self.topology == "template":  # its rest pose is no Theta that perceptrons know
            return CalibrateStage(Calibrator(self.skeleton, weights, prealign="torso"))
        learnt = Perceptrons.read(arrays, pair.prefix, self.model, weights)
        if learnt and gives_vertices(self.networks.need("mesh-generator")):
            raise BundleError(
                "the calibration's perceptrons take a pose and a shape, but the mesh generator "
                "gives vertices: export it with weights trained without them"
            )
        return CalibrateStage(Calibrator(self.skeleton, weights), learnt)

    @cached_property
    def pair(self) -> manifest.Calibration | None:
        """The calibration's weights: those of the pose stream's own joints where there are any."""
        roles = ("lifter", "pose3d") if self.topology == "serial" else ("pose3d", "lifter")
        pairs = {pair.skeleton: pair for pair in self.networks.bundle.manifest.calibrations}
        streams = (self.networks.find(role) for role in roles)
        joints = [stage.skeleton for stage in streams if stage and stage.skeleton in pairs]
        return pairs[joints[0]] if joints else next(iter(pairs.values()), None)

    @cached_property
    def skeleton(self) -> Skeleton:
        """The target's joints; of a bundle that never calibrates, the first its body knows."""
        known = self.model.body.regressors
        return get_skeleton(self.pair.skeleton if self.pair else next(iter(known)))

    def _regressed(self, skeleton: str) -> str:
        """The same name. Raises: InputError when the body has no regressor for these joints."""
        self.model.body.regressor(skeleton)
        return skeleton

    def _seen_joints(self, lifter: manifest.Stage) -> str:
        """The skeleton of the mesh's own image: the lifter's, where the body can give it."""
        try:
            return self._regressed(lifter_skeletons(lifter)[0])
        except InputError:
            return self.skeleton.name

    def carry(self) -> np.ndarray:
        """(J, 33) how a landmark's residual moves each joint; see `ImageTarget`."""
        landmarks = get_skeleton("blazepose33")
        carry = np.zeros((len(self.skeleton.joints), len(landmarks.joints)), np.float32)
        for joint, row in (self.pair.settings["carry"] if self.pair else {}).items():
            for landmark, weight in row.items():
                carry[self.skeleton.index(joint), landmarks.index(landmark)] = weight
        return carry
