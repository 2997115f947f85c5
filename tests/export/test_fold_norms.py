"""Norms are folded where that changes nothing, and stay where their product is read elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pchmr_engines import engine_from_onnx
from pchmr_engines.engine import TensorSpec
from pchmr_export.onnx_graph import export_graph

IMAGE = (TensorSpec("x", ("B", 3, 8, 8), "float32"),)


class Net(nn.Module):
    """Convolutions and norms with random statistics, put together by `forward`."""

    def __init__(self, forward: Callable[["Net", Tensor], Tensor], affine: bool) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.plain, self.biased = nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3, padding=1)
        self.turned = nn.Parameter(torch.empty(3, 3, 3, 3))
        self.norm, self.other = nn.BatchNorm2d(3, affine=affine), nn.BatchNorm2d(3, affine=affine)
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + ("var" in name))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


FORMS: dict[str, tuple[Callable[[Net, Tensor], Tensor], int]] = {
    "without a bias": (lambda net, x: net.norm(net.plain(x)), 0),
    "with a bias": (lambda net, x: net.norm(net.biased(x)), 0),
    "in a row": (lambda net, x: net.other(net.plain(net.norm(net.biased(x)))), 0),
    "weights turned": (
        lambda net, x: net.norm(conv2d(x, net.turned.permute(3, 2, 0, 1), net.biased.bias)),
        0,
    ),
    "weights turned, counted from the end": (
        lambda net, x: net.norm(conv2d(x, net.turned.permute(-1, -2, 0, 1), net.biased.bias)),
        0,
    ),
    "before a product": (lambda net, x: net.plain(net.norm(x)), 1),
    "product read twice": (lambda net, x: net.norm(y := net.biased(x)) + y, 1),
    "weights read twice": (lambda net, x: net.norm(net.biased(x)) + net.biased(2 * x), 1),
    "norm read twice": (lambda net, x: net.norm(net.biased(x)) + net.norm(x), 1),
}
"""What a network does, and how many norms are left of it in the graph."""


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_the_graph_is_the_network(name: str, affine: bool, tmp_path: Path) -> None:
    forward, left = FORMS[name]
    net = Net(forward, affine).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    path = export_graph(net, IMAGE, ["y"], tmp_path / "net.onnx").path
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("BatchNormalization") == left
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = engine_from_onnx(path, "onnxruntime", threads=1).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(found, net(x).detach(), rtol=1e-5, atol=1e-5)
    for key, value in net.state_dict().items():  # the user's own is as it was
        assert torch.equal(value, before[key])
