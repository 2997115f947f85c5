"""Random bodies for the kernel tests, and how exact each result must be."""

from dataclasses import dataclass

import numpy as np

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
