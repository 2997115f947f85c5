"""Joints of one skeleton as joints of another: exact inside a family, approximate by name across.

Exact: a permutation or a subset by harmonised name, or a joint that is a mean by definition (the
pelvis of pose2mesh_coco19). Approximate: COCO and BlazePose keypoints lie near the skin and have no
spine; what Human3.6M or SMPL would have measured is guessed, and asking for the conversion warns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .skeletons import SKELETONS, Skeleton, get_skeleton

Array = npt.NDArray[np.floating[Any]]
Rows = Mapping[str, Mapping[str, float]]


class ApproximateConversion(UserWarning):
    """The two skeletons define their joints differently; the result is a guess at the second."""


@dataclass(frozen=True)
class Conversion:
    """`conversion(joints)` takes (..., J_source, D) to (..., J_target, D).

    `uses` is (J_target, J_source) bool, the source joints each target joint is made of; where one
    of them is NaN the target joint is NaN.
    """

    source: str
    target: str
    exact: bool
    uses: npt.NDArray[np.bool_]
    function: Callable[[Array], Array]

    def __call__(self, joints: Array) -> Array:
        if joints.ndim < 2 or joints.shape[-2] != self.uses.shape[1]:
            raise ValueError(
                f"joints are {joints.shape}; {self.source} -> {self.target} takes "
                f"(..., {self.uses.shape[1]}, D)"
            )
        missing = np.isnan(joints).any(-1) @ self.uses.T
        converted = self.function(np.where(np.isnan(joints), 0, joints))
        return np.where(missing[..., None], np.asarray(np.nan, joints.dtype), converted)

    def confidence(self, confidence: Array) -> Array:
        """(..., J_source) to (..., J_target): the least of those each target joint is made of."""
        return np.where(self.uses, confidence[..., None, :], np.inf).min(-1)


def convert(joints: Array, source: str, target: str) -> Array:
    """`joints` (..., J, D) of skeleton `source` as joints of `target`; see `get_conversion`."""
    return get_conversion(source, target)(joints)


def get_conversion(source: str, target: str) -> Conversion:
    """The conversion between two skeletons, by name.

    Warns: ApproximateConversion, here and not at each call, where the result is a guess.
    Raises: ValueError for an unknown skeleton, or for an unknown conversion; it names those known.
    """
    found = _find(get_skeleton(source), get_skeleton(target))
    if found is None:
        known = ", ".join(
            name for name in SKELETONS if _find(get_skeleton(source), get_skeleton(name))
        )
        raise ValueError(f"no conversion {source} -> {target}; {source} converts to {known}")
    if not found.exact:
        warnings.warn(
            f"{source} -> {target} is approximate: they define their joints differently",
            ApproximateConversion,
            stacklevel=2,
        )
    return found


def blazepose_to_smpl24(joints: Array, torso: Array | None = None) -> Array:
    """SMPL's 24 joints guessed from BlazePose's world landmarks.

    Limbs are landmarks or points between them. The trunk follows `torso`, a body's proportions
    (see `torso_proportions`; default: the open body's), in a frame that twists from the hip line to
    the shoulder line; the head lies 3/4 of the way from the neck to the middle of the ears.

    Args:
        joints: (..., 33, 3) in any right-handed frame.
        torso: (7, 3), in the order of TRUNK.
    """
    point = {name: joints[..., i, :] for i, name in enumerate(SKELETONS["blazepose33"].joints)}
    smpl = SKELETONS["smpl24"]
    result = np.empty((*joints.shape[:-2], len(smpl), 3), joints.dtype)
    for name, row in _SMPL_LIMBS.items():
        result[..., smpl.index(name), :] = sum(w * point[landmark] for landmark, w in row.items())
    origin, up, hips, shoulders = _trunk(point)
    for name, (along, left, front) in zip(
        TRUNK, _OPEN_TORSO if torso is None else torso, strict=True
    ):
        axis = _unit((1 - along) * hips + along * shoulders)
        length = np.linalg.norm(up, axis=-1, keepdims=True)
        sideways = left * axis + front * np.cross(axis, up / length)
        result[..., smpl.index(name), :] = origin + along * up + length * sideways
    ears = (point["left_ear"] + point["right_ear"]) / 2
    neck = result[..., smpl.index("neck"), :]
    result[..., smpl.index("head"), :] = neck + 0.75 * (ears - neck)
    return result


def torso_proportions(joints: Array, landmarks: Array) -> Array:
    """(7, 3): where the joints of TRUNK lie in a body at rest.

    Each row is (along, left, front) from the middle of the hip landmarks; the unit is the distance
    from there to the middle of the shoulder landmarks.

    joints: (24, 3) of SMPL's 24; landmarks: (33, 3) of BlazePose, of the same body.
    """
    point = {name: landmarks[i] for i, name in enumerate(SKELETONS["blazepose33"].joints)}
    trunk = joints[[SKELETONS["smpl24"].index(name) for name in TRUNK]]
    origin, up, hips, _ = _trunk(point)
    length = np.linalg.norm(up)
    axes = np.stack([up / length, hips, np.cross(hips, up / length)], -1)
    return (trunk - origin) @ axes / length


def _trunk(point: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
    """Middle of the hips; from there to the middle of the shoulders; both lines, square to that."""
    hips, shoulders = (
        point[f"left_{part}"] - point[f"right_{part}"] for part in ("hip", "shoulder")
    )
    origin = (point["left_hip"] + point["right_hip"]) / 2
    up = (point["left_shoulder"] + point["right_shoulder"]) / 2 - origin
    return origin, up, _square(hips, up), _square(shoulders, up)


def _square(vector: Array, axis: Array) -> Array:
    axis = _unit(axis)
    return _unit(vector - (vector * axis).sum(-1, keepdims=True) * axis)


def _unit(vector: Array) -> Array:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / np.where(length > 0, length, 1)


def _find(source: Skeleton, target: Skeleton) -> Conversion | None:
    if source.family == target.family:
        return _exact(source, target)
    for guess in _APPROXIMATE:
        first, last = get_skeleton(guess.source), get_skeleton(guess.target)
        if source.family == first.family and target.family == last.family:
            before, after = _exact(source, first), _exact(last, target)
            if before is not None and after is not None:
                return _chain(before, guess, after)
    return None


def _chain(before: Conversion, guess: Conversion, after: Conversion) -> Conversion:
    return Conversion(
        before.source,
        after.target,
        False,
        after.uses @ guess.uses @ before.uses,
        lambda joints: after.function(guess.function(before.function(joints))),
    )


def _exact(source: Skeleton, target: Skeleton) -> Conversion | None:
    rows: dict[str, Mapping[str, float]] = {joint: {joint: 1.0} for joint in source.joints}
    for joint, row in _BY_DEFINITION.get(source.family, {}).items():
        if set(row) <= set(source.joints):
            rows.setdefault(joint, row)
    if not set(target.joints) <= set(rows):
        return None
    return _linear(source, target, rows, exact=True)


def _linear(source: Skeleton, target: Skeleton, rows: Rows, exact: bool = False) -> Conversion:
    matrix = np.zeros((len(target), len(source)))
    for joint, row in rows.items():
        for name, weight in row.items():
            if joint in target.joints:
                matrix[target.index(joint), source.index(name)] = weight
    return Conversion(
        source.name,
        target.name,
        exact,
        matrix != 0,
        lambda joints: matrix.astype(joints.dtype) @ joints,
    )


def _mean(*joints: str) -> dict[str, float]:
    return dict.fromkeys(joints, 1 / len(joints))


def _between(
    start: Mapping[str, float], end: Mapping[str, float], share: float
) -> dict[str, float]:
    row = {joint: (1 - share) * weight for joint, weight in start.items()}
    for joint, weight in end.items():
        row[joint] = row.get(joint, 0.0) + share * weight
    return row


_HIPS = _mean("left_hip", "right_hip")
_SHOULDERS = _mean("left_shoulder", "right_shoulder")
_EARS = _mean("left_ear", "right_ear")
_LIMBS = {
    joint: {joint: 1.0}
    for joint in SKELETONS["coco17"].joints
    if joint.split("_")[-1] in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
}
_BY_DEFINITION: Mapping[str, Rows] = {
    "coco": {"pelvis": _HIPS, "neck": _SHOULDERS},
    "blazepose": {"pelvis": _HIPS, "neck": _SHOULDERS},
    "h36m": {"mid_shoulders": _SHOULDERS},
}
# Human3.6M's head is the top of the head: beyond the ears as seen from the shoulders.
_TO_H36M: Rows = {
    **_LIMBS,
    "pelvis": _HIPS,
    "spine": _between(_HIPS, _SHOULDERS, 0.5),
    "thorax": _SHOULDERS,
    "nose": {"nose": 1.0},
    "head": _between(_SHOULDERS, _EARS, 1.3),
}
_TO_COCO: Rows = {joint: {joint: 1.0} for joint in SKELETONS["coco17"].joints}

TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck", "left_collar", "right_collar")
_SMPL_LIMBS: Rows = _LIMBS | {
    f"{side}_{joint}": {f"{side}_{a}": 1 - share, f"{side}_{b}": share}
    for side in ("left", "right")
    for joint, a, b, share in (
        ("foot", "heel", "foot_index", 0.72),
        ("hand", "pinky", "index", 0.5),
    )
}
# torso_proportions of the open body.
_OPEN_TORSO = (
    (0.08, 0.0, 0.0),
    (0.24, 0.0, -0.08),
    (0.52, 0.0, -0.06),
    (0.80, 0.0, -0.08),
    (1.16, 0.0, -0.02),
    (1.02, 0.05, 0.02),
    (1.02, -0.05, 0.02),
)


def _blazepose_to_smpl24() -> Conversion:
    source, target = SKELETONS["blazepose33"], SKELETONS["smpl24"]
    trunk = dict.fromkeys(TRUNK, _HIPS | _SHOULDERS)
    rows = {**_SMPL_LIMBS, **trunk, "head": _HIPS | _SHOULDERS | _EARS}
    uses = _linear(source, target, rows).uses
    return Conversion(source.name, target.name, False, uses, blazepose_to_smpl24)


_APPROXIMATE = (
    _linear(SKELETONS["coco17"], SKELETONS["h36m17"], _TO_H36M),
    _linear(SKELETONS["blazepose33"], SKELETONS["h36m17"], _TO_H36M),
    _linear(SKELETONS["blazepose33"], SKELETONS["coco17"], _TO_COCO),
    _blazepose_to_smpl24(),
)
