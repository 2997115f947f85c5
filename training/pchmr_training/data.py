"""Motion capture as body poses: clips in the project's own layout, or AMASS's files.

A clip is (T, 24, 3) float32 rotation vectors of SMPL's joints. Hands and face of AMASS's larger
models are left out: SMPL's two hand joints stay at rest.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pchmr_engines.errors import InputError

from .open_default.poses import Motion, mirror

Clip = NDArray[np.float32]
JOINTS, SHARED = 24, 22  # of SMPL; and the first that SMPL-H and SMPL-X have in common with it
MARGIN = 0.15  # radians beyond the range of the clips
EVERY = 10  # where no index names splits, every tenth clip is held out

EXPECTED = (
    "expected a clips.npz with `<clip>__poses` (T, 24, 3), an AMASS .npz with `poses` (T, 72 or "
    "more), or a folder of either"
)


@dataclass(frozen=True)
class Clips:
    """Motion to train on, and motion held out for the figures that are reported."""

    train: list[Clip]
    held_out: list[Clip]


def read_clips(path: Path) -> Clips:
    """The clips of a file or of every .npz below a folder.

    `index.json` beside a clips.npz names its splits, `train` and others; without one every tenth
    clip is held out, of a single clip its last tenth.

    Raises: InputError when there is nothing of either layout, naming what there is.
    """
    if not path.exists():
        raise InputError(f"there is no file or folder {path}; {EXPECTED}")
    files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
    found = {f"{file}:{name}": clip for file in files for name, clip in _clips_of(file)}
    if not found:
        raise InputError(f"{path} holds no body poses; {EXPECTED}")
    training = _training_names(files)
    if training is not None:
        train = [clip for name, clip in found.items() if name.rpartition(":")[2] in training]
        rest = [clip for name, clip in found.items() if name.rpartition(":")[2] not in training]
    elif len(found) == 1:
        (clip,) = found.values()
        cut = max(1, len(clip) - len(clip) // EVERY)
        train, rest = [clip[:cut]], [clip[cut:]]
    else:
        clips = list(found.values())
        train = [clip for i, clip in enumerate(clips) if (i + 1) % EVERY and i + 1 < len(clips)]
        rest = [clip for i, clip in enumerate(clips) if not (i + 1) % EVERY or i + 1 == len(clips)]
    if not sum(map(len, train)) or not sum(map(len, rest)):
        raise InputError(
            f"{path}: {len(train)} clips to train on and {len(rest)} held out; expected frames in "
            "both: name the splits in index.json, or give more motion"
        )
    return Clips(train, rest)


def _clips_of(file: Path) -> Iterator[tuple[str, Clip]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                if key.endswith("__poses"):
                    yield key.removesuffix("__poses"), _clip(arrays[key], f"{file}: {key}")
                elif key == "poses":
                    yield file.stem, _clip(arrays[key], f"{file}: {key}")
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{file} is not readable motion ({error}); {EXPECTED}") from error


def _clip(poses: NDArray[np.floating], name: str) -> Clip:
    if poses.ndim == 2 and poses.shape[1] % 3 == 0:
        poses = poses.reshape(len(poses), -1, 3)
    if poses.ndim != 3 or poses.shape[1] < SHARED or poses.shape[2] != 3:
        raise InputError(f"{name} is {poses.shape}; {EXPECTED}")
    clip = np.zeros((len(poses), JOINTS, 3), np.float32)
    kept = JOINTS if poses.shape[1] == JOINTS else SHARED
    clip[:, :kept] = poses[:, :kept]
    if not np.isfinite(clip).all():
        raise InputError(f"{name} holds values that are not finite: leave the clip out")
    return clip


def _training_names(files: list[Path]) -> set[str] | None:
    """Names of the clips of the split `train`; None where no index stands beside the files."""
    indices = dict.fromkeys(file.with_name("index.json") for file in files)
    names: set[str] | None = None
    for index in filter(Path.is_file, indices):
        try:
            entries = json.loads(index.read_text("utf-8"))
            training = {entry["name"] for entry in entries if entry["split"] == "train"}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{index} does not say which clips to train on ({error!r}); expected a list of "
                '{"name": ..., "split": "train" or another}'
            ) from error
        names = (names or set()) | training
    return names


def as_motion(clips: list[Clip]) -> Motion:
    """Frames to draw poses from, every clip in proportion to the root of its length.

    The heading is left out: each pose stands with its pelvis as the rest pose has it.
    """
    poses = torch.from_numpy(np.concatenate(clips))
    poses[:, 0] = 0
    odds = torch.cat([torch.full((len(clip),), max(len(clip), 1) ** -0.5) for clip in clips])
    return Motion(poses, odds, _limits(poses))


def _limits(poses: Tensor) -> Tensor:
    both = torch.cat([poses, mirror(poses)])
    thinned = both[:: max(1, len(both) // 10_000)]
    limits = torch.quantile(thinned, torch.tensor([0.002, 0.998]), dim=0)
    return limits + MARGIN * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)
