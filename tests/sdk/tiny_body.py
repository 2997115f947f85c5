"""A body of 48 vertices with SMPL's joints: two vertices straddle each joint, a quarter of their
weight on its parent. And writers of pickles like the official files."""

import io
import pickle
import sys
import types
from typing import ClassVar

import numpy as np
import scipy.sparse

from pchmr_kernels.skeletons import get_skeleton

SMPL = get_skeleton("smpl24")
LEFT_AND_MIDDLE = {
    "pelvis": (0, 0, 0),
    "left_hip": (0.1, -0.05, 0),
    "left_knee": (0.1, -0.45, 0.02),
    "left_ankle": (0.1, -0.85, 0),
    "left_foot": (0.12, -0.9, 0.12),
    "spine1": (0, 0.1, 0),
    "spine2": (0, 0.2, 0.01),
    "spine3": (0, 0.3, 0),
    "neck": (0, 0.5, 0),
    "head": (0, 0.6, 0.02),
    "left_collar": (0.05, 0.45, 0),
    "left_shoulder": (0.18, 0.45, 0),
    "left_elbow": (0.43, 0.45, -0.02),
    "left_wrist": (0.68, 0.45, 0),
    "left_hand": (0.77, 0.45, 0),
}


def rest_joints() -> np.ndarray:
    """(24, 3), the left at +x."""
    return np.array(
        [
            LEFT_AND_MIDDLE[joint.replace("right_", "left_")]
            * np.array([-1 if joint.startswith("right_") else 1, 1, 1])
            for joint in SMPL.joints
        ],
        np.float64,
    )


def tiny_arrays(num_betas: int = 10, pose_blends: bool = True) -> dict[str, np.ndarray]:
    """SMPL's keys; float32-exact values, as the loader rounds to float32."""
    rng = np.random.default_rng(0)
    joints = rest_joints()
    J, V = len(joints), 2 * len(joints)
    straddle = 0.03125 * rng.choice([-1, 1], (J, 3))
    weights = np.repeat(np.eye(J) * 0.75, 2, axis=0)
    for j, parent in enumerate(SMPL.parents):
        weights[2 * j : 2 * j + 2, max(parent, 0)] += 0.25
    posedirs = 0.01 * rng.standard_normal((V, 3, 9 * (J - 1))) * pose_blends
    table = np.array([SMPL.parents, range(J)]).astype(np.uint32)  # the root's -1 becomes 2^32 - 1
    return {
        "v_template": _exact(np.stack([joints - straddle, joints + straddle], 1).reshape(V, 3)),
        "shapedirs": _exact(0.01 * rng.standard_normal((V, 3, num_betas))),
        "posedirs": _exact(posedirs),
        "J_regressor": np.repeat(np.eye(J) / 2, 2, axis=1),
        "weights": weights,
        "kintree_table": table,
        "f": np.arange(V).reshape(-1, 3).astype(np.uint32),
    }


def _exact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)


def python2_pickle(content: object) -> bytes:
    """A protocol-2 pickle as Python 2 and its numpy wrote it: byte strings, numpy.core."""

    def save_string(writer: pickle._Pickler, text: bytes | str) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        writer.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)

    class Writer(pickle._Pickler):
        dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}

    sink = io.BytesIO()
    Writer(sink, protocol=2).dump(content)
    return sink.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def official_pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """Laid out as the official .pkl: chumpy objects, sparse J_regressor, strings, leftovers."""
    chumpy = types.ModuleType("chumpy")
    chumpy.ch = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x, self._dirty_vars, self._itr = x, {"x"}, None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    chumpy.ch.Ch = Ch
    sys.modules |= {"chumpy": chumpy, "chumpy.ch": chumpy.ch}
    try:
        return python2_pickle(
            {
                **arrays,
                "shapedirs": Ch(arrays["shapedirs"]),
                "v_template": Ch(arrays["v_template"]),
                "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
                "J": np.zeros((24, 3)),
                "bs_style": "lbs",
                "pose_training_info": {"Gender": "n", "Scan": np.array([Ch(np.zeros(2)), None])},
            }
        ).replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
