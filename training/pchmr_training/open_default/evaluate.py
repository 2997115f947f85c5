"""Errors of trained G and L on synthetic views of held-out motion capture.

    python -m pchmr_training.open_default.evaluate --motion MOTION --body BODY.npz --weights FOLDER

Poses are those of the clips of the split `test`, as they are; shapes, cameras and detector noise
are drawn as in training, with a fixed seed. 12 limb joints, neck and head, pelvis-relative.
"""

import argparse
from pathlib import Path

import torch

from ..networks.rotations import rot6d_to_rotmat
from .body_points import BodyPoints, load_arrays
from .metrics import mpjpe, pa_mpjpe
from .networks import JOINTS, load_network
from .poses import SMPL24, load_motion
from .synthesis import synthesise

LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
SCORED = [SMPL24.index(f"{side}_{limb}") for side in ("left", "right") for limb in LIMBS]
SCORED += [SMPL24.index("neck"), SMPL24.index("head")]


@torch.no_grad()
def evaluate(
    motion_folder: Path, body_path: Path, weights: Path, samples: int = 8192, split: str = "test"
) -> dict[str, dict[str, float]]:
    """MPJPE and PA-MPJPE in mm of G and L, and the mean angle of G's rotations in degrees."""
    arrays, _ = load_arrays(body_path)
    body = BodyPoints(arrays)
    motion = load_motion(motion_folder, split)
    batch = synthesise(body, motion, samples, torch.Generator().manual_seed(1), widen=False)
    rot6d, betas = load_network("generator", weights / "generator.safetensors")[0](batch.keypoints)
    joints, _ = load_network("lifter", weights / "lifter.safetensors")[0](batch.keypoints)
    rotations = rot6d_to_rotmat(rot6d)
    points = body(rotations, betas)
    answers = {"G": (points - points[:, :1])[:, :JOINTS], "L": joints}
    truth = batch.points[:, SCORED]
    table = {
        name: {
            "MPJPE mm": 1e3 * mpjpe(answer[:, SCORED], truth).mean().item(),
            "PA-MPJPE mm": 1e3 * pa_mpjpe(answer[:, SCORED], truth).mean().item(),
        }
        for name, answer in answers.items()
    }
    chord = (rotations - batch.rotations).flatten(2).norm(dim=2) / 8**0.5
    angles = torch.rad2deg(2 * torch.asin(chord.clamp(max=1)))
    table["G"] |= {
        "global deg": angles[:, 0].mean().item(),
        "body deg": angles[:, 1:].mean().item(),
    }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("motion", "body", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, row in evaluate(options.motion, options.body, options.weights).items():
        print(name, "  ".join(f"{key} {value:.1f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
