"""The mesh generator G and the lifter L: residual perceptrons over BlazePose landmarks.

The detector's region of interest is taken for a camera of its own, whose axis passes through the
region's centre and whose y axis is the region's own upright. Its frame goes to the full camera by
`turn = R_ray @ R_roi`: R_roi the region's rotation about z, R_ray the least rotation of (0, 0, 1)
onto the ray through the region's centre.

Both take `keypoints: (B, 25, 3) float32` for the landmarks named in `KEYPOINTS`: x, y as that
camera sees them, its focal length over half the region's side, so about -1..1 from edge to edge
(without intrinsics: the crop's own coordinates), and visibility 0..1. Both answer in that camera's
axes: x right, y down, z away, metres.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from pchmr_engines.errors import InputError

KEYPOINTS = (
    "nose",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_pinky",
    "right_pinky",
    "left_index",
    "right_index",
    "left_thumb",
    "right_thumb",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_heel",
    "right_heel",
    "left_foot_index",
    "right_foot_index",
)
JOINTS, LANDMARKS, BETAS = 24, 33, 10


class _Block(nn.Module):
    """Two linear layers around a skip connection (Martinez et al. 2017, without dropout).

    folded: the batch normalisation is already merged into the linear layers, for use.
    """

    def __init__(self, width: int, folded: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers.append(nn.Linear(width, width, bias=folded))
            if not folded:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)

    def fold(self) -> "_Block":
        """The same block, in eval mode, without normalisation layers."""
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        norms = [layer for layer in self.layers if isinstance(layer, nn.BatchNorm1d)]
        folded = _Block(linears[0].out_features, folded=True)
        for i, (linear, norm) in enumerate(zip(linears, norms, strict=True)):
            folded.layers[2 * i] = fuse_linear_bn_eval(linear, norm)
        return folded


class _Trunk(nn.Sequential):
    """(B, 25, 3) keypoints to (B, outputs)."""

    def __init__(self, outputs: int, width: int, blocks: int, folded: bool) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(3 * len(KEYPOINTS), width),
            *(_Block(width, folded) for _ in range(blocks)),
            nn.Linear(width, outputs),
        )


class MeshGenerator(nn.Module):
    """G: keypoints to SMPL pose and shape, the part HMR plays in the paper.

    Returns rot6d: (B, 24, 6), the first two columns of each joint's rotation matrix laid out row by
    row, as SPIN does: `rot6d.reshape(B, 24, 3, 2)`; joint 0 is the global orientation in the frame
    above, that is SMPL's own y-up orientation followed by the half turn diag(1, -1, -1).
    And betas: (B, 10).
    """

    outputs = ("rot6d", "betas")

    def __init__(self, width: int = 512, blocks: int = 2, folded: bool = False) -> None:
        super().__init__()
        self.trunk = _Trunk(6 * JOINTS + BETAS, width, blocks, folded)
        last = self.trunk[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # start at the rest pose, upright before the camera
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[: 6 * JOINTS] = torch.eye(3)[:, :2].reshape(-1).repeat(JOINTS)
            last.bias[3] = -1.0

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        out = self.trunk(keypoints)
        return out[:, : 6 * JOINTS].reshape(-1, JOINTS, 6), out[:, 6 * JOINTS :]


class Lifter(nn.Module):
    """L: keypoints to 3D points, metres, relative to the pelvis (`smpl24` joint 0).

    Returns joints: (B, 24, 3), the `smpl24` joints regressed from the posed mesh, and
    landmarks: (B, 33, 3), the `blazepose33` landmarks regressed from it.
    """

    outputs = ("joints", "landmarks")

    def __init__(self, width: int = 512, blocks: int = 2, folded: bool = False) -> None:
        super().__init__()
        self.trunk = _Trunk(3 * (JOINTS + LANDMARKS), width, blocks, folded)

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        points = self.trunk(keypoints).reshape(-1, JOINTS + LANDMARKS, 3)
        return points[:, :JOINTS], points[:, JOINTS:]


NETWORKS: Mapping[str, type[MeshGenerator] | type[Lifter]] = {
    "generator": MeshGenerator,
    "lifter": Lifter,
}


def save_network(network: MeshGenerator | Lifter, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a trained network for use: batch normalisation merged, float16 safetensors."""
    from safetensors.torch import save_file

    folded = copy.deepcopy(network).eval()
    for i, layer in enumerate(folded.trunk):
        if isinstance(layer, _Block):
            folded.trunk[i] = layer.fold()
    state = {key: tensor.half().contiguous() for key, tensor in folded.state_dict().items()}
    save_file(state, path, {"keypoints": " ".join(KEYPOINTS), **metadata})


def load_network(name: str, path: Path) -> tuple[MeshGenerator | Lifter, dict[str, str]]:
    """The `generator` or `lifter` of a safetensors file, float32, in eval mode; its metadata.

    Raises: InputError when the weights belong to other keypoints than `KEYPOINTS`.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    if metadata.get("keypoints") != " ".join(KEYPOINTS):
        raise InputError(
            f"{path} was trained on the keypoints {metadata.get('keypoints')!r}; "
            f"expected {' '.join(KEYPOINTS)!r}: train it with pchmr_training.open_default.train"
        )
    width = state["trunk.1.weight"].shape[0]
    blocks = len({key.split(".")[1] for key in state if ".layers." in key})
    network = NETWORKS[name](width, blocks, folded=True)
    network.load_state_dict(state)
    return network.eval(), metadata
