"""What the stages' arrays come to: everybody's mesh before the camera, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pchmr_kernels.body import Regressor
from pchmr_kernels.geometry import translate
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
    boxes: Sequence[Sequence[float]]
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
            *(vertices, generated, joints, target, confidence),
            *(rotmats, betas, shift, *_lists(board)),
        )

    def compile(self, into: Compiled) -> Callable[[], Meshes]:
        """Record the same; what then gives a frame's."""
        people, joints, root = into.people, len(self._skeleton), self._skeleton.root
        shape, moved = into["vertices"].shape, into["translation"]
        small = np.zeros(
            (),
            [
                ("joints", np.float32, (people, joints, 3)),
                ("target", np.float32, (people, joints, 3)),
                ("confidence", np.float32, (people, joints)),
                ("rotmats", np.float32, into["rotmats"].shape),
                ("betas", np.float32, into["betas"].shape),
                ("transl", np.float32, (people, 3)),
                ("placed", np.bool_, people),
            ],
        )
        into.call("narrow_f32", moved.size, moved, small["transl"])
        big = np.empty((2, *shape), np.float32)
        translation = people, shape[1]
        put = into.call("translate_f32", *translation, into["vertices"], small["transl"], big[1])
        mesh = into["calibrated" if self._calibrated else "vertices"]
        put_last = into.call("translate_f32", *translation, mesh, small["transl"], big[0])
        put_joints = into.call("regress_f32", *self._joints_of.arguments(big[0], small["joints"]))
        if self._calibrated:
            places = into.array(3)
            into.call("joint_places_f64", people, joints, root, into["source"], moved, places)
            of_target = people, joints, root, into["target"]
            into.call("move_joints_f32", *of_target, places, small["target"])
            into.call(
                "narrow_f32", small["confidence"].size, into["confidence"], small["confidence"]
            )
        into.call("narrow_f32", small["rotmats"].size, into["rotmats"], small["rotmats"])
        into.call("narrow_f32", small["betas"].size, into.widened(into["betas"]), small["betas"])
        fresh = [big]

        def begin(board: Board) -> None:
            vertices, generated = np.empty(shape, np.float32), np.empty(shape, np.float32)
            fresh[:] = vertices, generated
            put(4, generated)
            put_last(4, vertices)
            put_joints(2, vertices)

        def take() -> Meshes:
            own = small.copy()
            target = own["target"] if self._calibrated else None
            return Meshes(
                *(*fresh, own["joints"], target, own["confidence"]),
                *(own["rotmats"], own["betas"], own["transl"], *_lists(into)),
            )

        into.before(begin)
        return take


def _lists(arrays: Mapping[str, np.ndarray]) -> Iterator[list[Any]]:
    return (arrays[name].tolist() for name in ("placed", "box", "visible"))
