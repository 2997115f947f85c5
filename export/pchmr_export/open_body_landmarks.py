"""Where the landmarks of each skeleton lie on the open body; right ones mirror the left.

BlazePose's landmarks were placed by how far apart the network puts them on people seen by four
calibrated cameras and from the front: its shoulders lie above and its hips below the joints, its
ears inside the head, its pinky and index 20 mm apart. Human3.6M's follow the mean bone lengths of
its subjects. SURFACE names vertices of MakeHuman's base mesh.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pchmr_kernels.skeletons import get_skeleton


@dataclass(frozen=True)
class Point:
    """A point rigid with a joint: starts, shares of joints and bone heads; offset_mm at rest."""

    moves_with: str
    starts: Mapping[str, float]
    offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


KNUCKLES = {"index_knuckle": "finger2-1.L", "pinky_knuckle": "finger5-1.L", "thumb": "finger1-2.L"}

POINTS = {
    "left_shoulder_top": Point("left_collar", {"left_shoulder": 1}, (7, 15, 0)),
    "left_hip_crease": Point("pelvis", {"left_hip": 1}, (-5, -25, 10)),
    "left_ankle_bones": Point("left_ankle", {"left_ankle": 1}, (0, 10, 0)),
    "left_index": Point(
        "left_wrist", {"left_wrist": 0.25, "index_knuckle": 0.5, "pinky_knuckle": 0.25}
    ),
    "left_pinky": Point(
        "left_wrist", {"left_wrist": 0.25, "index_knuckle": 0.25, "pinky_knuckle": 0.5}
    ),
    "left_thumb": Point("left_wrist", {"left_wrist": 0.3, "thumb": 0.7}),
    "left_h36m_hip": Point("pelvis", {"left_hip": 1}, (25, 30, 0)),
    "left_h36m_shoulder": Point("left_collar", {"left_shoulder": 1}, (-20, 10, 0)),
    "h36m_thorax": Point("spine3", {"neck": 1}, (0, -70, 0)),
}

SURFACE = {
    "nose": (5054, 297, 5134),
    "left_eye_inner": (7847, 7848, 7821, 7822),
    "left_eye": (14607, 14598, 14616),
    "left_eye_outer": (7885, 7886, 7859, 7860),
    "left_temple": (12360, 12010, 12332, 7564),
    "left_mouth": (10378, 7289, 7287, 7274),
    "left_heel": (12453, 12464, 12925, 12924),
    "left_big_toe": (11551, 11591, 12756),
    "head_top": (881, 879, 882),
}

Rows = Mapping[str, Mapping[str, float]]


def _same(*names: str) -> Rows:
    return {name: {name: 1.0} for name in names}


_IMAGE: Rows = {
    **_same("nose", "left_eye_inner", "left_eye", "left_eye_outer", "left_mouth"),
    **_same("left_elbow", "left_wrist", "left_pinky", "left_index", "left_thumb"),
    **_same("left_knee", "left_heel"),
    "left_ear": {"left_temple": 0.9, "right_temple": 0.1},
    "left_shoulder": {"left_shoulder_top": 1},
    "left_hip": {"left_hip_crease": 1},
    "left_ankle": {"left_ankle_bones": 1},
    "left_foot_index": {"left_big_toe": 0.9, "left_heel": 0.1},
}
_H36M: Rows = {
    **_same("left_knee", "left_ankle", "left_elbow", "left_wrist"),
    "pelvis": {"left_h36m_hip": 0.5, "right_h36m_hip": 0.5},
    "left_hip": {"left_h36m_hip": 1},
    "left_shoulder": {"left_h36m_shoulder": 1},
    "spine": {"spine2": 1},
    "thorax": {"h36m_thorax": 1},
    "nose": {"neck": 0.4, "left_mouth": 0.3, "right_mouth": 0.3},
    "head": {"head_top": 0.35, "left_temple": 0.325, "right_temple": 0.325},
}

# Skeleton -> joint -> shares of rows, left and middle joints.
SKELETON_ROWS: Mapping[str, Rows] = {
    "smpl24": _same(*get_skeleton("smpl24").joints),
    "blazepose33": _IMAGE,
    "coco17": _IMAGE,
    "h36m17": _H36M,
}
