"""MakeHuman's 163-bone rig joined into SMPL's 24 joints, its relaxed stance baked to a T-pose."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .open_body_makehuman import MakeHuman

# SMPL joint -> the bones that start it; the first bone's head is the joint. Bones not named here
# go with their nearest named ancestor (the thumb with the wrist, the face with the head).
LEFT_AND_MIDDLE = {
    "pelvis": ("spine05", "root", "pelvis.L", "pelvis.R"),
    "left_hip": ("upperleg01.L",),
    "spine1": ("spine04", "spine03"),
    "left_knee": ("lowerleg01.L",),
    "spine2": ("spine02",),
    "left_ankle": ("foot.L",),
    "spine3": ("spine01",),
    "left_foot": ("toe3-1.L", "toe1-1.L", "toe2-1.L", "toe4-1.L", "toe5-1.L"),
    "neck": ("neck01",),
    "left_collar": ("clavicle.L", "shoulder01.L"),
    "head": ("head",),
    "left_shoulder": ("upperarm01.L",),
    "left_elbow": ("lowerarm01.L",),
    "left_wrist": ("wrist.L",),
    "left_hand": ("finger3-1.L", "finger2-1.L", "finger4-1.L", "finger5-1.L"),
}

# Directions of the T-pose's bones, left side. Thighs a little apart, shins and arms a little back,
# as SMPL rests, so that rotations made for SMPL mean the same on this body.
ARM, FOREARM, HAND = (0.993, -0.05, -0.105), (0.999, 0.035, -0.005), (0.99, -0.04, -0.03)
THIGH, SHIN = (0.088, -0.996, -0.012), (-0.035, -0.993, -0.11)
FOOT_YAW = np.radians(11.0)


def joined_weights(source: MakeHuman, joints: tuple[str, ...]) -> np.ndarray:
    """Skin weights (N, 24) of the rig joined into `joints` (SMPL's names); rows of skinned vertices
    sum to 1."""
    owner = {bone: joint for joint in joints for bone in bones_of(joint)}
    weights = np.zeros((len(source.vertices), len(joints)))
    for name, (indices, values) in source.weights.items():
        bone = name
        while bone not in owner:
            bone = source.bones[bone].parent
        weights[indices, joints.index(owner[bone])] += values
    return weights


def bake_t_pose(
    source: MakeHuman, vertices: np.ndarray, bones: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3), turned from MakeHuman's stance to the T-pose, and the heads (J, 3) of bones.

    vertices: (N, 3), mirror symmetric. Linear-blend skinning with the full rig, so that the twist
    of the upper arm and the forearm spreads over their two bones each.
    """
    heads = {name: vertices[bone.head].mean(0) for name, bone in source.bones.items()}
    rotations = _t_pose_rotations(heads)
    placed: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def place(name: str) -> tuple[np.ndarray, np.ndarray]:
        """Global rotation of a bone and its start in the T-pose."""
        if name not in placed:
            parent = source.bones[name].parent
            rotation, start = (np.eye(3), heads[name]) if not parent else place(parent)
            if parent:
                start = start + rotation @ (heads[name] - heads[parent])
            placed[name] = rotations.get(name, rotation), start
        return placed[name]

    posed = np.zeros_like(vertices)
    for name, (indices, values) in source.weights.items():
        rotation, start = place(name)
        moved = (vertices[indices] - heads[name]) @ rotation.T + start
        posed[indices] += values[:, None] * moved
    return posed, np.array([place(bone)[1] for bone in bones])


def _t_pose_rotations(heads: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Global rotation of each turned bone, both sides."""

    def along(start: str, end: str) -> np.ndarray:
        return heads[end] - heads[start]

    arm = along("upperarm01.L", "lowerarm01.L")
    forearm = along("lowerarm01.L", "wrist.L")
    hand = along("wrist.L", "finger3-1.L")
    hinge = np.cross(arm, forearm)  # the elbow's axis: straight down in the T-pose
    back_of_hand = np.cross(along("wrist.L", "finger2-1.L"), along("wrist.L", "finger5-1.L"))
    down, up = np.array([0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0])
    arm_turn = _frame(ARM, down) @ _frame(arm, hinge).T
    forearm_turn = _frame(FOREARM, down) @ _frame(forearm, hinge).T
    hand_turn = _frame(HAND, up) @ _frame(hand, back_of_hand).T
    thigh = along("upperleg01.L", "lowerleg01.L")
    shin = along("lowerleg01.L", "foot.L")
    left = {
        "upperarm01.L": _untwisted(arm, ARM),
        "upperarm02.L": arm_turn,
        "lowerarm01.L": forearm_turn,
        "wrist.L": hand_turn,
        "upperleg01.L": _untwisted(thigh, THIGH),
        "lowerleg01.L": _untwisted(shin, SHIN),
        "foot.L": _about_y(FOOT_YAW),
    }
    flip = np.diag([-1.0, 1.0, 1.0])
    right = {name[:-1] + "R": flip @ rotation @ flip for name, rotation in left.items()}
    return left | right


def _frame(axis: npt.ArrayLike, second: np.ndarray) -> np.ndarray:
    """Rotation whose columns are axis, the part of second across it, and their cross product."""
    x = np.asarray(axis) / np.linalg.norm(axis)
    y = second - (second @ x) * x
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _untwisted(source: np.ndarray, target: npt.ArrayLike) -> np.ndarray:
    """The smallest rotation that turns source's direction onto target's."""
    a, b = np.asarray(source) / np.linalg.norm(source), np.asarray(target) / np.linalg.norm(target)
    c = np.cross(a, b)
    k = np.array([[0, -c[2], c[1]], [c[2], 0, -c[0]], [-c[1], c[0], 0]])
    return np.eye(3) + k + k @ k / (1 + a @ b)


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def bones_of(joint: str) -> tuple[str, ...]:
    """The bones joined into an SMPL joint; the first one's head is the joint."""
    if joint in LEFT_AND_MIDDLE:
        return LEFT_AND_MIDDLE[joint]
    left = LEFT_AND_MIDDLE[joint.replace("right", "left")]
    return tuple(bone[:-1] + "R" for bone in left)
