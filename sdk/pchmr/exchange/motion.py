"""A person's motion as body parameters at even times: what BVH and SMPL files hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError

from ..bodies import Body, body_from_arrays
from ..geometry import rotmat_to_rotvec, rotvec_to_rotmat
from .ik import Fit, fit_body
from .recording import Recording, Track

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Motion:
    """F frames, `fps` a second; metres, camera frame until `turned`.

    rotmats: (F, K, 3, 3), each joint's rotation to its parent; transl: (F, 3); betas: (S,);
    residual_mean_mm, residual_max_mm: (F,), how far the body's vertices lie from the calibrated
    ones, NaN in frames that were filled in because the person was not seen.
    """

    body: Body
    rotmats: Float64
    betas: Float64
    transl: Float64
    fps: float
    residual_mean_mm: Float64
    residual_max_mm: Float64

    @property
    def mean_mm(self) -> float:
        """Over all vertices and frames."""
        return float(np.nanmean(self.residual_mean_mm))

    @property
    def max_mm(self) -> float:
        """The farthest vertex of all frames."""
        return float(np.nanmax(self.residual_max_mm))

    @property
    def rest_joints(self) -> Float64:
        """(K, 3) joints of the shaped body at rest, metres."""
        shaped = self.body.v_template + self.body.shapedirs.astype(np.float64) @ self.betas
        return self.body.J_regressor.astype(np.float64) @ shaped

    def turned(self, turn: Array) -> Motion:
        """The same motion in axes turned by (3, 3)."""
        root = self.rest_joints[0]
        rotmats = self.rotmats.copy()
        rotmats[:, 0] = turn @ rotmats[:, 0]  # about the root joint, which stays at rest + transl
        transl = (self.transl + root) @ turn.T - root
        return replace(self, rotmats=rotmats, transl=transl)


def body_of(recording: Recording, bundle: str | None = None) -> Body:
    """The body that the vertices are of: from the bundle the results name, or from the one given.

    Raises:
        InputError: the results name none, or the bundle has another body; one with the same faces,
            as of another build, is taken when the user names the bundle.
        BundleError: no such bundle.
    """
    name = bundle or recording.bundle
    if not name:
        raise InputError(
            "the results do not name their bundle: give the one that made them with --bundle"
        )
    loaded = Bundle.load(name)
    arrays, listed = loaded.body(), loaded.manifest.body
    if not np.array_equal(arrays["f"], recording.faces):
        raise InputError(
            f"bundle {name} has another body than the results: give the bundle that made them with "
            "--bundle, or run again"
        )
    if not bundle and (listed is None or listed.sha256 != recording.body_sha256):
        raise InputError(
            f"the results are of an older build of bundle {name}, whose body differs: fit today's "
            f"body with --bundle {name} (what the fit leaves over is told in mm), or run again"
        )
    return body_from_arrays(arrays)


def fit_motion(recording: Recording, body: Body, person: int | None = None) -> Motion:
    """The motion of one person, fitted to their calibrated vertices.

    Raises:
        InputError: the person is not there, or the vertices are not of this body.
    """
    track = recording.track(person)
    K = len(body.parents)
    guess = track.rotmats if track.rotmats.shape[1:] == (K, 3, 3) else None
    betas = track.betas.mean(0) if track.betas.shape[1:] == (body.num_betas,) else None
    return evenly(fit_body(body, track.vertices, guess, betas), body, track, recording.fps)


def evenly(fit: Fit, body: Body, track: Track, fps: float) -> Motion:
    """The fit at even times from the first frame to the last, rotations turned in between."""
    seconds = (track.t_ns - track.t_ns[0]) / 1e9
    at = np.arange(round(seconds[-1] * fps) + 1) / fps
    before = np.clip(np.searchsorted(seconds, at, "right") - 1, 0, max(len(seconds) - 2, 0))
    after = np.minimum(before + 1, len(seconds) - 1)
    gap = np.maximum(seconds[after] - seconds[before], 1e-9)
    share = np.clip((at - seconds[before]) / gap, 0, 1)

    first, last = fit.rotmats[before], fit.rotmats[after]
    turn = rotmat_to_rotvec(first.swapaxes(-1, -2) @ last)
    rotmats = first @ rotvec_to_rotmat(share[:, None, None] * turn)
    transl = fit.transl[before] + share[:, None] * (fit.transl[after] - fit.transl[before])

    nearest = np.where(share < 0.5, before, after)
    filled = (gap * fps > 1.5) & (np.abs(seconds[nearest] - at) * fps > 0.5)
    mean, largest = (
        np.where(filled, np.nan, residual[nearest])
        for residual in (fit.residual_mean_mm, fit.residual_max_mm)
    )
    return Motion(body, rotmats, fit.betas, transl, fps, mean, largest)
