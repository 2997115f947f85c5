"""The joint sets pchmr knows: order, tree, mirror pairs. `conversions.py` goes from one to another.

Names are harmonised (`left_hip`, never `LHip` or `L_Hip`; left and right are the person's), but the
same name means the same anatomical point only inside one `family`: a hip of SMPL and a hip of
Human3.6M lie 42 mm apart. Two orders are easily taken for one another: `h36m17` starts with the
right leg, `spin_h36m17` (the rows of SPIN's and VIBE's J_regressor_h36m) with the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

_TORSO = (
    *("pelvis", "spine", "spine1", "spine2", "spine3"),
    *("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
)
_BODY_AXES = (
    ("left_hip", "right_hip"),
    *(("thorax", "pelvis"), ("spine3", "pelvis"), ("neck", "pelvis")),
    *(("left_shoulder", "left_hip"), ("left_shoulder", "right_shoulder")),
)


@dataclass(frozen=True)
class Skeleton:
    """A joint set. `parents[root]` is -1; `flip` holds the (left, right) pairs a mirror swaps."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    root: int
    flip: tuple[tuple[int, int], ...]
    family: str = ""

    @cached_property
    def bones(self) -> npt.NDArray[np.int32]:
        """(K, 2) int32: (parent, child) of every joint but the root, in the children's order."""
        pairs = [(parent, child) for child, parent in enumerate(self.parents) if parent >= 0]
        bones = np.array(pairs, np.int32)
        bones.flags.writeable = False
        return bones

    @cached_property
    def torso(self) -> tuple[int, ...]:
        """Joints of the rigid torso fit: pelvis, hips, spine, shoulders, as far as they exist."""
        return tuple(i for i, joint in enumerate(self.joints) if joint in _TORSO)

    @cached_property
    def body_axes(self) -> tuple[tuple[int, int], ...]:
        """Joint pairs that span the body's own axes, hip to hip first, then along the trunk.

        An exactly antiparallel bone turns about its cross product with the first that serves.
        """
        pairs = [pair for pair in _BODY_AXES if set(pair) <= set(self.joints)]
        return tuple((self.index(tip), self.index(tail)) for tip, tail in pairs)

    def index(self, joint: str) -> int:
        """The index of `joint`. Raises: ValueError that names the joints there are."""
        if joint not in self.joints:
            known = ", ".join(self.joints)
            raise ValueError(f"{self.name} has no joint {joint!r}; its joints are {known}")
        return self.joints.index(joint)

    def __len__(self) -> int:
        return len(self.joints)


def get_skeleton(name: str) -> Skeleton:
    """The skeleton called `name`. Raises: ValueError that names the skeletons there are."""
    if name not in SKELETONS:
        raise ValueError(f"no skeleton is called {name!r}; known: {', '.join(SKELETONS)}")
    return SKELETONS[name]


def _skeleton(name: str, family: str, parents: tuple[int, ...], *joints: str) -> Skeleton:
    names = tuple(" ".join(joints).split())
    flip = tuple(
        (left, names.index(joint.replace("left_", "right_", 1)))
        for left, joint in enumerate(names)
        if joint.startswith("left_")
    )
    return Skeleton(name, names, parents, parents.index(-1), flip, family)


_LEFT_LEG, _RIGHT_LEG = (f"{s}_hip {s}_knee {s}_ankle" for s in ("left", "right"))
_LEFT_ARM, _RIGHT_ARM = (f"{s}_shoulder {s}_elbow {s}_wrist" for s in ("left", "right"))
_LSP12 = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle "
    "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist"
)
_COCO17 = (
    "nose left_eye right_eye left_ear right_ear "
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_BLAZEPOSE33 = (
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer "
    "left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel "
    "left_foot_index right_foot_index"
)
_LSP14_PARENTS = (1, 2, 12, 12, 3, 4, 7, 8, 12, 12, 9, 10, -1, 12)

_BLAZEPOSE_FACE = (0, 1, 2, 0, 4, 5, 3, 6, 0, 0)
_BLAZEPOSE_ARMS = (11, 12, 13, 14, 15, 16, 15, 16, 15, 16)
_BLAZEPOSE_LEGS = (23, 24, 25, 26, 27, 28, 27, 28)

_ALL = (
    _skeleton(
        "smpl24",
        "smpl",
        (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
        "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle",
        "spine3 left_foot right_foot neck left_collar right_collar head",
        "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist",
        "left_hand right_hand",
    ),
    # VideoPose3D, Pose2Mesh: right leg first; `nose` is Neck/Nose, `head` the top of the head.
    _skeleton(
        "h36m17",
        "h36m",
        (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
        f"pelvis {_RIGHT_LEG} {_LEFT_LEG} spine thorax nose head {_LEFT_ARM} {_RIGHT_ARM}",
    ),
    # Rows of SPIN's and VIBE's J_regressor_h36m: left leg first.
    _skeleton(
        "spin_h36m17",
        "h36m",
        (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
        f"pelvis {_LEFT_LEG} {_RIGHT_LEG} spine thorax nose head {_LEFT_ARM} {_RIGHT_ARM}",
    ),
    # The 14 joints of the 3DPW and Human3.6M tables, in LSP's order but Human3.6M's definition.
    _skeleton("h36m14", "h36m", _LSP14_PARENTS, _LSP12, "thorax head"),
    _skeleton(
        "semgcn16",
        "h36m",
        (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14),
        f"pelvis {_RIGHT_LEG} {_LEFT_LEG} spine thorax head {_LEFT_ARM} {_RIGHT_ARM}",
    ),
    _skeleton(
        "stacked_hourglass16",
        "h36m",
        (1, 2, 6, 6, 3, 4, -1, 6, 7, 8, 11, 12, 8, 8, 13, 14),
        "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis spine thorax head",
        "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
    ),
    # `mid_shoulders` is PoseNet's own Thorax, their middle; Human3.6M's thorax is its Neck.
    _skeleton(
        "posenet18",
        "h36m",
        (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15, 8),
        f"pelvis {_RIGHT_LEG} {_LEFT_LEG} spine thorax nose head {_LEFT_ARM} {_RIGHT_ARM}",
        "mid_shoulders",
    ),
    _skeleton(
        "posenet21_muco",
        "muco",
        (16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1, 4, 7, 10, 13),
        f"head_top thorax {_RIGHT_ARM} {_LEFT_ARM} {_RIGHT_LEG} {_LEFT_LEG} pelvis spine head",
        "right_hand left_hand right_toe left_toe",
    ),
    _skeleton(
        "humaneva15",
        "humaneva",
        (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
        f"pelvis thorax {_LEFT_ARM} {_RIGHT_ARM} {_LEFT_LEG} {_RIGHT_LEG} head",
    ),
    # No pelvis: the neck is the root of the LSP sets.
    _skeleton("lsp14", "lsp", _LSP14_PARENTS, _LSP12, "neck head_top"),
    _skeleton(
        "hmr_cocoplus19",
        "lsp",
        (*_LSP14_PARENTS, 12, 14, 14, 15, 16),
        f"{_LSP12} neck head_top nose left_eye right_eye left_ear right_ear",
    ),
    # 0 and 5 are heels here; the ankles are 24 and 23.
    _skeleton(
        "hmmr25",
        "lsp",
        (
            24,
            2,
            12,
            12,
            3,
            23,
            7,
            8,
            12,
            12,
            9,
            10,
            -1,
            12,
            12,
            14,
            14,
            15,
            16,
            23,
            24,
            23,
            24,
            4,
            1,
        ),
        _LSP12.replace("ankle", "heel"),
        "neck head_top nose left_eye right_eye left_ear right_ear",
        "left_big_toe right_big_toe left_small_toe right_small_toe left_ankle right_ankle",
    ),
    # coco17 and blazepose33 have no pelvis and no neck: the left hip is the root, each side of the
    # trunk a bone, and the nose hangs from the left shoulder. That serves drawing and fading; to
    # calibrate, take pose2mesh_coco19 or blazepose35, to which they convert exactly.
    _skeleton(
        "coco17",
        "coco",
        (5, 0, 0, 1, 2, 11, 12, 5, 6, 7, 8, -1, 11, 11, 12, 13, 14),
        _COCO17,
    ),
    # The pelvis is the middle of the hips, the neck the middle of the shoulders.
    _skeleton(
        "pose2mesh_coco19",
        "coco",
        (18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 17, 17, 11, 12, 13, 14, -1, 17),
        _COCO17,
        "pelvis neck",
    ),
    # MediaPipe's order of the BlazePose landmarks.
    _skeleton(
        "blazepose33",
        "blazepose",
        (11, *_BLAZEPOSE_FACE, 23, 24, *_BLAZEPOSE_ARMS, -1, 23, *_BLAZEPOSE_LEGS),
        _BLAZEPOSE33,
    ),
    _skeleton(
        "blazepose35",
        "blazepose",
        (34, *_BLAZEPOSE_FACE, 34, 34, *_BLAZEPOSE_ARMS, 33, 33, *_BLAZEPOSE_LEGS, -1, 33),
        _BLAZEPOSE33,
        "pelvis neck",
    ),
)
SKELETONS: Mapping[str, Skeleton] = MappingProxyType({skeleton.name: skeleton for skeleton in _ALL})
