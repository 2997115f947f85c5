"""A results file of people who are never seen: two closed meshes that move, with a gap."""

from pathlib import Path

import numpy as np
import trimesh
from people_made_up import make_person

from pchmr.results import ResultWriter

BALL = trimesh.creation.icosphere(subdivisions=1)
FACES = np.asarray(BALL.faces, np.int32)
PERIOD_NS = 40_000_000  # 25 frames a second


def ball(person: int, frame: int) -> np.ndarray:
    """(42, 3) float32, about 4 m before the camera; another shape in every frame."""
    rng = np.random.default_rng(100 * person + frame)
    shape = 1 + 0.2 * rng.random((len(BALL.vertices), 1))
    centre = np.array([0.1 * frame - 0.5, 0.3, 4 + person])
    return (BALL.vertices * shape + centre).astype(np.float32)


def write_results(path: Path, frames: dict[int, list[int]], **options: object) -> Path:
    """frames: by person, the frames they are seen in."""
    with ResultWriter(path, FACES, **options) as results:
        for frame in range(max(map(max, frames.values())) + 1):
            people = [
                make_person(
                    person, track_id=person, t_ns=frame * PERIOD_NS, vertices=ball(person, frame)
                )
                for person, seen in frames.items()
                if frame in seen
            ]
            results.add(frame, people)
    return path
