"""A mesh generator of your own in a bundle: any nn.Module that gives vertices and a camera.

    python examples/custom_stage.py [bundle]

Replace `Generator` by GraphCMR, I2L-MeshNet, DecoMR or the next one; one that gives SMPL's pose
says outputs = ["rotmats", "betas", "cam"].
"""

import sys
from pathlib import Path

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    sys.exit(f"{error}: run  pip install 'pchmr[export]'")

from pchmr_export.assemble import export_recipe
from pchmr_export.recipe import recipe_from_tables


class Generator(nn.Module):
    """Crop (B, 3, 224, 224), normalised -> vertices (B, V, 3) metres, cam (B, 3) = s, tx, ty."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.ReLU(), nn.Flatten())
        self.mesh = nn.Sequential(nn.Linear(1568, 16), nn.Tanh(), nn.Linear(16, 3 * 6890))
        self.cam = nn.Sequential(nn.Linear(1568, 3), nn.Tanh())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(image)
        cam = 0.1 * self.cam(code) + torch.tensor([0.9, 0.0, 0.0])
        return self.mesh(code).unflatten(1, (-1, 3)), cam


if __name__ == "__main__":
    generator = {
        "kind": "custom",
        "source": "custom_stage:Generator",  # this file; an .onnx needs no trust
        "takes": {"image": {"size": [224, 224], "crop": "spin"}},
        "outputs": ["vertices", "cam"],
        "settings": {"camera": "perspective"},
    }
    lifter = {"network": "videopose3d_h36m_9", "checkpoint": "seeded"}
    stages = {"generator": generator, "lifter": lifter}
    tables = {"name": "own", "body": {"file": "synthetic"}, "stages": stages}
    recipe = recipe_from_tables(tables, "own", Path(__file__).parent)
    exported = export_recipe(recipe, Path(*sys.argv[1:] or ["bundle"]), trust=True, progress=print)
    print(*exported.bundle.stages)
