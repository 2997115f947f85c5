"""What the stages' arrays come to: everybody's mesh before the camera, in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pchmr_kernels.body import Regressor
from pchmr_kernels.geometry import translate
from pchmr_kernels.program import address_of
from pchmr_kernels.skeletons import Skeleton

if TYPE_CHECKING:
    from .compiled import Compiled
    from .stages.base import Board


class Meshes(NamedTuple):
    """Arrays (P, ...) as `Person` has them, its own to keep; target: None in mesh-only.

    placed: who could be placed before the camera. boxes: P times x0, y0, x1, y1, pixels. visible:
    how many landmarks of each are.
    """

    vertices: np.ndarray
    generator_vertices: np.ndarray
    joints: np.ndarray
    target: np.ndarray | None
    confidence: np.ndarray
    rotmats: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    placed: Sequence[bool]
    boxes: Sequence[tuple[float, float, float, float]]
    visible: Sequence[int]


class MeshMaker:
    """Makes `Meshes` of a board, or records how.

    joints_of: of the results' skeleton. calibrated: whether there is more than the generator's.
    """

    def __init__(self, joints_of: Regressor, skeleton: Skeleton, calibrated: bool) -> None:
        self._joints_of, self._skeleton, self._calibrated = joints_of, skeleton, calibrated

    def __call__(self, board: Board) -> Meshes:
        """The translation is added last."""
        shift, target = board["translation"].astype(np.float32), None
        generated = translate(board["vertices"], shift)
        if self._calibrated:
            vertices = translate(board["calibrated"], shift)
            confidence = board["confidence"].astype(np.float32)
            root = self._skeleton.root  # where the mesh has it
            moved = board["translation"] + board["source"][:, root] - board["target"][:, root]
            target = (board["target"] + moved[:, None]).astype(np.float32)
        else:
            vertices = generated.copy()
            confidence = np.zeros((len(shift), len(self._skeleton)), np.float32)
        rotmats, betas = board["rotmats"].astype(np.float32), board["betas"].astype(np.float32)
        joints = self._joints_of(vertices)
        return Meshes(
            vertices, generated, joints, target, confidence, rotmats, betas, shift, *_lists(board)
        )

    def compile(self, into: Compiled) -> Callable[[], Meshes]:
        """Record the same; what then gives a frame's."""
        people, joints, root = into.people, len(self._skeleton), self._skeleton.root
        generated, moved = into["vertices"], into["translation"]
        mesh = into["calibrated"] if self._calibrated else generated
        rotmats, betas = into["rotmats"], into.widened(into["betas"])
        small = _Packed(
            *((people, joints, 3), (people, joints, 3), (people, joints)),
            *(rotmats.shape, betas.shape, (people, 3)),
        )
        regressed, target, confidence, own_rotmats, own_betas, shift = small.of(small.all)
        into.call("narrow_f32", moved.size, moved, shift)
        of_meshes = people, generated.shape[1]
        put = into.call("translate_f32", *of_meshes, generated, shift, generated)
        put_last = into.call("translate_f32", *of_meshes, mesh, shift, mesh)
        put_joints = into.call("regress_f32", *self._joints_of.arguments(mesh, regressed))
        if self._calibrated:
            places = into.array(3)
            into.call("joint_places_f64", people, joints, root, into["source"], moved, places)
            into.call("move_joints_f32", people, joints, root, into["target"], places, target)
            into.call("narrow_f32", confidence.size, into["confidence"], confidence)
        into.call("narrow_f32", rotmats.size, rotmats, own_rotmats)
        into.call("narrow_f32", betas.size, betas, own_betas)
        large, shape = [generated, mesh], generated.shape

        def begin(board: Board) -> None:
            """New arrays for what is large; what is small is copied."""
            large[:] = np.empty(shape, np.float32), np.empty(shape, np.float32)
            put(4, address_of(large[0]))
            vertices = address_of(large[1])
            put_last(4, vertices)
            put_joints(2, vertices)

        def take() -> Meshes:
            generated, vertices = large
            joints, target, confidence, rotmats, betas, shift = small.of(small.all.copy())
            wanted = target if self._calibrated else None
            own = joints, wanted, confidence, rotmats, betas, shift
            return Meshes(vertices, generated, *own, *_lists(into))

        into.before(begin)
        return take


class _Packed:
    """Arrays of float32 one after the other, so that they are copied at once."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        ends = [0, *accumulate(map(prod, shapes))]
        self._places = [(shape, 4 * begin) for shape, begin in zip(shapes, ends, strict=False)]
        self.all = np.zeros(ends[-1], np.float32)

    def of(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The arrays in `all`, or in a copy of it."""
        return [np.ndarray(shape, np.float32, numbers, byte) for shape, byte in self._places]


def _lists(
    arrays: Mapping[str, np.ndarray],
) -> tuple[list[bool], list[tuple[float, float, float, float]], list[int]]:
    boxes = [tuple(box) for box in arrays["box"].tolist()]
    return arrays["placed"].tolist(), boxes, arrays["visible"].tolist()
