"""What lowered stages make of the whole mesh, in mm a vertex."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pchmr import Person
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import InputError

from .budgets import Floats, Spent, summed_up
from .rehearsal import Course, Frames, covering, rehearsed, run_people

People = Sequence[Sequence[Person]]
"""Of each frame."""


@dataclass(frozen=True)
class Composed:
    """What lowered stages make of the mesh. vertices: (V, 3), one frame's, metres about the root;
    mm: (V,) mean distance of each vertex over the frames."""

    spent: Spent
    vertices: NDArray[np.float32]
    mm: Floats


def composed(
    bundle: Bundle, engines: Mapping[str, Engine], precision: str, clips: Sequence[Frames]
) -> tuple[Composed, ...]:
    """Mean mm per vertex about the root, for each topology, with the stages lowered together.

    Both look at the same crops: what a detector costs shows in its own unit alone.
    """
    made = []
    backend = "+".join(sorted({engine.backend for engine in engines.values()}))
    for topology in covering(bundle):
        course: Course = []
        expected = run_people(rehearsed(bundle), clips, topology, course)
        found = run_people(rehearsed(bundle, engines=engines), clips, topology, course)
        off = mesh_differences(found, expected)
        name = f"composition: {topology}"
        person = next(people[0] for people in expected if people)
        figure = summed_up(name, "mesh", backend, precision, "mm", off)
        made.append(Composed(figure, person.vertices - person.joints[0], off.mean(0)))
    return tuple(made)


def worst(meshes: Sequence[Composed]) -> Spent:
    """The figure of the topology that spends most of its budget."""
    return max((mesh.spent for mesh in meshes), key=lambda figure: figure.share)


def mesh_differences(
    found: Sequence[Sequence[Person]], expected: Sequence[Sequence[Person]]
) -> Floats:
    """mm of every vertex about the root, of each frame's first person; NaN where one is lost."""
    rows = []
    for got, right in zip(found, expected, strict=True):
        if not right:
            continue
        wanted = right[0].vertices - right[0].joints[0]
        same = got[0].vertices - got[0].joints[0] if got else np.full_like(wanted, np.nan)
        rows.append(1000 * np.linalg.norm(same.astype(np.float64) - wanted, axis=-1))
    if not rows:
        raise InputError("the bundle finds nobody in the frames it is judged by: give others")
    return np.stack(rows)
