"""Pose and shape of a body fitted to given vertices: one pose a frame, one shape for all frames.

A calibrated mesh is not one that the body model can make: the fit is the nearest one in the
least-squares sense, and how far it stays away is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError

from ..bodies import Body, BodyModel
from ..geometry import rot6d_to_rotmat, rotmat_to_rot6d
from . import pose_solver
from .pose_solver import Pose, Sums

Array = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SHAPE_FRAMES = 32  # spread over the track; more change the shape by less than its pose does
ROUNDS = 8  # of shape and pose
BLEND_ROUNDS = 4  # of pose and pose blend shapes
SETTLED_M = 1e-5  # change of the root mean square at which the rounds end
BLENDED = 1e-4  # relative decrease of the squares at which pose blend shapes are settled
CHUNK = 32  # frames solved at a time
PRIOR_M = 1e-5  # the root mean square residual that one unit of a beta is worth


@dataclass(frozen=True, eq=False)
class Fit:
    """Body parameters of F frames.

    rotmats: (F, K, 3, 3), each joint's rotation to its parent; betas: (S,); transl: (F, 3) metres.
    residual_mean_mm, residual_max_mm: (F,), distances of the vertices from those given.
    """

    rotmats: Float64
    betas: Float64
    transl: Float64
    residual_mean_mm: Float64
    residual_max_mm: Float64


def fit_body(
    body: Body, vertices: Float32, rotmats: Array | None = None, betas: Array | None = None
) -> Fit:
    """The body's parameters nearest to `vertices`, with one shape for all frames.

    vertices: (F, V, 3) metres, any frame. rotmats: (F, K, 3, 3) and betas: (S,), a first guess;
    a frame starts from each bone's own rigid fit where that lies nearer.

    Raises:
        InputError: the vertices are not of this body.
    """
    V, K, F = len(body.v_template), len(body.parents), len(vertices)
    if vertices.ndim != 3 or vertices.shape[1:] != (V, 3) or not F:
        raise InputError(
            f"vertices are {vertices.shape}; expected (F, {V}, 3) of this body: give the bundle "
            "that made them"
        )
    guess = np.tile(np.eye(3), (F, K, 1, 1))
    if rotmats is not None:  # float32 is orthonormal to 1e-7 only
        guess[:] = rot6d_to_rotmat(rotmat_to_rot6d(rotmats.astype(np.float64)))
    shape = np.zeros(body.num_betas) if betas is None else betas.astype(np.float64)
    model = BodyModel(body)
    some = np.unique(np.linspace(0, F - 1, min(F, SHAPE_FRAMES)).round().astype(int))
    shape = _Frames(model, vertices[some]).fit_shape(shape, guess[some])
    fits = []
    for begin in range(0, F, CHUNK):
        frames = _Frames(model, vertices[begin : begin + CHUNK])
        pose = frames.fit_pose(shape, frames.start(shape, guess[begin : begin + CHUNK]))
        residual = 1e3 * frames.residuals(shape, pose)
        transl = pose.transl + frames.middle
        fits.append((pose.rotmats, transl, residual.mean(1), residual.max(1)))
    turns, transl, mean, largest = (np.concatenate(parts) for parts in zip(*fits, strict=True))
    return Fit(turns, shape, transl, mean, largest)


class _Frames:
    """The vertices of some frames, each about its own middle, and the body to fit to them."""

    def __init__(self, model: BodyModel, vertices: Float32) -> None:
        self._model, self._body, self._vertices = model, model.body, vertices
        self._weights = model.body.lbs_weights.astype(np.float64)
        self._weights /= self._weights.sum(1, keepdims=True)
        self.middle: Float64 = vertices.mean(1, dtype=np.float64)

    def start(self, shape: Float64, guess: Float64) -> Pose:
        """The guess, or each bone's own fit in frames where that lies nearer."""
        sums = self._sums(shape, guess)
        own, given = pose_solver.bones_apart(sums), pose_solver.placed(sums, guess)
        return own.where(pose_solver.squares(sums, own) < pose_solver.squares(sums, given), given)

    def fit_pose(self, shape: Float64, pose: Pose) -> Pose:
        """The best poses near `pose` for a shape.

        Pose blend shapes are held while a pose is sought, and follow it from round to round for as
        long as that brings the body nearer.
        """
        sums = self._sums(shape, pose.rotmats)
        if not self._body.posedirs.shape[-1]:
            return pose_solver.refine(sums, pose)
        squares = pose_solver.squares(sums, pose)
        for _ in range(BLEND_ROUNDS):
            trial = pose_solver.refine(sums, pose)
            there = self._sums(shape, trial.rotmats)
            now = pose_solver.squares(there, trial)
            better = now < squares
            if not (squares - now > BLENDED * squares).any():
                break
            pose = trial.where(better, pose)
            sums = there if better.all() else self._sums(shape, pose.rotmats)
            squares = np.where(better, now, squares)
        return pose

    def fit_shape(self, shape: Float64, guess: Float64) -> Float64:
        """The best betas where each frame takes its best pose (variable projection)."""
        pose = self.start(shape, guess)
        best, rms = shape, np.inf
        for _ in range(ROUNDS):
            pose = self.fit_pose(shape, pose)
            step, now = self._shape_step(shape, pose)
            if now > rms:  # the last step led away
                break
            settled = rms - now < SETTLED_M
            best, rms = shape, now
            if settled:
                break
            shape = shape + step
        return best

    def _shape_step(self, shape: Float64, pose: Pose) -> tuple[Float64, float]:
        """A step of the betas (S,), and the root mean square residual (m) before it.

        Gauss-Newton with the poses eliminated: of each frame's derivative by the betas only that
        part counts which its pose cannot follow.
        """
        S, (F, V, _) = len(shape), self._vertices.shape
        sums = self._sums(shape, pose.rotmats)
        units = np.concatenate([shape[None], shape + np.eye(S)])
        prior = F * V * PRIOR_M**2
        normal, pull, squares = prior * np.eye(S), -prior * shape, 0.0
        for f in range(F):
            made = self._model.pose(np.repeat(pose.rotmats[f : f + 1], S + 1, 0), units)
            made = made.astype(np.float64)
            columns = np.moveaxis(made[1:] - made[0], 0, -1)
            apart = (self._vertices[f] - self.middle[f] - pose.transl[f] - made[0]).reshape(-1)
            cross, answer = pose_solver.answers(sums, pose, f, columns)
            columns = columns.reshape(-1, S)
            normal += columns.T @ columns - cross.T @ answer
            pull += columns.T @ apart
            squares += apart @ apart
        return np.linalg.solve(normal, pull), float(np.sqrt(squares / (F * V)))

    def residuals(self, shape: Float64, pose: Pose) -> Float64:
        """(F, V) metres between the vertices and those the body makes."""
        betas = np.tile(shape, (len(pose.transl), 1))
        made = self._model.pose(pose.rotmats, betas, pose.transl + self.middle)
        return np.linalg.norm(made.astype(np.float64) - self._vertices, axis=2)

    def _sums(self, shape: Float64, rotmats: Float64) -> Sums:
        body = self._body
        shaped = body.v_template + body.shapedirs.astype(np.float64) @ shape
        rest = shaped[None]
        if body.posedirs.shape[-1]:
            feature = (rotmats[:, 1:] - np.eye(3)).reshape(len(rotmats), -1)
            rest = shaped + np.einsum("vcp,fp->fvc", body.posedirs, feature, optimize=True)
        joints = body.J_regressor.astype(np.float64) @ shaped
        targets = self._vertices - self.middle[:, None]
        return pose_solver.contract(self._weights, rest, joints, body.parents, targets)
