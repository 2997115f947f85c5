"""A body with the layout of SMPL's file and content that follows from names alone."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.networks.seeding import generator

V, F, J = 6890, 13776, 24
Floats = NDArray[np.float64]


def _float32(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)


def seeded_regressor(name: str, rows: int) -> Floats:
    """(rows, V): about fourteen vertices each."""
    share = generator(name).random((rows, V))
    share = np.where(share > 0.998, share - 0.998, 0.0)
    return _float32(share / share.sum(1, keepdims=True))


def seeded_body() -> dict[str, Any]:
    """The arrays of the parity kit's synthetic model: any vertex may follow any joint."""
    weights = generator("smpl:weights").random((V, J)) ** 16
    parents = np.array(get_skeleton("smpl24").parents, np.int64)
    parents[0] = 2**32 - 1
    shape, pose, template, faces = (
        generator(f"smpl:{name}") for name in ("shapedirs", "posedirs", "v_template", "f")
    )
    return {
        "v_template": _float32(template.uniform(-1, 1, (V, 3)) * [0.5, 0.9, 0.15]),
        "shapedirs": _float32(0.01 * shape.standard_normal((V, 3, 10))),
        "posedirs": _float32(0.005 * pose.standard_normal((V, 3, 9 * (J - 1)))),
        "weights": _float32(weights / weights.sum(1, keepdims=True)),
        "J_regressor": seeded_regressor("smpl:J_regressor", J),
        "kintree_table": np.stack([parents, np.arange(J)]).astype(np.uint32),
        "f": faces.integers(0, V, (F, 3)).astype(np.uint32),
    }


def small_body(vertices: int, joints: int = J) -> dict[str, Any]:
    """The first vertices and joints of that body; its joints are means of the vertices."""
    arrays = seeded_body()
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


def write_seeded_body(folder: Path) -> Path:
    """A pickle, as the official files are."""
    path = folder / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(seeded_body(), protocol=2))
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
