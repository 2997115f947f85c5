"""The forward pass of a body in SMPL's format (Loper et al. 2015), on the native blend kernel."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_kernels import native
from pchmr_kernels.geometry import forward_kinematics
from pchmr_kernels.weights import MOST_BONES, from_dense

from .body_file import Body

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class BodyModel:
    """Poses a body and regresses joints from the posed mesh. Not thread-safe: it reuses buffers.

    The kinematic chain runs in float64, everything of V vertices in float32: 1e-6 m from a float64
    run. Repeated betas are shaped once.
    """

    def __init__(self, body: Body, threads: int = 1) -> None:
        self.body = body
        self._threads = threads
        V, J = body.lbs_weights.shape
        self._template = body.v_template.reshape(-1)
        self._shapedirs = np.ascontiguousarray(body.shapedirs.reshape(3 * V, -1).T)
        self._posedirs = np.ascontiguousarray(body.posedirs.reshape(3 * V, -1).T)
        rest = body.J_regressor.astype(np.float64)
        self._joint_template = rest @ body.v_template
        self._joint_dirs = np.einsum("jv,vcb->bjc", rest, body.shapedirs).reshape(-1, 3 * J)
        bones = int((body.lbs_weights > 0).sum(1).max())
        self._weights = (
            from_dense(body.lbs_weights, max_per_vertex=bones) if bones <= MOST_BONES else None
        )
        self._betas = np.full((0, body.num_betas), np.nan)
        self._shaped: Float32 = np.empty((0, V, 3), np.float32)
        self._rest_joints: Float64 = np.empty((0, J, 3))
        self._regressors: dict[str, tuple[npt.NDArray[np.int64], Float32]] = {}
        self.joints: Float64 = np.empty((0, J, 3))

    def pose(
        self,
        rotmats: Array,
        betas: Array,
        transl: Array | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Vertices (B, V, 3) float32, metres; the kinematic joints are then in `joints` (B, J, 3).

        rotmats: (B, J, 3, 3), each joint's rotation to its parent, the global one first, which
        turns the body about its pelvis joint and not about the origin; betas: (B, num_betas);
        transl: (B, 3) metres, added to vertices and joints; out: where to write, contiguous.

        Raises: ValueError for shapes that do not fit.
        """
        J = len(self.body.parents)
        if rotmats.ndim != 4 or rotmats.shape[1:] != (J, 3, 3):
            raise ValueError(f"rotmats is {rotmats.shape}; expected (B, {J}, 3, 3)")
        B = len(rotmats)
        if betas.shape != (B, self.body.num_betas):
            raise ValueError(f"betas is {betas.shape}; expected ({B}, {self.body.num_betas})")
        self._shape(betas)
        vertices = self._shaped
        if len(self._posedirs):
            # Pose blend shapes follow R - I of every joint but the root.
            feature = (rotmats[:, 1:] - np.eye(3)).reshape(B, len(self._posedirs))
            vertices = vertices + (feature.astype(np.float32) @ self._posedirs).reshape(
                vertices.shape
            )
        transforms, self.joints = forward_kinematics(rotmats, self._rest_joints, self.body.parents)
        if transl is not None:
            self.joints += transl[:, None]
            transforms[..., 3] += transl[:, None]
        return self._skin(vertices, transforms, out)

    def turned_pose_offsets(self, rotmats: Array, other: Array) -> Float32:
        """(B, V, 3) metres: pose blend shapes of the pose `other` less those of `rotmats`, both
        (B, J, 3, 3), turned as skinning turns those of `rotmats`."""
        B, J = len(rotmats), len(self.body.parents)
        change = (other - rotmats)[:, 1:].reshape(B, -1).astype(np.float32) @ self._posedirs
        turns, _ = forward_kinematics(rotmats, np.zeros((B, J, 3)), self.body.parents)
        return self._skin(change.reshape(B, -1, 3), turns, None)

    def regress(self, skeleton: str, vertices: Float32) -> Float32:
        """Joints (B, N, 3) of `skeleton` from posed vertices (B, V, 3).

        Raises: InputError when the body has no regressor for it.
        """
        if skeleton not in self._regressors:
            regressor = self.body.regressor(skeleton)
            used = np.flatnonzero(regressor.any(0))
            self._regressors[skeleton] = used, np.ascontiguousarray(regressor[:, used])
        used, rows = self._regressors[skeleton]
        return rows @ vertices.take(used, axis=1)

    def _shape(self, betas: Array) -> None:
        if np.array_equal(betas, self._betas):
            return
        self._betas = betas.astype(np.float64)
        shaped = betas.astype(np.float32) @ self._shapedirs + self._template
        self._shaped = shaped.reshape(len(betas), *self.body.v_template.shape)
        offsets = self._betas @ self._joint_dirs
        self._rest_joints = self._joint_template + offsets.reshape(-1, *self._joint_template.shape)

    def _skin(self, vertices: Float32, transforms: Float64, out: Float32 | None) -> Float32:
        if self._weights is not None:
            return native.blend(
                vertices,
                transforms.astype(np.float32),
                self._weights,
                out=out,
                threads=self._threads,
            )
        # More bones a vertex than the kernel takes: the dense product, v = sum_j w_j (R_j v + t_j).
        blended = np.einsum("vj,bjrc->bvrc", self.body.lbs_weights, transforms, optimize=True)
        posed = (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3]
        if out is None:
            return posed.astype(np.float32)
        out[...] = posed
        return out
