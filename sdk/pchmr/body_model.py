"""The forward pass of a body in SMPL's format (Loper et al. 2015), on the native blend kernel."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_kernels import body as kernels
from pchmr_kernels.body import Joints, Regressor, pack_basis
from pchmr_kernels.geometry import forward_kinematics
from pchmr_kernels.weights import MOST_BONES, from_dense

from .body_file import Body
from .compiled import Compiled, NotCompiled

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class BodyModel:
    """Poses a body and regresses joints from the posed mesh. Not thread-safe: `joints` are those of
    the last `pose`.

    The kinematic chain runs in float64, everything of V vertices in float32: 1e-6 m from a float64
    run.
    """

    def __init__(self, body: Body, threads: int = 1) -> None:
        self.body = body
        self._threads = threads
        V, J = body.lbs_weights.shape
        blends = [body.shapedirs, body.posedirs.reshape(V, 3, -1)]
        basis = np.concatenate([body.v_template[..., None], *blends], 2).transpose(2, 0, 1)
        shaped = basis[: 1 + body.num_betas].astype(np.float64)
        rest = np.einsum("jv,nvc->njc", body.J_regressor.astype(np.float64), shaped)
        self._pose = Joints(body.parents, rest, pose_blends=body.posedirs.size > 0)
        bones = int((body.lbs_weights > 0).sum(1).max())
        self._weights = (
            from_dense(body.lbs_weights, max_per_vertex=bones) if bones <= MOST_BONES else None
        )
        self._basis = basis if self._weights is None else pack_basis(basis)
        self._regressors: dict[tuple[str, ...], Regressor] = {}
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
        transforms, coefficients, self.joints = self._pose(rotmats, betas, transl)
        return self._skin(coefficients, transforms, out)

    def compile(self, into: Compiled, rotmats: Float64, betas: Float64) -> tuple[Float32, Float64]:
        """Record `pose`; where it leaves the vertices and the joints. Raises: NotCompiled."""
        if self._weights is None:
            raise NotCompiled("a body of many bones a vertex")
        V, J = self.body.lbs_weights.shape
        transforms = into.array(J, 3, 4, dtype=np.float32)
        coefficients = into.array(self._pose.terms, dtype=np.float32)
        joints = into.array(J, 3)
        out = transforms, coefficients, joints
        vertices = into.array(V, 3, dtype=np.float32)
        into.call("pose_body_f64", *self._pose.arguments(rotmats, betas, *out))
        into.call(
            "skin_f32",
            *(self._weights.as_c, into.people, J, self._pose.terms, coefficients, self._basis),
            *(transforms, vertices, self._threads),
        )
        return vertices, joints

    def turned_pose_offsets(self, rotmats: Array, other: Array) -> Float32:
        """(B, V, 3) metres: pose blend shapes of the pose `other` less those of `rotmats`, both
        (B, J, 3, 3), turned as skinning turns those of `rotmats`."""
        B, J = len(rotmats), len(self.body.parents)
        change = (other - rotmats)[:, 1:].reshape(B, -1)
        coefficients = np.zeros((B, self._pose.terms), np.float32)  # neither template nor shape
        coefficients[:, -change.shape[1] :] = change
        turns, _ = forward_kinematics(rotmats, np.zeros((B, J, 3)), self.body.parents)
        return self._skin(coefficients, turns.astype(np.float32), None)

    def regressor(self, *skeletons: str) -> Regressor:
        """What gives joints (B, N, 3) of a skeleton, or of several, one after the other, from posed
        vertices (B, V, 3); made once, in some milliseconds.

        Raises: InputError when the body has no regressor for one.
        """
        if skeletons not in self._regressors:
            rows = np.concatenate([self.body.regressor(name) for name in skeletons])
            self._regressors[skeletons] = Regressor(rows)
        return self._regressors[skeletons]

    def regress(self, skeleton: str, vertices: Float32) -> Float32:
        """Joints (B, J, 3) of a skeleton from posed vertices (B, V, 3). Raises: as `regressor`."""
        return self.regressor(skeleton)(vertices)

    def _skin(self, coefficients: Float32, transforms: Float32, out: Float32 | None) -> Float32:
        if self._weights is not None:
            return kernels.skin(
                *(coefficients, self._basis, transforms, self._weights, out, self._threads)
            )
        # More bones a vertex than the kernel takes: the dense product, v = sum_j w_j (R_j v + t_j).
        vertices = np.einsum("bn,nvc->bvc", coefficients, self._basis, optimize=True)
        blended = np.einsum("vj,bjrc->bvrc", self.body.lbs_weights, transforms, optimize=True)
        posed = (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3]
        if out is None:
            return posed.astype(np.float32)
        out[...] = posed
        return out
