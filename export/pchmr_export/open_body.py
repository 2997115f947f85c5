"""Builds the open body: a body model in SMPL's format from MakeHuman's CC0 data.

It has SMPL's 24 joints, file keys and pose semantics, with vertices and faces of its own, ten shape
components, no pose blend shapes, and regressors of the posed mesh for each skeleton in use.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .open_body_landmarks import KNUCKLES
from .open_body_makehuman import read_makehuman
from .open_body_regressors import (
    SMPL,
    pose_random_bodies,
    posed_regressors,
    rest_regressor,
)
from .open_body_rig import bones_of, joined_weights
from .open_body_shape import shape_space, surface

NUM_BETAS = 10
SAMPLES = 300  # random adults behind the shape components
MOST_BONES = 4  # a vertex, as in SMPL


def build_open_body(
    makehuman_folder: Path, progress: Callable[[float], None] = lambda done: None
) -> dict[str, np.ndarray]:
    """The open body's arrays under SMPL's keys, and `regressor_<skeleton>` (N, V), posed mesh.

    makehuman_folder: laid out as mpfb2's `data`, see `open_body_makehuman.required_files`.
    progress: called with the share done, 0..1. The same files give the same body; betas are of unit
    variance among adults, all zero is the mean adult.

    Raises: AssetError when the folder lacks a file.
    """
    source = read_makehuman(makehuman_folder)
    progress(0.2)
    used, faces = surface(source)
    mirror = np.searchsorted(used, source.mirror[used])
    weights = _keep_largest(joined_weights(source, SMPL.joints)[used])
    heads = {joint: bones_of(joint)[0] for joint in SMPL.joints} | KNUCKLES
    space = shape_space(
        source, used, heads, NUM_BETAS, SAMPLES, lambda done: progress(0.2 + 0.5 * done)
    )
    J_regressor = rest_regressor(space, weights, mirror)
    progress(0.75)
    bodies = pose_random_bodies(space, weights, J_regressor)
    regressors = posed_regressors(space, weights, mirror, used, bodies)
    progress(1.0)
    parents = np.array(SMPL.parents, np.int64)
    float32 = {
        "v_template": space.v_template,
        "shapedirs": space.shapedirs,
        "posedirs": np.zeros((len(used), 3, 9 * (len(parents) - 1))),
        "J_regressor": J_regressor,
        "weights": weights,
        **{f"regressor_{skeleton}": rows for skeleton, rows in regressors.items()},
    }
    return {
        **{key: array.astype(np.float32) for key, array in float32.items()},
        # As in SMPL's files, the root's parent is 2^32 - 1.
        "kintree_table": np.stack([parents, np.arange(len(parents))]).astype(np.uint32),
        "f": faces.astype(np.uint32),
        "vert_sym_idxs": mirror.astype(np.int32),
        "bs_style": np.array("lbs"),
        "bs_type": np.array("lrotmin"),
    }


def _keep_largest(weights: np.ndarray) -> np.ndarray:
    """Each row's MOST_BONES largest weights, back to a sum of 1; fewer where that would part a tie
    of left and right on the midline."""
    first_dropped = np.sort(weights, axis=1)[:, -MOST_BONES - 1][:, None]
    kept = np.where(weights > first_dropped, weights, 0)
    return kept / kept.sum(1, keepdims=True)
