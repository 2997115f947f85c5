"""Sparse regressors of the open body: joints of the rest mesh, and of the posed mesh by skeleton.

All rows are non-negative and sum to 1. What the posed mesh gives is fitted over random poses within
the limits of a body: a few mm from the kinematic joints, where the rest regressor is 19 mm off.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pchmr.geometry import rotvec_to_rotmat
from pchmr_kernels.geometry import forward_kinematics
from pchmr_kernels.skeletons import get_skeleton

from .open_body_landmarks import POINTS, SKELETON_ROWS, SURFACE, Point
from .open_body_shape import ShapeSpace

SMPL = get_skeleton("smpl24")
POSES = 80
RIDGE = 3e-3  # spreads a row over more vertices, at a cost under 0.1 mm
SUM_WEIGHT = 10.0  # how much a row's sum counts beside a metre of position
CANDIDATES = 1000

# Range of each rotation vector, degrees: (low x, y, z), (high x, y, z). The right side mirrors it.
LIMITS = {
    "left_hip": ((-100, -35, -25), (30, 35, 45)),
    "spine1": ((-20, -15, -15), (35, 15, 15)),
    "left_knee": ((0, -5, -5), (130, 5, 5)),
    "spine2": ((-10, -12, -12), (15, 12, 12)),
    "left_ankle": ((-35, -20, -25), (30, 20, 15)),
    "spine3": ((-10, -10, -10), (12, 10, 10)),
    "left_foot": ((-30, -10, -5), (30, 10, 5)),
    "neck": ((-30, -25, -20), (25, 25, 20)),
    "left_collar": ((-10, -15, -25), (10, 15, 20)),
    "head": ((-25, -35, -25), (45, 35, 25)),
    "left_shoulder": ((-50, -95, -95), (70, 45, 60)),
    "left_elbow": ((-10, -130, -15), (10, 5, 60)),
    "left_wrist": ((-80, -30, -45), (60, 30, 45)),
    "left_hand": ((-15, -40, -45), (15, 40, 45)),
}


@dataclass(frozen=True)
class PosedBodies:
    """N random bodies in random poses. vertices: (N, V, 3) float32; transforms: (N, 24, 3, 4);
    rest: (N, 3) arrays, unposed joints and other bone heads by name."""

    vertices: np.ndarray
    transforms: np.ndarray
    rest: Mapping[str, np.ndarray]

    def place(self, point: Point) -> np.ndarray:
        """Where the point lies on each posed body: (N, 3)."""
        start = np.sum([share * self.rest[name] for name, share in point.starts.items()], axis=0)
        transform = self.transforms[:, SMPL.index(point.moves_with)]
        start = start + np.array(point.offset_mm) / 1000
        return np.einsum("nrc,nc->nr", transform[:, :, :3], start) + transform[:, :, 3]


def rest_regressor(space: ShapeSpace, weights: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """J_regressor (24, V), joints of the rest mesh, fitted to the mean and each shape component.

    mirror: (V,) each vertex's mirror image.
    """
    # The mean counts three times as much as a standard deviation of any component.
    scale = np.array([3.0] + [1.0] * space.shapedirs.shape[-1])
    vertices = scale * np.concatenate([space.v_template[..., None], space.shapedirs], -1)
    rows = {}
    for joint in _left_and_middle(SMPL.joints):
        start = np.concatenate([space.heads[joint][:, None], space.head_dirs[joint]], -1)
        near = _candidates(space, weights, joint, space.heads[joint])
        row = _fit_row(vertices[near].transpose(2, 0, 1), (scale * start).T, near, len(mirror))
        rows[joint] = row
    return _both_sides(rows, SMPL.joints, mirror)


def pose_random_bodies(
    space: ShapeSpace, weights: np.ndarray, J_regressor: np.ndarray, seed: int = 0
) -> PosedBodies:
    """POSES bodies of random betas, in rotations within LIMITS; the first is the mean at rest."""
    rng = np.random.default_rng(seed)
    betas = rng.standard_normal((POSES, space.shapedirs.shape[-1]))
    rotvecs = np.zeros((POSES, len(SMPL), 3))
    for j, joint in enumerate(SMPL.joints[1:], start=1):
        low, high = np.radians(LIMITS[joint if joint in LIMITS else mirrored(joint)])
        side = [1, -1, -1] if joint.startswith("right_") else [1, 1, 1]
        rotvecs[:, j] = side * (low + (high - low) * rng.beta(1.5, 1.5, (POSES, 3)))
    betas[0], rotvecs[0] = 0, 0
    shaped = space.v_template + np.einsum("vcb,nb->nvc", space.shapedirs, betas)
    joints = J_regressor @ shaped
    transforms, _ = forward_kinematics(rotvec_to_rotmat(rotvecs), joints, np.array(SMPL.parents))
    vertices = np.empty(shaped.shape, np.float32)
    for i, transform in enumerate(transforms):
        blended = (weights @ transform.reshape(len(SMPL), 12)).reshape(-1, 3, 4)
        vertices[i] = np.einsum("vrc,vc->vr", blended[..., :3], shaped[i]) + blended[..., 3]
    rest = {
        name: space.heads[name] + betas @ space.head_dirs[name].T
        for name in space.heads
        if name not in SMPL.joints
    }
    rest |= {joint: joints[:, j] for j, joint in enumerate(SMPL.joints)}
    return PosedBodies(vertices, transforms, rest)


def posed_regressors(
    space: ShapeSpace,
    weights: np.ndarray,
    mirror: np.ndarray,
    used: np.ndarray,
    bodies: PosedBodies,
) -> dict[str, np.ndarray]:
    """By skeleton, (N, V): its joints from the posed mesh.

    used: (V,) MakeHuman's number of each vertex, increasing.
    """
    rows = {}
    for name, point in (_joint_points() | POINTS).items():
        target = bodies.place(point)
        near = _candidates(space, weights, point.moves_with, target[0])
        rows[name] = _fit_row(bodies.vertices[:, near], target, near, len(mirror))
    for name, numbers in SURFACE.items():
        rows[name] = np.zeros(len(mirror))
        rows[name][np.searchsorted(used, numbers)] = 1 / len(numbers)
    rows |= {mirrored(name): row[mirror] for name, row in rows.items() if mirrored(name) != name}
    return {
        skeleton: _both_sides(
            {
                joint: np.sum([share * rows[name] for name, share in mixes[joint].items()], axis=0)
                for joint in _left_and_middle(get_skeleton(skeleton).joints)
            },
            get_skeleton(skeleton).joints,
            mirror,
        )
        for skeleton, mixes in SKELETON_ROWS.items()
    }


def mirrored(joint: str) -> str:
    """The joint's name on the other side of the body."""
    if joint.startswith("left_"):
        return joint.replace("left_", "right_", 1)
    return joint.replace("right_", "left_", 1)


def _left_and_middle(joints: tuple[str, ...]) -> list[str]:
    return [joint for joint in joints if not joint.startswith("right_")]


def _joint_points() -> dict[str, Point]:
    return {joint: Point(joint, {joint: 1.0}) for joint in _left_and_middle(SMPL.joints)}


def _both_sides(
    rows: Mapping[str, np.ndarray], joints: tuple[str, ...], mirror: np.ndarray
) -> np.ndarray:
    """Rows (N, V) in the order of joints: right ones mirrored from left, middle ones symmetric."""

    def row(joint: str) -> np.ndarray:
        if joint.startswith("right_"):
            return rows[mirrored(joint)][mirror]
        return rows[joint] if joint.startswith("left_") else (rows[joint] + rows[joint][mirror]) / 2

    return np.array([row(joint) for joint in joints])


def _candidates(
    space: ShapeSpace, weights: np.ndarray, joint: str, point: np.ndarray
) -> np.ndarray:
    """The vertices nearest to a point that follow the joint, its parent or its children."""
    j = SMPL.index(joint)
    family = [j, max(SMPL.parents[j], 0), *(k for k, p in enumerate(SMPL.parents) if p == j)]
    eligible = weights[:, sorted(set(family))].sum(1) > 0.3
    distance = np.where(eligible, np.linalg.norm(space.v_template - point, axis=-1), np.inf)
    return np.argsort(distance, kind="stable")[: min(CANDIDATES, int(eligible.sum()))]


def _fit_row(
    vertices: np.ndarray, targets: np.ndarray, candidates: np.ndarray, vertex_count: int
) -> np.ndarray:
    """The row (V,) >= 0, of sum 1, that best takes vertices to targets: least squares (NNLS).

    vertices: (N, C, 3) of the candidates (C,); targets: (N, 3).
    """
    from scipy.optimize import nnls

    N, C, _ = vertices.shape
    matrix = np.concatenate(
        [
            vertices.transpose(0, 2, 1).reshape(3 * N, C) / np.sqrt(N),
            np.full((1, C), SUM_WEIGHT),
            RIDGE * np.eye(C),
        ]
    )
    wanted = np.concatenate([targets.ravel() / np.sqrt(N), [SUM_WEIGHT], np.zeros(C)])
    values, _ = nnls(matrix.astype(np.float64), wanted, maxiter=30 * C)
    row = np.zeros(vertex_count)
    row[candidates] = values / values.sum()
    return row
