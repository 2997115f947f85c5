"""BlazePose as a torch module gives what its ONNX graph and the original runtime give."""

import numpy as np
import pytest
import torch

from pchmr_engines.errors import InputError
from pchmr_export.blazepose import BlazePoseNetwork, build_detector, build_landmark
from pchmr_export.blazepose_module import BlazePoseModule

BUILD = {"detector": build_detector, "full": lambda: build_landmark("full", heatmaps=True)}


@pytest.fixture(scope="module", params=BUILD)
def network(request: pytest.FixtureRequest) -> BlazePoseNetwork:
    return BUILD[request.param]()


def test_module_meets_the_gates_of_the_graph(network: BlazePoseNetwork) -> None:
    module = BlazePoseModule(network.model)
    with torch.inference_mode():
        found = module(torch.from_numpy(network.parity["inputs/image"]))
    outputs = dict(zip(module.outputs, found, strict=True))
    for name, gate in network.gates.items():
        off = np.abs(outputs[name].numpy() - network.parity[f"outputs/{name}"]).max()
        assert gate.scale * off <= gate.tolerance


def test_weights_are_called_and_shaped_as_in_the_graph(network: BlazePoseNetwork) -> None:
    state = BlazePoseModule(network.model).state_dict()
    weights = {t.name: tuple(t.dims) for t in network.model.graph.initializer if len(t.dims) == 4}
    assert len(state) == 2 * len(weights)  # and as many biases
    found = sorted(tuple(value.shape) for value in state.values() if value.ndim == 4)
    assert found == sorted(weights.values())


def test_it_can_be_exported_by_torch_with_a_free_batch() -> None:
    network = build_detector()
    module = BlazePoseModule(network.model)
    image = torch.from_numpy(network.parity["inputs/image"])
    program = torch.export.export(
        module, (image,), dynamic_shapes=({0: torch.export.Dim("B")},), strict=False
    )
    with torch.inference_mode():
        (boxes, scores), (row, _) = program.module()(image), program.module()(image[:1])
    torch.testing.assert_close(boxes[:1], row, atol=2e-2, rtol=0)
    assert scores.shape == (2, 2254, 1)


def test_an_unknown_operator_is_refused() -> None:
    network = build_detector()
    network.model.graph.node[0].op_type = "Einsum"
    with pytest.raises(InputError, match=r"operator Einsum: expected a graph of onnx_from_tflite"):
        BlazePoseModule(network.model)
