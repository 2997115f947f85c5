"""The pose that brings a skinned body nearest to given vertices, without a pass over the mesh.

Skinned vertices are v_i = sum_k w_ik M_k x_i, with x_i at rest and homogeneous. The sum of squares
|v - t|^2 over the mesh and its derivatives need the mesh only through

    C_kl = sum_i w_ik w_il x_i x_i^T      D_k = sum_i w_ik x_i t_i^T      sum_i t_i, sum_i |t_i|^2

which are contracted once. A step of Levenberg and Marquardt then costs a few 4x4 products for each
pair of bones, whatever the number of vertices.

F frames, K joints, V vertices; float64, because squares of metres cancel to those of micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pchmr_kernels.geometry import forward_kinematics

from ..geometry import rotvec_to_rotmat

Float64 = npt.NDArray[np.float64]

STEPS = 30
SETTLED = 1e-7  # relative change of the squares at which a pose is done


@dataclass(frozen=True, eq=False)
class Sums:
    """What the squares need of the mesh. arms: F or 1 times (V, 4K), w_ik x_i;
    C: (F or 1, K, K, 4, 4); D: (F, K, 4, 3); target: (F, 3); squares: (F,); joints: (K, 3) at rest;
    parents: (K,)."""

    arms: tuple[Float64, ...]
    C: Float64
    D: Float64
    target: Float64
    squares: Float64
    joints: Float64
    parents: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Pose:
    """rotmats: (F, K, 3, 3), each joint's rotation to its parent; transl: (F, 3) metres."""

    rotmats: Float64
    transl: Float64

    def where(self, chosen: npt.NDArray[np.bool_], other: Pose) -> Pose:
        """This pose in the frames `chosen` (F,), the other one elsewhere."""
        rotmats = np.where(chosen[:, None, None, None], self.rotmats, other.rotmats)
        return Pose(rotmats, np.where(chosen[:, None], self.transl, other.transl))


def contract(
    weights: Float64,
    rest: Float64,
    joints: Float64,
    parents: npt.NDArray[np.int32],
    targets: Float64,
) -> Sums:
    """The sums over V vertices. weights: (V, K), rows sum to 1; rest: (F or 1, V, 3) before
    skinning; targets: (F, V, 3)."""
    V, K = weights.shape
    arms = tuple(
        (weights[:, :, None] * np.concatenate([x, np.ones((V, 1))], 1)[:, None]).reshape(V, 4 * K)
        for x in rest
    )
    C = np.stack([a.T @ a for a in arms]).reshape(-1, K, 4, K, 4).swapaxes(2, 3)
    every = arms if len(arms) > 1 else arms * len(targets)
    D = np.stack([a.T @ t for a, t in zip(every, targets, strict=True)]).reshape(-1, K, 4, 3)
    squares = np.einsum("fvc,fvc->f", targets, targets)
    return Sums(arms, C, D, targets.sum(1), squares, joints, parents)


def bones_apart(sums: Sums) -> Pose:
    """Each bone's own rigid fit to the vertices it moves (Kabsch), put together to a pose."""
    moments = sums.C[..., 3].sum(2)  # sum_i w_ik x_i: the weights of a vertex sum to 1
    middle = moments[..., :3] / np.maximum(moments[..., 3:], 1e-12)  # a joint may move nothing
    centred = sums.D[..., :3, :] - middle[..., None] * sums.D[..., 3:, :]
    U, _, Vt = np.linalg.svd(centred)
    Vt[..., 2, :] *= np.sign(np.linalg.det(U @ Vt))[..., None]
    turned = (U @ Vt).swapaxes(-1, -2)
    rotmats = turned.copy()
    rotmats[:, 1:] = turned[:, sums.parents[1:]].swapaxes(-1, -2) @ turned[:, 1:]
    return placed(sums, rotmats)


def placed(sums: Sums, rotmats: Float64) -> Pose:
    """The pose with the translation that suits it best."""
    there = _Mesh(sums, Pose(rotmats, np.zeros((len(rotmats), 3))))
    return Pose(rotmats, there.pull[:, -3:] / there.vertices[:, None])


def squares(sums: Sums, pose: Pose) -> Float64:
    """(F,) sum of |v - t|^2 over the vertices, m^2."""
    return _Mesh(sums, pose).cost


def answers(sums: Sums, pose: Pose, f: int, fields: Float64) -> tuple[Float64, Float64]:
    """How the pose of frame f answers when its vertices move along `fields` (V, 3, S), metres.

    Returns what the fields pull at, (3K + 3, S), and the step of the best pose, (3K + 3, S).
    """
    V, _, S = fields.shape
    arms = sums.arms[f if len(sums.arms) > 1 else 0]
    mesh = _Mesh(_frame(sums, f), Pose(pose.rotmats[f : f + 1], pose.transl[f : f + 1]))
    D = (arms.T @ fields.reshape(V, -1)).reshape(-1, 4, 3, S)
    towards = mesh.gathered(np.moveaxis(D, -1, 0))
    force = fields.sum(0).T
    pull = np.concatenate([mesh.torques(towards), force], 1).T
    return pull, np.linalg.solve(_damped(mesh.normal, np.zeros(1))[0], pull)


def refine(sums: Sums, pose: Pose) -> Pose:
    """The pose at the least squares near `pose`."""
    damping = np.full(len(pose.transl), 1e-4)
    here = _Mesh(sums, pose)
    for _ in range(STEPS):
        normal = _damped(here.normal, damping)
        step = np.linalg.solve(normal, here.pull[..., None])[..., 0].astype(np.float64)
        trial = _Mesh(sums, here.moved(step))
        better = trial.cost < here.cost
        change = np.abs(trial.cost - here.cost) / np.maximum(here.cost, 1e-12)
        damping = np.where(better, damping / 5, damping * 10)
        here = trial if better.all() else _Mesh(sums, trial.pose.where(better, here.pose))
        if (change < SETTLED).all():
            break
    return here.pose


def _damped(normal: Float64, damping: Float64) -> Float64:
    """The same array, its diagonal (1 + damping) times as large, and never 0: a joint may move
    nothing."""
    diagonal = np.einsum("fii->fi", normal)
    diagonal *= 1 + damping[:, None]
    diagonal += 1e-12 * diagonal.max(1, keepdims=True)
    return normal


class _Mesh:
    """The squares at one pose, and what the mesh pulls at: normal equations of the next step.

    Unknowns: of each joint a small rotation of all that hangs on it, about the joint, axes of the
    world; then the translation. With a_ij = sum_{k below j} w_ik (M_k x_i - p_j) the derivative of
    v_i is -[a_ij]x, so all that is needed are sums of a_ij a_il^T and a_ij (t_i - v_i)^T.
    """

    def __init__(self, sums: Sums, pose: Pose) -> None:
        self.pose, self._sums = pose, sums
        F, K = pose.rotmats.shape[:2]
        rest = np.broadcast_to(sums.joints, (F, K, 3))
        transforms, joints = forward_kinematics(pose.rotmats, rest, sums.parents)
        self._turned = _turned(pose.rotmats, sums.parents)
        M = np.zeros((F, K, 4, 4))
        M[..., :3, :], M[..., 3, 3] = transforms, 1
        M[..., :3, 3] += pose.transl[:, None]
        self._joints = joints + pose.transl[:, None]
        self._moves, self._below = M, _below(sums.parents)
        # sum_i w_ik w_il (M_k x_i)(M_l x_i)^T, then over all that hangs on j and on l
        outer = M[:, :, None] @ sums.C @ M[:, None].swapaxes(-1, -2)
        outer = np.einsum("jk,fkx->fjx", self._below, outer.reshape(F, K, -1)).reshape(outer.shape)
        self._outer = np.einsum("lm,fjmab->fjlab", self._below, outer, optimize=True)
        self._towards = self.gathered(sums.D)
        self.vertices = self._outer[:, 0, 0, 3, 3]
        both = np.einsum("fii->f", self._towards[:, 0, :3])
        self.cost = sums.squares - 2 * both + np.einsum("fii->f", self._outer[:, 0, 0, :3, :3])

    @property
    def pull(self) -> Float64:
        """(F, 3K + 3): minus half the gradient."""
        # Every bone hangs on the root, whose sums are all of v.
        torque = self.torques(self._towards - self._outer[:, :, 0, :, :3])
        force = self._sums.target - self._outer[:, 0, 0, :3, 3]
        return np.concatenate([torque, force], 1)

    def gathered(self, D: Float64) -> Float64:
        """(F, K, 4, 3): sums D over all that hangs on a joint, moved."""
        return np.einsum("jk,fkab->fjab", self._below, self._moves @ D)

    def torques(self, towards: Float64) -> Float64:
        """(F, 3K): sum_i a_ij x t_i, of sums as `gathered`."""
        H = (_about(self._joints) @ towards)[..., :3, :]
        turned = H - H.swapaxes(-1, -2)
        return turned[..., [1, 2, 0], [2, 0, 1]].reshape(len(H), -1)

    @property
    def normal(self) -> Float64:
        """(F, 3K + 3, 3K + 3): half the Hessian of Gauss and Newton."""
        F, K = self.pose.rotmats.shape[:2]
        shift = _about(self._joints)
        G = (shift[:, :, None] @ self._outer @ shift[:, None].swapaxes(-1, -2))[..., :3, :3]
        # [a_j]x^T [a_l]x = (a_j . a_l) I - a_l a_j^T
        blocks = np.einsum("fjlcc->fjl", G)[..., None, None] * np.eye(3) - G.swapaxes(-1, -2)
        normal = np.zeros((F, 3 * K + 3, 3 * K + 3))
        normal[:, :-3, :-3] = blocks.swapaxes(2, 3).reshape(F, 3 * K, 3 * K)
        arms = (shift @ self._outer[:, :, 0])[..., :3, 3]  # sum_i a_ij
        x, y, z = np.moveaxis(arms, -1, 0)
        zero = np.zeros_like(x)
        skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(F, 3 * K, 3)
        normal[:, :-3, -3:], normal[:, -3:, :-3] = skew, skew.swapaxes(1, 2)
        normal[:, range(-3, 0), range(-3, 0)] = self.vertices[:, None]
        return normal

    def moved(self, step: Float64) -> Pose:
        """The pose one step (F, 3K + 3) further."""
        turn = rotvec_to_rotmat(step[:, :-3].reshape(len(step), -1, 3))
        above = self._turned[:, self._sums.parents]
        above[:, 0] = np.eye(3)
        rotmats = above.swapaxes(-1, -2) @ turn @ above @ self.pose.rotmats
        return Pose(rotmats, self.pose.transl + step[:, -3:])


def _frame(sums: Sums, f: int) -> Sums:
    """The sums of one frame."""
    one = slice(f, f + 1)
    C = sums.C[one] if len(sums.C) > 1 else sums.C
    rest = (sums.D[one], sums.target[one], sums.squares[one])
    return Sums(sums.arms, C, *rest, sums.joints, sums.parents)


def _below(parents: npt.NDArray[np.int32]) -> Float64:
    """(K, K): [j, k] is 1 where k hangs on j, or is j."""
    below = np.eye(len(parents))
    for k in range(len(parents) - 1, 0, -1):
        below[parents[k]] += below[k]
    return below


def _turned(rotmats: Float64, parents: npt.NDArray[np.int32]) -> Float64:
    """Each joint's rotation to the world."""
    turned = rotmats.copy()
    for k in range(1, len(parents)):
        turned[:, k] = turned[:, parents[k]] @ rotmats[:, k]
    return turned


def _about(points: Float64) -> Float64:
    """Homogeneous transforms (..., 4, 4) that put the origin at `points` (..., 3)."""
    shift = np.broadcast_to(np.eye(4), (*points.shape[:-1], 4, 4)).copy()
    shift[..., :3, 3] = -points
    return shift
