"""Random body poses: motion capture, widened, because most of the clips are of walking.

Rotation vectors (B, 24, 3) in SMPL's frame (y up, the rest pose faces +z, the person's left is +x).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton

SMPL24 = get_skeleton("smpl24")
MIRROR = torch.arange(24)
for _left, _right in SMPL24.flip:
    MIRROR[_left], MIRROR[_right] = _right, _left


def _indices(*names: str) -> list[int]:
    return [SMPL24.index(name) for name in names]


LEGS = [
    _indices(*(f"{s}_{j}" for j in ("hip", "knee", "ankle", "foot"))) for s in ("left", "right")
]
ARMS = [
    _indices(*(f"{s}_{j}" for j in ("collar", "shoulder", "elbow", "wrist", "hand")))
    for s in ("left", "right")
]
SPINE = _indices("spine1", "spine2", "spine3", "neck", "head")
# standard deviation of added noise, radians; sampled once a joint and clipped to the limits
NOISE = torch.full((24,), 0.15)
NOISE[_indices("pelvis", "left_collar", "right_collar", "spine1", "spine2", "spine3")] = 0.07
NOISE[ARMS[0][1:3] + ARMS[1][1:3] + _indices("head")] = 0.22


@dataclass(frozen=True)
class Motion:
    """Frames of motion capture, all facing +z: poses (N, 24, 3), odds (N,), limits (2, 24, 3)."""

    poses: Tensor
    odds: Tensor
    limits: Tensor


def mirror(poses: Tensor) -> Tensor:
    """The same poses seen in a mirror: left and right exchanged, x reflected."""
    return poses[:, MIRROR] * torch.tensor([1.0, -1.0, -1.0])


def load_motion(folder: Path, split: str) -> Motion:
    """The clips of `split` in a folder of `clips.npz` and `index.json`.

    An action is drawn in proportion to the square root of its frames. Two rest-pose differences
    of the retargeted clips are taken out: feet rolled outwards by 0.3 rad and a head bent down by
    0.25 rad, both the median over level walking.

    Raises: InputError when the folder has no such clips.
    """
    try:
        index = json.loads((folder / "index.json").read_text())
        clips = np.load(folder / "clips.npz", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: expected clips.npz and index.json of poses: {error}"
        ) from error
    chosen = [clip for clip in index if clip["split"] == split]
    if not chosen:
        raise InputError(f"{folder}/index.json has no clip whose split is {split!r}")
    arrays = [clips[f"{clip['name']}__poses"].astype(np.float32) for clip in chosen]
    frames: dict[str, int] = {}
    for clip, array in zip(chosen, arrays, strict=True):
        frames[clip["action"]] = frames.get(clip["action"], 0) + len(array)
    odds = [
        np.full(len(array), frames[clip["action"]] ** -0.5, np.float32)
        for clip, array in zip(chosen, arrays, strict=True)
    ]
    poses = torch.from_numpy(np.concatenate(arrays))
    poses[:, 0] = torch.from_numpy(_without_heading(poses[:, 0].numpy()))
    left, right = _indices("left_ankle", "right_ankle")
    poses[:, left, 2] += 0.3
    poses[:, right, 2] -= 0.3
    poses[:, SMPL24.index("head"), 0] -= 0.25
    both = torch.cat([poses, mirror(poses)])[::7]
    limits = torch.quantile(both, torch.tensor([0.002, 0.998]), dim=0)
    limits += 0.15 * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)
    return Motion(poses, torch.from_numpy(np.concatenate(odds)), limits)


def _without_heading(rotvec: np.ndarray) -> np.ndarray:
    """(N, 3) global orientations, turned about the vertical so that all face +z."""
    turn = Rotation.from_rotvec(rotvec)
    facing = turn.apply([0.0, 0.0, 1.0])
    heading = np.arctan2(facing[:, 0], facing[:, 2])
    upright = Rotation.from_rotvec(-heading[:, None] * np.array([0.0, 1.0, 0.0])) * turn
    return np.asarray(upright.as_rotvec(), np.float32)


def _uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def _chosen(rng: torch.Generator, n: int, probability: float) -> Tensor:
    """(n,) of booleans, each true with `probability`."""
    return torch.rand(n, generator=rng) < probability


def _crouch(poses: Tensor, rng: torch.Generator) -> None:
    """Bend hips, knees and back: half squats to sitting, both legs alike or each its own."""
    n = len(poses)
    depth = _uniform(rng, 0, 1, n, 1).repeat(1, 2)
    depth = torch.where(_chosen(rng, n, 0.35)[:, None], _uniform(rng, 0, 1, n, 2), depth)
    for side, leg in enumerate(LEGS):
        sign, bend = 1.0 - 2.0 * side, depth[:, side]
        hip, knee, ankle = leg[:3]
        spread = _uniform(rng, -0.1, 0.7, n)
        twist = _uniform(rng, -0.3, 0.5, n)
        poses[:, hip] = torch.stack([-1.9 * bend, sign * twist, sign * spread], 1)
        poses[:, knee] = 0.0
        poses[:, knee, 0] = (2.1 * bend * _uniform(rng, 0.4, 1.2, n)).clamp(max=2.5)
        poses[:, ankle, 0] -= 0.3 * bend
    lean = _uniform(rng, -0.1, 0.8, n) * depth.mean(1)
    poses[:, SPINE[:3], 0] += 0.3 * lean[:, None]
    poses[:, 0, 0] += lean


def _reach(poses: Tensor, rng: torch.Generator, side: int) -> None:
    """Point one upper arm anywhere it goes (mostly out, up and to the front); bend its elbow."""
    n, sign = len(poses), 1.0 - 2.0 * side
    _, shoulder, elbow, _, _ = ARMS[side]
    direction = torch.randn(n, 3, generator=rng) + torch.tensor([0.5, 0.0, 0.4])
    direction[:, 2] = torch.where(direction[:, 2] < -0.5, -direction[:, 2], direction[:, 2])
    direction = torch.nn.functional.normalize(direction, dim=1)
    # the least rotation of the left arm at rest, (1, 0, 0), onto the direction
    axis = torch.stack([torch.zeros(n), -direction[:, 2], direction[:, 1]], 1)
    angle = torch.atan2(axis.norm(dim=1), direction[:, 0])
    turn = torch.nn.functional.normalize(axis, dim=1) * angle[:, None]
    turn[:, 0] = 0.5 * torch.randn(n, generator=rng)
    poses[:, shoulder] = turn * torch.tensor([1.0, sign, sign])
    poses[:, elbow] = 0.0
    poses[:, elbow, 1] = -sign * _uniform(rng, 0.0, 2.4, n)


def sample_poses(motion: Motion, n: int, rng: torch.Generator, widen: bool = True) -> Tensor:
    """(n, 24, 3) random poses; with `widen`, mirrored, mixed limb by limb, bent and disturbed."""
    poses = motion.poses[torch.multinomial(motion.odds, n, replacement=True, generator=rng)].clone()
    if not widen:
        return poses
    poses = torch.where(_chosen(rng, n, 0.5)[:, None, None], mirror(poses), poses)
    for part in (SPINE, *LEGS, *ARMS):
        rows = _chosen(rng, n, 0.25).nonzero()[:, 0]
        other = torch.randint(n, (len(rows),), generator=rng)
        poses[rows[:, None], part] = poses[other[:, None], part]
    rows = _chosen(rng, n, 0.25)
    crouched = poses[rows]
    _crouch(crouched, rng)
    poses[rows] = crouched
    for side in (0, 1):
        rows = _chosen(rng, n, 0.3)
        reaching = poses[rows]
        _reach(reaching, rng, side)
        poses[rows] = reaching
    strength = _uniform(rng, 0, 1.6, n, 1, 1)
    noisy = poses + strength * NOISE[:, None] * torch.randn(n, 24, 3, generator=rng)
    low, high = torch.minimum(poses, motion.limits[0]), torch.maximum(poses, motion.limits[1])
    return torch.minimum(torch.maximum(noisy, low), high)
