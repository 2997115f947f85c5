"""The residual perceptron of Martinez et al. 2017, as SemGCN's repository has it."""

import torch
from torch import Tensor, nn

from .spec import KeypointInput, NetworkSpec


class LinearStage(nn.Module):
    """Two linear layers with their norms around a skip connection; norms come after or before."""

    def __init__(self, width: int, norm_first: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.w2, self.batch_norm2 = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.norm_first, self.dropout = norm_first, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for linear, norm in ((self.w1, self.batch_norm1), (self.w2, self.batch_norm2)):
            if self.norm_first:
                y = linear(self.dropout(torch.relu(norm(y))))
            else:
                y = self.dropout(torch.relu(norm(linear(y))))
        return x + y


class LinearLifter(nn.Module):
    """(B, 32) of 16 joints to (B, 45), metres: 15 joints relative to the root, itself left out."""

    def __init__(
        self, inputs: int = 32, outputs: int = 45, width: int = 1024, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(inputs, width), nn.BatchNorm1d(width)
        self.linear_stages = nn.ModuleList(LinearStage(width, dropout=dropout) for _ in range(2))
        self.w2, self.dropout = nn.Linear(width, outputs), nn.Dropout(dropout)

    def forward(self, keypoints: Tensor) -> Tensor:
        x = self.dropout(torch.relu(self.batch_norm1(self.w1(keypoints))))
        for stage in self.linear_stages:
            x = stage(x)
        return self.w2(x)


SPECS = (
    NetworkSpec(
        "semgcn_linear16",
        LinearLifter,
        KeypointInput("semgcn16", (1, 32)),
        ("pose",),
        skeleton="semgcn16",
        unit="m, root relative, without the root",
        licence="Apache-2.0",
        parameters=4_288_557,
        gmacs=0.0043,
    ),
)
