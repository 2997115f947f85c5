"""What the pipeline gives back: one frozen `Person` for each body in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .camera import Camera


@dataclass(frozen=True, eq=False, repr=False)
class Person:
    """One person in one frame. Arrays are copies: they stay valid after the next frame.

    Two are equal only where they are the same object.

    vertices: (V, 3) float32, metres, camera frame (x right, y down, z away): the calibrated mesh.
        In the topology mesh-only it is the generator's mesh.
    generator_vertices: (V, 3) float32, the mesh before calibration, same frame.
    joints: (J, 3) float32, joints of `skeleton` regressed from `vertices`; their names are
        `pchmr_kernels.skeletons.get_skeleton(person.skeleton).joints`.
    target_joints: (J, 3) float32, where the pose stream wanted them; None in mesh-only.
    joint_confidence: (J,) float32 in 0..1, how much each target joint was trusted.
    keypoints_2d: (N, 3) float32, landmarks of the full frame: x px, y px, visibility 0..1.
    rotmats: (K, 3, 3) float32, the generator's body pose, global orientation first.
        Empty, as betas, where the generator gives vertices and no pose.
    betas: (S,) float32, the generator's body shape.
    transl: (3,) float32, metres, camera frame, as SMPL's: generator_vertices are the body's
        vertices of `rotmats` and `betas`, plus `transl`.
    bbox: (x0, y0, x1, y1) in pixels of the full frame, upright, around the visible landmarks.
    score: 0..1, the landmark network's own belief that a person is there.
    valid: False where the body could not be placed in front of the camera (vertices hold the best
        guess) or too few landmarks were visible to calibrate.
    latency_ms: milliseconds a stage, of the frame this person was found in; all persons of one
        frame share it.
    """

    track_id: int
    frame: int
    t_ns: int
    vertices: np.ndarray
    generator_vertices: np.ndarray
    joints: np.ndarray
    target_joints: np.ndarray | None
    joint_confidence: np.ndarray
    skeleton: str
    keypoints_2d: np.ndarray
    rotmats: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    camera: Camera
    bbox: tuple[float, float, float, float]
    score: float
    valid: bool
    latency_ms: Mapping[str, float]

    @property
    def global_orient(self) -> np.ndarray:
        """(1, 3, 3), SMPL's name of `rotmats[:1]`: of the body in the camera frame."""
        return self.rotmats[:1]

    @property
    def body_pose(self) -> np.ndarray:
        """(K - 1, 3, 3), SMPL's name of `rotmats[1:]`: each joint's rotation to its parent."""
        return self.rotmats[1:]

    def __repr__(self) -> str:
        """One line, without the arrays."""
        return (
            f"Person(track_id={self.track_id}, frame={self.frame}, score={self.score:.2f}, "
            f"valid={self.valid}, vertices={self.vertices.shape}, joints={self.skeleton!r})"
        )
