"""People for tests of what is written, without a pipeline."""

from dataclasses import replace

import numpy as np

from pchmr.camera import Camera
from pchmr.people import Person

VERTICES, JOINTS, LANDMARKS, SHAPES = 5, 24, 33, 10
FACES = np.array([[0, 1, 2], [2, 3, 4]], np.int32)


def make_person(seed: int = 0, **fields: object) -> Person:
    """A person of seeded noise; `fields` replace some of it."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    person = Person(
        track_id=seed,
        frame=seed,
        t_ns=seed * 33_000_000,
        vertices=noise(VERTICES, 3),
        generator_vertices=noise(VERTICES, 3),
        joints=noise(JOINTS, 3),
        target_joints=noise(JOINTS, 3),
        joint_confidence=rng.random(JOINTS, np.float32),
        skeleton="smpl24",
        keypoints_2d=noise(LANDMARKS, 3),
        rotmats=noise(JOINTS, 3, 3),
        betas=noise(SHAPES),
        transl=noise(3),
        camera=Camera(500.0, 510.0, 320.0, 240.0),
        bbox=(1.0, 2.0, 3.5, 4.25),
        score=0.75,
        valid=True,
        latency_ms={"find": 10.0 + seed, "body": 1.0, "total": 20.0 + seed},
    )
    return replace(person, **fields)
