"""Small custom networks, recipes of them, and exports that tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pchmr_export import lowering
from pchmr_export.recipe import Recipe, recipe_from_tables
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat

VERTICES = 6890  # of the synthetic body
MODULE = """
import os, time
from pathlib import Path

if marker := os.environ.get("EXPORT_STOPS_AT"):
    Path(marker).touch()
    time.sleep(60)
from export_cases import SmallGenerator as small, Lengthless as lengthless
from export_cases import broken, small_pose2d, small_pose3d, text
"""


class SmallGenerator(nn.Module):
    """As GraphCMR and its like answer: vertices (B, 6890, 3) and cam (B, 3) of an image."""

    def __init__(self, vertices: int = VERTICES, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 16, stride=16)
        self.shape, self.cam = nn.Linear(784, 8), nn.Linear(784, 3)
        for parameter in self.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
        self.basis = nn.Parameter(0.2 * torch.randn(8, 3 * vertices, generator=random))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.conv(image)).flatten(1)
        cam = 0.1 * torch.tanh(self.cam(x)) + torch.tensor([0.9, 0.0, 0.0])
        return (torch.tanh(self.shape(x)) @ self.basis).unflatten(1, (-1, 3)), cam


class SmallJoints(nn.Module):
    """Joints (B, J, 3) of an image, within `spread` of `middle`."""

    def __init__(self, joints: int, middle: tuple[float, ...], spread: tuple[float, ...]) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.conv, self.last = nn.Conv2d(3, 4, 32, stride=32), nn.Linear(196, 3 * joints)
        for parameter in self.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
        self.middle, self.spread = torch.tensor(middle), torch.tensor(spread)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.conv(image)).flatten(1)
        return self.middle + self.spread * torch.tanh(self.last(x)).unflatten(1, (-1, 3))


def small_pose2d() -> nn.Module:
    """Crop pixels and score."""
    return SmallJoints(16, (112.0, 112.0, 0.5), (90.0, 90.0, 0.3))


def small_pose3d() -> nn.Module:
    """Metres."""
    return SmallJoints(17, (0.0, 0.0, 0.0), (0.5, 0.8, 0.3))


class Lengthless(nn.Module):
    """Branches on a value, which no graph can."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return (image, image) if image.sum() > 0 else (image, image + 1)


def broken() -> nn.Module:
    raise ValueError("weights are missing\nand so on")


def text() -> str:
    return "no module"


GENERATOR: dict[str, Any] = {
    "kind": "custom",
    "source": "my_networks:small",
    "outputs": ["vertices", "cam"],
    "takes": {"image": {"size": [224, 224], "crop": "spin"}},
    "settings": {"camera": "weak"},
    "licence": "of the test",
}


def small_recipe(folder: Path, stages: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe of a custom generator, and of what else `stages` says; its module is written."""
    (folder / "my_networks.py").write_text(MODULE)
    tables = {
        "name": "small",
        "body": {"file": "synthetic"},
        "stages": {"generator": GENERATOR | changes, **(stages or {})},
    }
    return recipe_from_tables(tables, "small.toml", folder)


POSE2D: dict[str, Any] = {
    "kind": "custom",
    "source": "my_networks:small_pose2d",
    "outputs": ["keypoints"],
    "takes": GENERATOR["takes"],
    "skeleton": "semgcn16",
    "licence": "of the test",
}
POSE3D = POSE2D | {
    "source": "my_networks:small_pose3d",
    "outputs": ["joints_3d"],
    "skeleton": "h36m17",
}
LIFTER: dict[str, Any] = {"lifter": {"network": "videopose3d_h36m_9", "checkpoint": "seeded"}}
"""The temporal lifter of the recipe whose bundle tests share."""


def seeded(network: str) -> dict[str, str]:
    return {"network": network, "checkpoint": "seeded"}


def few_frames(change: Callable[..., None] = setattr) -> None:
    """Lower precisions are fitted to, and judged by, two frames of the demo video."""
    judge_by = lowering.clips_to_judge_by
    for name in ("clips_to_judge_by", "clips_to_calibrate_on"):
        change(lowering, name, lambda: judge_by(2)[:1])


def example_theta(layer: SmplLayer, rows: int = 2) -> tuple[Tensor, Tensor]:
    """Seeded poses (rows, J, 3, 3) and shapes (rows, num_betas)."""
    random = torch.Generator().manual_seed(0)
    rotvec = 0.4 * torch.randn(rows, len(layer.parents), 3, generator=random)
    return rotvec_to_rotmat(rotvec), torch.randn(rows, layer.body.num_betas, generator=random)
