"""Motion as BVH: a skeleton of the body's joints, y up, metres, angles in degrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_kernels.skeletons import get_skeleton

from ..whole import whole_file
from .motion import Motion

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

TO_Y_UP = np.diag([1.0, -1.0, -1.0])
ROTATIONS = "Zrotation Xrotation Yrotation"


def write_bvh(path: Path | str, motion: Motion) -> None:
    """The motion of one person, camera frame turned to y up and z towards the viewer.

    Raises:
        InputError: the place cannot be written to.
    """
    motion = motion.turned(TO_Y_UP)
    rest, parents = motion.rest_joints, motion.body.parents
    angles = np.degrees(rotmat_to_zxy(motion.rotmats))
    angles = np.unwrap(angles, axis=0, period=360.0)
    order = _depth_first(parents)
    root = rest[0] + motion.transl
    rows = np.concatenate([root, angles[:, order].reshape(len(root), -1)], 1)
    lines = [
        "HIERARCHY",
        *_joint_lines(0, rest, parents, _ends(motion), _names(len(parents)), ""),
        "MOTION",
        f"Frames: {len(rows)}",
        f"Frame Time: {1 / motion.fps:.9f}",
        *(" ".join(f"{value:.6f}" for value in row) for row in rows),
    ]
    with whole_file(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="ascii")


def rotmat_to_zxy(rotmats: Array) -> Float64:
    """Angles (..., 3), radians, z, x, y with R = Rz(z) Rx(x) Ry(y); x in -pi/2..pi/2.

    rotmats: (..., 3, 3). Where x is a right angle, y is 0.
    """
    R = rotmats.astype(np.float64)
    x = np.arcsin(np.clip(R[..., 2, 1], -1, 1))
    locked = np.abs(R[..., 2, 1]) > 1 - 1e-12
    z = np.where(
        locked,
        np.arctan2(R[..., 1, 0], R[..., 0, 0]),
        np.arctan2(-R[..., 0, 1], R[..., 1, 1]),
    )
    y = np.where(locked, 0.0, np.arctan2(-R[..., 2, 0], R[..., 2, 2]))
    return np.stack([z, x, y], -1)


def _joint_lines(
    joint: int, rest: Float64, parents: Array, ends: Float64, names: list[str], indent: str
) -> list[str]:
    """A joint and all that hangs on it."""
    children = np.flatnonzero(parents == joint)
    offset = rest[joint] - rest[parents[joint]] if joint else np.zeros(3)
    channels = f"3 {ROTATIONS}" if joint else f"6 Xposition Yposition Zposition {ROTATIONS}"
    lines = [
        f"{indent}{'JOINT' if joint else 'ROOT'} {names[joint]}",
        f"{indent}{{",
        f"{indent}  OFFSET {_numbers(offset)}",
        f"{indent}  CHANNELS {channels}",
    ]
    for child in children:
        lines += _joint_lines(int(child), rest, parents, ends, names, indent + "  ")
    if not len(children):
        end = f"{indent}    OFFSET {_numbers(ends[joint])}"
        lines += [f"{indent}  End Site", f"{indent}  {{", end, f"{indent}  }}"]
    return [*lines, f"{indent}}}"]


def _ends(motion: Motion) -> Float64:
    """(K, 3) where a bone without children ends: twice as far as the middle of what it moves; at
    its joint where it moves nothing."""
    body, rest = motion.body, motion.rest_joints
    shaped = body.v_template + body.shapedirs.astype(np.float64) @ motion.betas
    weights = body.lbs_weights.astype(np.float64)
    moved = weights.sum(0)[:, None]
    middle = np.divide(weights.T @ shaped, moved, out=rest.copy(), where=moved > 0)
    return 2 * (middle - rest)


def _depth_first(parents: Array) -> list[int]:
    """The joints in the order of the hierarchy's text."""

    def below(joint: int) -> list[int]:
        children = np.flatnonzero(parents == joint)
        return [joint, *(k for child in children for k in below(int(child)))]

    return below(0)


def _names(count: int) -> list[str]:
    joints = get_skeleton("smpl24").joints
    return list(joints) if count == len(joints) else [f"joint{k}" for k in range(count)]


def _numbers(values: Float64) -> str:
    return " ".join(f"{value:.6f}" for value in values)
