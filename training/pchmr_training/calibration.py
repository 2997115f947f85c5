"""The calibration module with learnable A and W (Section 3.3 of Luan et al. 2021).

    module = CalibrationModule.from_body(SmplLayer(body), "h36m17")
    calibrated = module(posed.vertices, source, target, rotmats=rotmats, betas=betas)

`pchmr_kernels.reference` is the same in NumPy, `pchmr_kernels.calibration` the runtime's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pchmr_kernels.reference import THRESHOLDS
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_kernels.weights import SparseWeights, from_dense, initial_weights, pruning_cost_mm

from .bone_transforms import (
    bone_transforms,
    fade_targets,
    fitting_scale,
    joint_weights,
    torso_rotation,
)
from .compensation import SelfRotation, ShapeCompensation
from .smpl import SmplLayer, blend

Floats = NDArray[np.floating[Any]]

BONES_OF = {"coco17": "pose2mesh_coco19", "blazepose33": "blazepose35"}
"""Sets without a pelvis and a neck are calibrated in the ones that add them, exactly."""


@dataclass(frozen=True)
class Options:
    """What of Table 3 is on; the paper's default, but that self-rotation is off.

    non_rigid: stretch bones (I). self_rotation (V): turn bones about themselves.
    shape_compensation (VI): pose blend shapes; None: where the body has them.
    prealign, scale, thresholds: as `pchmr_kernels.reference.calibrate` has them.
    """

    non_rigid: bool = True
    self_rotation: bool = False
    shape_compensation: bool | None = None
    prealign: str = "none"
    scale: str = "none"
    thresholds: tuple[float, float] = THRESHOLDS

    def __post_init__(self) -> None:
        if self.prealign not in ("none", "torso") or self.scale not in ("none", "fit"):
            raise ValueError(
                f"prealign is {self.prealign!r}, scale is {self.scale!r}; expected 'none' or "
                "'torso', 'none' or 'fit'"
            )


class CalibrationModule(nn.Module):
    """Bends a mesh onto a target pose (Eq. 5), differentiable in all of its inputs.

    A is a softmax over the bones that a vertex may follow, W is kept in 0..1 (`project_`). Bone
    transforms are computed in float64, the blend in the type of the vertices about the root.
    """

    support: Tensor

    def __init__(
        self, skeleton: Skeleton, A: Floats, W: Floats, options: Options | None = None
    ) -> None:
        """
        A: (V, K), rows on the simplex; a bone of weight 0 stays out of reach. W: (V, K) in 0..1.

        Raises: ValueError for shapes that do not fit the skeleton's bones.
        """
        super().__init__()
        expected = (len(A), len(skeleton.bones))
        if A.shape != expected or W.shape != expected:
            raise ValueError(
                f"A is {A.shape}, W is {W.shape}; expected {expected} for the bones of "
                f"{skeleton.name}"
            )
        self.skeleton, self.options = skeleton, options or Options()
        most = int((A > 0).sum(1).max(initial=1))
        support = np.argsort(-A, axis=1, kind="stable")[:, :most]
        values, offsets = (torch.tensor(np.take_along_axis(x, support, 1)) for x in (A, W))
        self.register_buffer("support", torch.from_numpy(support))
        self.logits, self.W_support = nn.Parameter(values.log()), nn.Parameter(offsets)
        self.self_rotation: SelfRotation | None = None
        self.shape_compensation: ShapeCompensation | None = None

    @classmethod
    def from_body(
        cls, layer: SmplLayer, skeleton: str, options: Options | None = None
    ) -> "CalibrationModule":
        """A module for targets in `skeleton`, with A and W from the body's skinning.

        Raises: InputError when the body has no regressor for the skeleton.
        """
        options, body = options or Options(), layer.body
        bones = get_skeleton(BONES_OF.get(skeleton, skeleton))
        rest_joints = body.regressor(bones.name) @ body.v_template
        smpl = get_skeleton("smpl24")
        A, W = initial_weights(body.v_template, rest_joints, body.lbs_weights, smpl, bones)
        module = cls(bones, A, W, options).to(layer.v_template.dtype)
        if options.self_rotation:
            module.self_rotation = SelfRotation(layer, len(bones.bones))
        if options.shape_compensation is not False and layer.has_pose_blend_shapes:
            module.shape_compensation = ShapeCompensation(layer, len(bones.bones))
        return module.to(layer.v_template.dtype)

    @property
    def A(self) -> Tensor:
        """(V, K), rows on the simplex: how far a vertex follows a bone."""
        return self._dense(self.logits.softmax(1))

    @property
    def W(self) -> Tensor:
        """(V, K) in 0..1: how far along the bone it lies."""
        return self._dense(self.W_support.clamp(0, 1))

    def _dense(self, values: Tensor) -> Tensor:
        shape = len(self.support), len(self.skeleton.bones)
        return values.new_zeros(shape).scatter(1, self.support, values)

    @torch.no_grad()
    def project_(self) -> None:
        """Bring W back into 0..1, where its gradient lives; call it after each optimiser step."""
        self.W_support.clamp_(0, 1)

    def forward(
        self,
        vertices: Tensor,
        source: Tensor,
        target: Tensor,
        confidence: Tensor | None = None,
        rotmats: Tensor | None = None,
        betas: Tensor | None = None,
    ) -> Tensor:
        """The calibrated mesh, its root where the mesh has it: (B, V, 3), metres.

        vertices: (B, V, 3); source: (B, J, 3), regressed from them; target: (B, J, 3), NaN where
        missing; confidence: (B, J), those of low confidence fade out. rotmats: (B, 24, 3, 3) and
        betas: (B, num_betas): the generator's Theta, which the perceptrons need.

        Raises: ValueError where they are needed and missing.
        """
        options, skeleton = self.options, self.skeleton
        origin = source[:, skeleton.root, None]
        vertices = vertices - origin.to(vertices)
        source, target = (source - origin).double(), target.double()
        weights = joint_weights(target, confidence, options.thresholds)
        target = torch.where(weights[..., None] > 0, target, 0)
        if options.prealign == "torso":
            turn = torso_rotation(source, target, weights, skeleton.torso)
            vertices, source = vertices @ turn.mT.to(vertices), source @ turn.mT
        if options.scale == "fit":
            scale = fitting_scale(source, target, weights, skeleton)
            target = scale[:, None, None] * target
        target = fade_targets(source, target, weights, skeleton)

        psi, t, delta = bone_transforms(source, target, skeleton)
        theta = self._theta(rotmats, betas)
        if self.self_rotation is not None:
            alpha = self.self_rotation(*theta, psi).double()
            psi, t, delta = bone_transforms(source, target, skeleton, alpha)
        A = self.A
        calibrated = blend(vertices, torch.cat([psi, t[..., None]], -1).to(vertices), A)
        if options.non_rigid:
            calibrated = calibrated + (A * self.W) @ delta.to(vertices)
        if self.shape_compensation is not None:
            calibrated = calibrated + self.shape_compensation(*theta, psi, A)
        return calibrated + origin.to(vertices)

    def _theta(self, rotmats: Tensor | None, betas: Tensor | None) -> tuple[Tensor, ...]:
        if self.self_rotation is None and self.shape_compensation is None:
            return ()
        if rotmats is None or betas is None:
            raise ValueError(
                "self-rotation and shape compensation need the generator's pose and shape: give "
                "rotmats (B, J, 3, 3) and betas (B, num_betas), or switch them off in Options"
            )
        return rotmats, betas

    @torch.no_grad()
    def pruned(self, most: int) -> "CalibrationModule":
        """The same module with each vertex's `most` heaviest bones, to be trained further."""
        A, W = (x.double().cpu().numpy() for x in (self.A, self.W))
        heaviest = np.argsort(-A, axis=1, kind="stable")[:, :most]
        kept = np.zeros_like(A)
        np.put_along_axis(kept, heaviest, np.take_along_axis(A, heaviest, 1), 1)
        return self.with_weights(kept / kept.sum(1, keepdims=True), W)

    def with_weights(self, A: Floats, W: Floats) -> "CalibrationModule":
        """A module with other weights, (V, K) each, and these very perceptrons."""
        module = CalibrationModule(self.skeleton, A, W, self.options).to(self.logits)
        module.self_rotation = self.self_rotation
        module.shape_compensation = self.shape_compensation
        return module

    @torch.no_grad()
    def to_sparse(
        self, vertices: Tensor, source: Tensor, target: Tensor, most: int = 4
    ) -> tuple[SparseWeights, NDArray[np.float64]]:
        """The kernels' row-sparse weights, and by how many mm pruning moves each vertex, (B, V).

        vertices: (B, V, 3), source and target: (B, J, 3) of examples; most: bones a vertex, 1 to 8.
        """
        A, W = (x.double().cpu().numpy() for x in (self.A, self.W))
        weights = from_dense(A, W, most)
        root = self.skeleton.root
        target = target - target[:, root, None] + source[:, root, None]
        v, s, t = (x.double().cpu().numpy() for x in (vertices, source, target))
        return weights, pruning_cost_mm(A, W, weights, v, s, t, self.skeleton.bones)
