"""Random bodies for the kernel tests, and how exact each result must be."""

from dataclasses import dataclass

import numpy as np

from pchmr_kernels import reference
from pchmr_kernels.joint_tables import JointTables, joint_tables
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_kernels.weights import SparseWeights, from_dense

# Metres. Bodies span about 2 m about their root.
TOLERANCE = {
    "float64": 1e-11,  # some 100 roundings of 2e-16 at 2 m, over an angle as near to pi as 0.01
    "float64 fit": 1e-8,  # a rigid fit of joints at random can be a thousand times worse put
    "float32": 3e-6,  # some 20 roundings of 6e-8 at 2 m; 5e-7 measured
    "float32 at 60 m": 1e-5,  # the one rounding to float32 there is 3.8e-6
    "weights": 1e-5,  # A in float32 is off the simplex by 1e-7, at 2 m and over several bones
}


BODY_BONES = 24


@dataclass(frozen=True)
class Case:
    vertices: np.ndarray  # (B, V, 3) float32
    source: np.ndarray  # (B, J, 3)
    target: np.ndarray
    weights: SparseWeights
    A: np.ndarray  # (V, K) the same, dense
    W: np.ndarray


def case(
    rng: np.random.Generator,
    skeleton: Skeleton | str = "smpl24",
    batch: int = 2,
    vertices: int = 53,
    slots: int = 4,
    distance: float = 0.0,
) -> Case:
    """A mesh and two poses at random, `distance` metres away along z."""
    skeleton = get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton
    away = np.array([0, 0, distance])
    weights = sparse(rng, vertices, len(skeleton.bones), slots)
    A, W = dense(weights, len(skeleton.bones))
    source, target = rng.normal(size=(2, batch, len(skeleton), 3)) * 0.4 + away
    points = rng.uniform(-1, 1, (batch, vertices, 3)) + source[:, skeleton.root, None]
    return Case(points.astype(np.float32), source, target, weights, A, W)


def sparse(rng: np.random.Generator, vertices: int, bones: int, slots: int) -> SparseWeights:
    A = rng.dirichlet(np.full(bones, 0.3), vertices)
    weights = from_dense(A, rng.random((vertices, bones)), min(slots, bones))
    missing = slots - weights.indices.shape[1]
    pad = ((0, 0), (0, missing))
    arrays = (weights.indices, weights.values, weights.offsets)
    return SparseWeights(*(np.pad(array, pad) for array in arrays))


def dense(weights: SparseWeights, bones: int) -> tuple[np.ndarray, np.ndarray]:
    """A and W in float64, equal to what the kernels read."""
    A, AW = (array.astype(np.float64) for array in weights.to_dense(bones))
    return A, np.divide(AW, A, out=np.zeros_like(A), where=A > 0)


@dataclass(frozen=True)
class Skinned:
    rest: np.ndarray  # (B, V, 3) float32
    transforms: np.ndarray  # (B, 24, 3, 4) float32
    coefficients: np.ndarray  # (B, N) float32
    target: np.ndarray  # (B, 17, 3)
    weights: SparseWeights
    lbs_weights: SparseWeights
    tables: JointTables
    source: np.ndarray  # by the steps one by one
    expected: np.ndarray


def skinned(rng, batch=2, vertices=53, slots=4, lbs_slots=4, terms=3, **options) -> Skinned:
    """A body at rest, its skinning and a target pose at random, in h36m17."""
    skeleton = get_skeleton("h36m17")
    weights = sparse(rng, vertices, len(skeleton.bones), slots)
    lbs_weights = sparse(rng, vertices, BODY_BONES, lbs_slots)
    basis = np.concatenate(
        [rng.normal(size=(1, vertices, 3)) * 0.4, 0.05 * rng.normal(size=(terms - 1, vertices, 3))]
    )
    coefficients = np.pad(rng.normal(size=(batch, terms - 1)), ((0, 0), (1, 0)), constant_values=1)
    coefficients = coefficients.astype(np.float32)
    rest = np.einsum("bn,nvc->bvc", coefficients, basis).astype(np.float32)
    R = np.linalg.qr(rng.normal(size=(batch, BODY_BONES, 3, 3)))[0]
    t = 0.3 * rng.normal(size=(batch, BODY_BONES, 3, 1))
    transforms = np.concatenate([R, t], -1).astype(np.float32)
    U = rng.dirichlet(np.full(vertices, 0.1), len(skeleton))
    lbs, _ = dense(lbs_weights, BODY_BONES)

    still = np.zeros((batch, BODY_BONES, 3))
    moves = transforms.astype(np.float64)
    mesh = reference.blend(rest, moves[..., :3], moves[..., 3], still, lbs, 0 * lbs)
    source = U @ mesh
    target = source + 0.1 * rng.normal(size=source.shape)
    A, W = dense(weights, len(skeleton.bones))
    expected = reference.calibrate(
        *(mesh, source, target, skeleton.bones, A, W, skeleton.root),
        torso=skeleton.torso,
        axes=skeleton.body_axes,
        **options,
    )
    tables = joint_tables(U, lbs, basis)
    return Skinned(
        *(rest, transforms, coefficients, target, weights, lbs_weights, tables, source, expected)
    )


def chain(joints: int) -> Skeleton:
    """Joints in a row: as many bones as a test asks for."""
    names = tuple(f"joint{i}" for i in range(joints))
    return Skeleton("chain", names, tuple(range(-1, joints - 1)), 0, (), "chain")


def rigid(rng: np.random.Generator):
    """A random rotation and shift as a function of (..., 3) points."""
    from scipy.spatial.transform import Rotation

    turn, shift = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    return lambda points: points @ turn.T + shift


def widest_angle(source: np.ndarray, target: np.ndarray, skeleton: Skeleton) -> float:
    """The largest angle between a bone of the source and the same bone of the target."""
    parent, child = skeleton.bones.T
    a, b = (x[:, parent] - x[:, child] for x in (source, target))
    sine, cosine = np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)
    return float(np.arctan2(sine, cosine).max())
