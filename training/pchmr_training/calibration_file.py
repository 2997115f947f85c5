"""Trained calibration weights on disk: A and A * W by rows, and what body and skeleton they fit.

An .npz of `indices` (V, S) uint8, `values` and `offsets` (V, S) float16, `rest_joints` (J, 3)
float32, `meta` (JSON text), and the perceptrons' weights where there are any. Needs NumPy only.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError
from pchmr_engines.store import npz_bytes, write_atomically
from pchmr_kernels.weights import SparseWeights

Array = NDArray[Any]

SAME_JOINT_M = 2e-3  # a body built on another machine differs by rounding only
STATE = "perceptron."


@dataclass(frozen=True)
class TrainedCalibration:
    """A and A * W for one (body, skeleton) pair.

    skeleton: of the bones; rest_joints: (J, 3) metres, its joints on the body at rest; faces:
    digest of the body's triangles; meta: how it was trained and what that gave; state: weights of
    the perceptrons by name.
    """

    skeleton: str
    weights: SparseWeights
    rest_joints: NDArray[np.float32]
    faces: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def fits(self, faces: Array, rest_joints: Array) -> bool:
        """Whether a body with these triangles (F, 3) and joints at rest (J, 3) is the one meant."""
        return (
            digest_of(faces) == self.faces
            and rest_joints.shape == self.rest_joints.shape
            and bool(np.abs(rest_joints - self.rest_joints).max() < SAME_JOINT_M)
        )


def digest_of(faces: Array) -> str:
    """sha256 of a body's triangles, which fix the order of its vertices."""
    return hashlib.sha256(np.ascontiguousarray(faces, "<i4").tobytes()).hexdigest()


def write_calibration(path: Path, trained: TrainedCalibration) -> None:
    """Write the file whole or not at all; weights are rounded to float16."""
    meta = {**trained.meta, "skeleton": trained.skeleton, "faces": trained.faces}
    weights = trained.weights
    arrays: dict[str, Array] = {
        "indices": weights.indices.astype(np.uint8),
        "values": weights.values.astype(np.float16),
        "offsets": weights.offsets.astype(np.float16),
        "rest_joints": trained.rest_joints.astype(np.float32),
        "meta": np.array(json.dumps(meta)),
        **{STATE + name: value.astype(np.float16) for name, value in trained.state.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, npz_bytes(arrays))


def read_calibration(path: Path | str) -> TrainedCalibration:
    """What `pchmr train calibration` wrote; rows of A sum to 1 again.

    Raises: InputError when it is another or a damaged file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays["meta"]))
        values, offsets = (arrays[name].astype(np.float32) for name in ("values", "offsets"))
        total = values.sum(1, keepdims=True)
        weights = SparseWeights(arrays["indices"].astype(np.int32), values / total, offsets / total)
        state = {
            name.removeprefix(STATE): array.astype(np.float32)
            for name, array in arrays.items()
            if name.startswith(STATE)
        }
        skeleton, faces = meta.pop("skeleton"), meta.pop("faces")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} holds no calibration weights ({error}); expected the output of "
            "pchmr train calibration"
        ) from error
    return TrainedCalibration(skeleton, weights, arrays["rest_joints"], faces, meta, state)
