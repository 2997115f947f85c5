"""Joints and landmarks of a posed body straight from 24 rotations and betas, without its mesh.

A point regressed from the posed mesh is linear in the skinning transforms: with U the regressor and
w the skinning weights, sum_v U_mv sum_k w_vk (R_k v + t_k) = sum_k (R_k c_mk + omega_mk t_k), where
c_mk = sum_v U_mv w_vk v and omega_mk = sum_v U_mv w_vk. Both are contracted once; exact.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pchmr_engines.errors import InputError


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of an open body's npz, and the sha256 of the file."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    missing = {"regressor_smpl24", "regressor_blazepose33", "kintree_table"} - set(arrays)
    if missing:
        raise InputError(
            f"{path} has no {', '.join(sorted(missing))}: expected an open body's npz "
            "(body.npz of the bundle open)"
        )
    return arrays, hashlib.sha256(path.read_bytes()).hexdigest()


class BodyPoints(nn.Module):
    """24 joints and 33 landmarks regressed from the posed mesh, for a batch of poses.

    Pose blend shapes are left out: the open body has none.
    """

    rest: Tensor
    rest_dirs: Tensor
    omega: Tensor
    centre: Tensor
    centre_dirs: Tensor
    of_point: Tensor

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()

        def f64(key: str) -> np.ndarray:
            return np.asarray(arrays[key], np.float64)

        def keep(name: str, array: np.ndarray) -> None:
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32))

        template, dirs, joints = f64("v_template"), f64("shapedirs")[..., :10], f64("J_regressor")
        regressor = np.concatenate([f64("regressor_smpl24"), f64("regressor_blazepose33")])
        spread = np.einsum("mv,vk->mkv", regressor, f64("weights"))
        parents = arrays["kintree_table"][0].astype(np.int64)
        self.parents = tuple(int(p) for p in parents[1:])  # of joints 1..23, each before its child

        point, joint = np.nonzero(spread.sum(-1))
        self.joint = joint.tolist()  # of each pair of a point and a joint that moves it
        keep("of_point", np.eye(len(regressor))[point].T)
        keep("rest", joints @ template)
        keep("rest_dirs", np.einsum("jv,vcb->bjc", joints, dirs))
        keep("omega", spread.sum(-1)[point, joint, None])
        keep("centre", (spread @ template)[point, joint])
        keep("centre_dirs", np.einsum("pv,vcb->bpc", spread[point, joint], dirs))

    def forward(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3, 3) rotations, global first, and (B, 10) betas to (B, 57, 3) points, metres."""
        rest = self.rest + torch.tensordot(betas, self.rest_dirs, 1)
        turned, placed = [rotations[:, 0]], [rest[:, 0]]
        for child, parent in enumerate(self.parents, start=1):
            bone = (rest[:, child] - rest[:, parent])[..., None]
            placed.append(placed[parent] + (turned[parent] @ bone)[..., 0])
            turned.append(turned[parent] @ rotations[:, child])
        turn = torch.stack(turned, 1)
        shift = torch.stack(placed, 1) - _apply(turn, rest)
        centre = self.centre + torch.tensordot(betas, self.centre_dirs, 1)
        moved = _apply(turn[:, self.joint], centre) + self.omega * shift[:, self.joint]
        return self.of_point @ moved


def _apply(rotations: Tensor, points: Tensor) -> Tensor:
    """(B, N, 3, 3) rotations of (B, N, 3) points."""
    return (rotations @ points[..., None])[..., 0]
