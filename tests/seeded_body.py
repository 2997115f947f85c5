"""Bodies in the layout of SMPL's file, smaller or more human than the synthetic one."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.networks.seeding import generator
from pchmr_training.networks.synthetic_body import synthetic_arrays


def small_body(vertices: int, joints: int = 24) -> dict[str, Any]:
    """The first vertices and joints of the synthetic body; its joints are means of the vertices."""
    arrays = synthetic_arrays()
    weights = arrays["weights"][:vertices, :joints]
    J_regressor = generator("small:J_regressor").random((joints, vertices)) ** 4
    return {
        **{key: arrays[key][:vertices] for key in ("v_template", "shapedirs")},
        "posedirs": arrays["posedirs"][:vertices, :, : 9 * (joints - 1)],
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": J_regressor / J_regressor.sum(1, keepdims=True),
        "kintree_table": arrays["kintree_table"][:, :joints],
        "f": np.array([[0, 1, 2]], np.uint32),
    }


def write_synthetic_body(folder: Path) -> Path:
    """A pickle, as the official files are."""
    path = folder / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(synthetic_arrays(), protocol=2))
    return path


def person(vertices: int = 300) -> dict[str, Any]:
    """A stick person with flesh: vertices around the bones of 24 joints at human places."""
    rng = np.random.default_rng(0)
    smpl = get_skeleton("smpl24")
    joints = np.array([_PLACES[name.split("_", 1)[-1]] for name in smpl.joints])
    joints[:, 0] *= [-1 if name.startswith("right") else 1 for name in smpl.joints]
    bone = rng.integers(0, len(smpl.bones), vertices)
    along = rng.random((vertices, 1))
    parent, child = smpl.bones[bone].T
    template = (1 - along) * joints[parent] + along * joints[child]
    weights = np.zeros((vertices, 24))
    weights[np.arange(vertices), parent] = 1 - 0.5 * along[:, 0] ** 2
    weights[np.arange(vertices), child] += 0.5 * along[:, 0] ** 2
    regressor = np.exp(-((template[None] - joints[:, None]) ** 2).sum(-1) / 0.002)
    regressor /= regressor.sum(1, keepdims=True)
    return {
        **small_body(vertices),
        "v_template": template + 0.04 * rng.standard_normal(template.shape),
        "shapedirs": 0.02 * template[..., None] * rng.standard_normal((1, 3, 10)),
        "weights": weights,
        "J_regressor": regressor,
        **{
            f"regressor_{name}": regressor[[smpl.index(joint) for joint in _stand_ins(name)]]
            for name in ("h36m17", "coco17", "blazepose33")
        },
    }


def _stand_ins(skeleton: str) -> list[str]:
    """The joint of SMPL nearest to each of another skeleton, roughly."""
    near = {"pinky": "hand", "index": "hand", "thumb": "hand", "heel": "foot", "thorax": "neck"}
    joints = get_skeleton("smpl24").joints
    found = []
    for name in get_skeleton(skeleton).joints:
        side, _, part = name.partition("_")
        part = part.split("_")[0]
        candidates = (name, near.get(name), f"{name}2", f"{side}_{near.get(part, part)}")
        found.append(next((joint for joint in candidates if joint in joints), "head"))
    return found


_PLACES = {
    "pelvis": (0, 0, 0),
    "spine1": (0, 0.1, 0),
    "spine2": (0, 0.23, 0),
    "spine3": (0, 0.3, 0),
    "neck": (0, 0.5, 0),
    "head": (0, 0.6, 0.03),
    "collar": (0.08, 0.42, 0),
    "shoulder": (0.18, 0.44, 0),
    "elbow": (0.43, 0.44, 0),
    "wrist": (0.68, 0.44, 0),
    "hand": (0.76, 0.44, 0),
    "hip": (0.08, -0.08, 0),
    "knee": (0.1, -0.46, 0),
    "ankle": (0.1, -0.87, -0.03),
    "foot": (0.11, -0.92, 0.1),
}
