"""Networks that answer what they are told, and a view for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks.hmmr_tf import Omega
from pchmr_training.networks.rotations import rotmat_to_rotvec
from pchmr_training.networks.spin_hmr import MeshParameters
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat
from pchmr_training.view import Crop, View

F64 = torch.float64


class Answers(nn.Module):
    """Stands for a large network: gives what it is told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer, self.scale = answer, nn.Parameter(torch.ones((), dtype=F64))
        self.asked: Tensor

    def forward(self, inputs: Tensor) -> Any:
        self.asked = inputs
        return self.answer(inputs)

    feature = forward


def made_up(rows: int, seed: int = 0) -> MeshParameters:
    draw = torch.Generator().manual_seed(seed)
    rotvec = 0.3 * torch.randn(rows, 24, 3, dtype=F64, generator=draw)
    rotvec[:, 0] = torch.tensor([3.0, 0.2, 0.1])  # y up to y down
    cam = torch.tensor([0.9, 0.0, 0.0]) + 0.1 * torch.randn(rows, 3, dtype=F64, generator=draw)
    betas = torch.randn(rows, 10, dtype=F64, generator=draw)
    return MeshParameters(rotvec_to_rotmat(rotvec), betas, cam)


def view_of(rows: int, frames: int = 1, size: int = 224, **fields: Any) -> View:
    """Crops of 400 px around (900, 300) of full frames of 1280 x 720."""
    scale = 400 / size
    affine = torch.tensor([[scale, 0, 700], [0, scale, 100]], dtype=F64).expand(rows, 2, 3)
    return View(Crop(torch.zeros(rows, 3, size, size), affine), (1280, 720), frames, **fields)


def mesh_stream(name: str, layer: SmplLayer, rows: int, frames: int) -> NetworkMeshStream:
    """The stream of `name` with a network that answers `made_up(rows)` in its own form."""
    given = made_up(rows)
    axis_angle = rotmat_to_rotvec(given.rotmat).flatten(1)
    theta = torch.cat([given.cam, axis_angle, given.betas], 1)
    clips = MeshParameters(*(x.unflatten(0, (-1, frames)) for x in given))
    answers: dict[str, Any] = {
        "hmr_tf": theta,
        "hmmr_tf": Omega(*[theta.unflatten(0, (-1, frames))] * 3),
        "vibe": clips,
    }
    network = Answers(lambda _: answers.get(name, given))
    encoder = Answers(lambda image: torch.zeros(len(image), 2048))
    encoder.resnet_v2_50 = Answers(lambda image: torch.zeros(len(image), 2048))
    return NetworkMeshStream(name, network, layer, "h36m17", encoder=encoder)
