"""SemGCN (Zhao et al. 2019): graph convolutions over the joints, with learned edge weights."""

from functools import partial

import torch
from torch import Tensor, nn

from pchmr_kernels.skeletons import get_skeleton

from .spec import KeypointInput, NetworkSpec

SKELETON = "semgcn16"
# Joints in this order come in pairs, over which the non-local block pools.
GROUPED = (2, 3, 5, 6, 1, 4, 0, 7, 8, 9, 14, 15, 11, 12, 10, 13)


def edges(skeleton: str) -> list[tuple[int, int]]:
    """(joint, joint) of every joint with itself and its neighbours, sorted: the order of `e`."""
    bones = get_skeleton(skeleton).bones.tolist()
    itself = [(joint, joint) for joint in range(len(get_skeleton(skeleton)))]
    return sorted([*itself, *((a, b) for a, b in bones), *((b, a) for a, b in bones)])


class SemGraphConv(nn.Module):
    """(B, 16, inputs) to (B, 16, outputs); a joint and its neighbours have weights of their own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.edges = edges(SKELETON)
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2, inputs, outputs), 1.414))
        self.e = nn.Parameter(torch.ones(1, len(self.edges)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.tensor(self.edges, device=x.device).unbind(1)
        absent = x.new_full((x.shape[1], x.shape[1]), -9e15)
        adjacency = absent.index_put((rows, columns), self.e[0]).softmax(-1)
        itself = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        own = (adjacency * itself) @ (x @ self.W[0])
        return own + (adjacency * (1 - itself)) @ (x @ self.W[1]) + self.bias


class _GraphConv(nn.Module):
    """A graph convolution, norm over the channels, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gconv, self.bn = SemGraphConv(inputs, outputs), nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.gconv(x).transpose(1, 2)).transpose(1, 2))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gconv1, self.gconv2 = _GraphConv(width, width), _GraphConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gconv2(self.gconv1(x))


class _Attention(nn.Module):
    """Non-local block, concatenation form (Wang et al. 2018), on (B, C, 16) in grouped order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.g = nn.Sequential(nn.Conv1d(width, half, 1), nn.MaxPool1d(2))
        self.theta = nn.Conv1d(width, half, 1)
        self.phi = nn.Sequential(nn.Conv1d(width, half, 1), nn.MaxPool1d(2))
        self.concat_project = nn.Sequential(nn.Conv2d(width, 1, 1, bias=False), nn.ReLU())
        self.W = nn.Sequential(nn.Conv1d(half, width, 1), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        queries, keys = theta.shape[-1], phi.shape[-1]
        pairs = torch.cat(
            (
                theta[..., :, None].expand(-1, -1, -1, keys),
                phi[..., None, :].expand(-1, -1, queries, -1),
            ),
            1,
        )
        share = self.concat_project(pairs)[:, 0] / keys
        return x + self.W((share @ g.transpose(1, 2)).transpose(1, 2))


class _NonLocal(nn.Module):
    """The attention, with the joints brought into grouped order and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The official attribute is a keyword of Python 3.
        self.add_module("nonlocal", _Attention(width))
        self.restored = [GROUPED.index(joint) for joint in range(len(GROUPED))]

    def forward(self, x: Tensor) -> Tensor:
        grouped = x[:, list(GROUPED)].transpose(1, 2)
        return self.get_submodule("nonlocal")(grouped).transpose(1, 2)[:, self.restored]


class SemGCN(nn.Module):
    """(B, 16, 2) to (B, 16, 3), metres, camera axes; take joint 0 off before evaluating."""

    def __init__(self, non_local: bool, width: int = 128, layers: int = 4) -> None:
        super().__init__()

        def attention() -> list[nn.Module]:
            return [_NonLocal(width)] if non_local else []

        self.gconv_input = nn.Sequential(_GraphConv(2, width), *attention())
        self.gconv_layers = nn.Sequential(
            *(part for _ in range(layers) for part in (_Residual(width), *attention()))
        )
        self.gconv_output = SemGraphConv(width, 3)

    def forward(self, keypoints: Tensor) -> Tensor:
        return self.gconv_output(self.gconv_layers(self.gconv_input(keypoints)))


def _spec(name: str, non_local: bool, parameters: int, gmacs: float) -> NetworkSpec:
    return NetworkSpec(
        f"semgcn_{name}",
        partial(SemGCN, non_local),
        KeypointInput(SKELETON, (1, 16, 2)),
        ("pose",),
        skeleton=SKELETON,
        unit="m; the root is regressed too and has to be taken off",
        licence="Apache-2.0",
        parameters=parameters,
        gmacs=gmacs,
    )


SPECS = (
    _spec("nonlocal", True, 434_703, 0.0076),
    _spec("plain", False, 267_343, 0.0048),
)
