"""Motion as SMPL parameters in the layout of AMASS: an npz with poses, betas and trans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..geometry import rotmat_to_rotvec
from ..whole import whole_file
from .motion import Motion
from .recording import Recording

TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Camera frame to AMASS's: x right, y away from the camera, z up."""


def write_amass(path: Path | str, motion: Motion, recording: Recording) -> None:
    """One person's motion. F frames, K joints in SMPL's order, S shape components.

    poses: (F, 3 K) float64 rotation vectors, the global one first; trans: (F, 3) metres, z up;
    betas: (S,); gender "neutral"; mocap_framerate (and mocap_frame_rate, as later files have it).
    Besides: residual_mean_mm, residual_max_mm: (F,), from the calibrated vertices to the body's,
    NaN where the person was not seen and the pose is interpolated; body and body_sha256: whose
    betas these are.

    Raises:
        InputError: the place cannot be written to.
    """
    motion = motion.turned(TO_Z_UP)
    rotvecs = rotmat_to_rotvec(motion.rotmats)
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            poses=rotvecs.reshape(len(rotvecs), -1),
            betas=motion.betas,
            trans=motion.transl,
            gender=np.array("neutral"),
            mocap_framerate=np.array(motion.fps),
            mocap_frame_rate=np.array(motion.fps),
            residual_mean_mm=motion.residual_mean_mm,
            residual_max_mm=motion.residual_max_mm,
            body=np.array(recording.bundle),
            body_sha256=np.array(recording.body_sha256),
        )
