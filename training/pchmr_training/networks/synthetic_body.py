"""The parity fixtures that need a body: a random one in SMPL's layout, posed by the SDK.

Nothing of SMPL is in it; its numbers follow from names (`seeding.py`), so that two programs that
skin a body can be compared without the licensed file.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.geometry import rot6d_to_rotmat, rotvec_to_rotmat
from pchmr_kernels.skeletons import get_skeleton

from .seeding import generator

Array = NDArray[Any]
VERTICES, FACES, JOINTS = 6890, 13776, 24
CROP, FOCAL = 224, 5000.0

# Vertices that smplx appends to the 24 joints, and SPIN's 49 joints among those 45 and 9 regressed.
PICKED_VERTICES = (
    *(332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787),
    *(2746, 2319, 2445, 2556, 2673, 6191, 5782, 5905, 6016, 6133),
)
SPIN49 = (
    *(24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34),
    *(8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27),
)
# LSP's 14 among the rows of SPIN's regressor of Human3.6M's joints, whose left leg comes first.
SPIN_H36M_TO_LSP14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)


def _float32(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


def regressor(name: str, rows: int) -> Array:
    """(rows, V) float64: sparse, not negative, rows sum to 1."""
    values = generator(name).random((rows, VERTICES))
    values = np.where(values > 0.998, values - 0.998, 0.0)
    return _float32(values / values.sum(1, keepdims=True))


@cache
def synthetic_arrays() -> Mapping[str, Array]:
    """The body under the keys of SMPL's file: any vertex may follow any joint."""
    weights = generator("smpl:weights").random((VERTICES, JOINTS)) ** 16
    template = generator("smpl:v_template").uniform(-1, 1, (VERTICES, 3)) * [0.5, 0.9, 0.15]
    shapedirs = 0.01 * generator("smpl:shapedirs").standard_normal((VERTICES, 3, 10))
    posedirs = 0.005 * generator("smpl:posedirs").standard_normal((VERTICES, 3, 207))
    table = np.array([get_skeleton("smpl24").parents, range(JOINTS)])
    return {
        "v_template": _float32(template),
        "shapedirs": _float32(shapedirs),
        "posedirs": _float32(posedirs),
        "weights": _float32(weights / weights.sum(1, keepdims=True)),
        "J_regressor": regressor("smpl:J_regressor", JOINTS),
        "kintree_table": table.astype(np.uint32),  # the root's -1 becomes 2^32 - 1
        "f": generator("smpl:f").integers(0, VERTICES, (FACES, 3)).astype(np.uint32),
    }


@cache
def synthetic_body() -> BodyModel:
    return BodyModel(body_from_arrays(synthetic_arrays(), source="synthetic body"))


def pose_body(rotmat: Array, betas: Array) -> tuple[Array, Array, Array]:
    """Vertices (B, V, 3), smplx's 45 joints and SPIN's 49 of (B, 24, 3, 3) and (B, 10)."""
    model = synthetic_body()
    vertices = model.pose(rotmat, betas)
    joints45 = np.concatenate((model.joints, vertices[:, PICKED_VERTICES]), 1)
    extra = regressor("smpl:J_regressor_extra", 9) @ vertices
    return vertices, joints45, np.concatenate((joints45, extra), 1)[:, SPIN49]


def project_spin(joints: Array, cam: Array) -> Array:
    """Pixels (B, N, 2) from the middle of SPIN's crop, of joints (B, N, 3) and cameras (B, 3)."""
    depth = 2 * FOCAL / (CROP * cam[:, 0] + 1e-9)
    seen = joints + np.stack((cam[:, 1], cam[:, 2], depth), -1)[:, None]
    return FOCAL * seen[..., :2] / seen[..., 2:]


def run_smpl(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The fixture `smpl`: the body by rotation vectors, and by six numbers a joint as SPIN does."""
    betas = inputs["betas"]
    rotvec = inputs["pose"].reshape(-1, JOINTS, 3).astype(np.float64)
    rotmat = rotvec_to_rotmat(rotvec)
    vertices, joints45, _ = pose_body(rotmat, betas)
    rest = pose_body(np.broadcast_to(np.eye(3), rotmat.shape), betas)[1]
    spin_rotmat = rot6d_to_rotmat(inputs["rot6d"].reshape(-1, JOINTS, 6).astype(np.float64))
    spin_vertices, _, joints49 = pose_body(spin_rotmat, betas)
    cam = inputs["cam"] * np.array([0.3, 0.5, 0.5]) + np.array([0.9, 0.0, 0.0])
    return {
        "vertices": vertices,
        "joints45": joints45,
        "rest_joints45": rest,
        "rodrigues": rotmat,
        "rot6d_matrix": spin_rotmat,
        "spin_vertices": spin_vertices,
        "spin_joints49": joints49,
        "h36m17": regressor("smpl:J_regressor_h36m", 17) @ spin_vertices,
        "cam": cam,
        "spin_pixels49": project_spin(joints49, cam) + CROP / 2,
        "hmr_projection49": cam[:, None, :1] * (joints49[..., :2] + cam[:, None, 1:]),
    }


def with_vibe_body(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """VIBE's outputs with those of its body, from its rotations, shapes and cameras."""
    frames = outputs["rotmat"].shape[:2]
    cam, betas = np.split(outputs["theta_cam_shape"].reshape(-1, 13), [3], axis=1)
    vertices, _, joints = pose_body(outputs["rotmat"].reshape(-1, JOINTS, 3, 3), betas)
    lsp14 = (regressor("smpl:J_regressor_h36m", 17) @ vertices)[:, SPIN_H36M_TO_LSP14]
    pixels = project_spin(joints, cam) / (CROP / 2)
    body = {"verts": vertices, "kp_3d": joints, "kp_2d": pixels, "kp_3d_lsp14": lsp14}
    return {
        **outputs,
        **{name: value.reshape(*frames, *value.shape[1:]) for name, value in body.items()},
    }
