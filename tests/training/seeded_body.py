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
