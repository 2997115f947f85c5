"""What a calibration may have learnt beside A and W (Table 3, V and VI): two-layer perceptrons.

The training side is `pchmr_training.compensation`. Arrays of a body file are called as there,
behind the calibration's prefix and `perceptron.`: `self_rotation.hidden.weight` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pchmr_kernels import native
from pchmr_kernels.weights import SparseWeights

from .bodies import BodyModel
from .geometry import rot6d_to_rotmat

STATE = "perceptron."
SELF_ROTATION, SHAPE_COMPENSATION = "self_rotation", "shape_compensation.perceptron"


@dataclass(frozen=True)
class Perceptron:
    """Theta of the generator and Psi of the bones -> numbers. Layers: weight (in, out), bias."""

    hidden: tuple[np.ndarray, np.ndarray]
    last: tuple[np.ndarray, np.ndarray]

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], name: str) -> Perceptron | None:
        """The perceptron whose arrays begin with `name`, if there is one."""
        if f"{name}.hidden.weight" not in arrays:
            return None
        layers = (
            (arrays[f"{name}.{layer}.weight"].T, arrays[f"{name}.{layer}.bias"])
            for layer in ("hidden", "last")
        )
        return cls(*layers)

    def __call__(self, rotmats: np.ndarray, betas: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """(B, outputs) of rotmats (B, J, 3, 3), betas (B, S) and psi (B, K, 3, 3)."""
        turns = np.concatenate([rotmats, psi], 1)[..., :2].reshape(len(rotmats), -1)
        state = np.concatenate([turns, betas], 1).astype(np.float32)
        (first, bias), (second, last) = self.hidden, self.last
        return np.asarray(np.maximum(state @ first + bias, 0) @ second + last)


@dataclass(frozen=True)
class Perceptrons:
    """self_rotation: radians by which bones turn about themselves. shape: joint rotations of the
    calibrated pose, for whose pose blend shapes the mesh is compensated."""

    model: BodyModel
    weights: SparseWeights
    self_rotation: Perceptron | None = None
    shape: Perceptron | None = None

    @classmethod
    def read(
        cls, arrays: Mapping[str, np.ndarray], prefix: str, model: BodyModel, weights: SparseWeights
    ) -> Perceptrons | None:
        """Those of the calibration `prefix` in a body file, if there are any."""
        names = (f"{prefix}{STATE}{name}" for name in (SELF_ROTATION, SHAPE_COMPENSATION))
        found = [Perceptron.read(arrays, name) for name in names]
        return cls(model, weights, *found) if any(found) else None

    def compensation(self, rotmats: np.ndarray, betas: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """(B, V, 3) metres to add to the calibrated mesh: pose blend shapes of its pose less the
        generator's, turned by the generator's skinning and then by the blended Psi."""
        assert self.shape is not None
        change = self.shape(rotmats, betas, psi).reshape(len(rotmats), -1, 3, 2)
        moved = (rotmats[:, 1:, :, :2] + change).reshape(*change.shape[:2], 6)
        pose = np.concatenate([rotmats[:, :1], rot6d_to_rotmat(moved)], 1)
        turns = np.zeros((*psi.shape[:2], 3, 4), np.float32)
        turns[..., :3] = psi
        return native.blend(self.model.turned_pose_offsets(rotmats, pose), turns, self.weights)
