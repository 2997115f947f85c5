"""Layers of TensorFlow's slim, with its names and weight layouts; activations are NCHW inside."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, linear


def scope(**parts: nn.Module) -> nn.ModuleDict:
    """A variable scope: named parts below one name."""
    return nn.ModuleDict(parts)


class Conv(nn.Module):
    """A convolution; weights (height, width, inputs, outputs), then a norm or biases, then ReLU.

    Pads half the kernel on every side, which is what slim does also where it strides.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        norm_eps: float | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.relu = stride, relu
        self.weights = matrix(kernel, kernel, inputs, outputs)
        self.biases: nn.Parameter | None = None
        if norm_eps is None:
            self.biases = nn.Parameter(torch.zeros(outputs))
        else:
            self.BatchNorm = Norm(outputs, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights.permute(3, 2, 0, 1)
        x = conv2d(x, weights, self.biases, self.stride, self.weights.shape[0] // 2)
        x = self.BatchNorm(x) if self.biases is None else x
        return torch.relu(x) if self.relu else x


class Norm(nn.Module):
    """Batch norm over the channels of (B, C, H, W)."""

    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.moving_mean, self.moving_variance
        return batch_norm(x, mean, variance, self.gamma, self.beta, self.training, 0.003, self.eps)


class Linear(nn.Module):
    """A fully connected layer; weights (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weights = matrix(inputs, outputs)
        self.biases = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weights.T, self.biases)


class Regressor(nn.Module):
    """`3D_module` of HMR: corrects an estimate (..., outputs) three times, from (..., 2048)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.fc1 = Linear(2048 + outputs, 1024)
        self.fc2 = Linear(1024, 1024)
        self.fc3 = Linear(1024, outputs)
        self.dropout = nn.Dropout(0.5)

    def forward(self, feature: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The estimates after one, two and three corrections."""
        estimates = [start]
        for _ in range(3):
            state = torch.cat((feature, estimates[-1]), -1)
            state = self.dropout(torch.relu(self.fc1(state)))
            state = self.dropout(torch.relu(self.fc2(state)))
            estimates.append(estimates[-1] + self.fc3(state))
        return estimates[1], estimates[2], estimates[3]


def matrix(*shape: int) -> nn.Parameter:
    """Weights with the outputs last, Glorot's uniform start."""
    weights = torch.empty(*shape)
    area = weights[..., 0, 0].numel()
    bound = (6 / (area * (shape[-2] + shape[-1]))) ** 0.5
    return nn.Parameter(nn.init.uniform_(weights, -bound, bound))
