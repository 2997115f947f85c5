"""G and L as ONNX: what is shipped is what its weights give, on the runtime that will run it."""

from pathlib import Path

import numpy as np
import pytest

import pchmr_export
import pchmr_training
from pchmr_export.open_networks import LARGE, export_network
from pchmr_training.open_default.networks import KEYPOINTS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHIPPED = Path(pchmr_export.__file__).parent / "data"
WEIGHTS = Path(pchmr_training.__file__).parent / "data"
TOLERANCE = 5e-5  # float32 sums in another order; rot6d is about 1, the rest in metres
networks = pytest.mark.parametrize("name", ["generator", "lifter"])


def run(model: bytes, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"keypoints": keypoints}), strict=True))


@networks
def test_shipped_graph_is_the_export_of_the_shipped_weights(name: str) -> None:
    model, parity = export_network(name, WEIGHTS)
    keypoints = parity["inputs/keypoints"]
    shipped = run((SHIPPED / f"{name}.onnx").read_bytes(), keypoints)
    for key, value in run(model.SerializeToString(), keypoints).items():
        np.testing.assert_allclose(value, shipped[key], atol=TOLERANCE)
        np.testing.assert_allclose(value, parity[f"outputs/{key}"], atol=TOLERANCE)
    with np.load(SHIPPED / f"{name}.parity.npz") as stored:
        assert set(stored.files) == set(parity)
        for key in stored.files:
            np.testing.assert_allclose(stored[key], parity[key], atol=TOLERANCE)


@networks
@pytest.mark.parametrize("batch", [1, 3])
def test_answer_does_not_depend_on_the_batch(name: str, batch: int) -> None:
    keypoints = np.load(SHIPPED / f"{name}.parity.npz")["inputs/keypoints"]
    graph = (SHIPPED / f"{name}.onnx").read_bytes()
    whole = run(graph, keypoints)
    for key, value in run(graph, keypoints[:batch]).items():
        np.testing.assert_allclose(value, whole[key][:batch], atol=TOLERANCE)


@networks
def test_shipped_graph_names_its_keypoints_and_is_small(name: str) -> None:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(metadata["keypoints"].split()) == KEYPOINTS
    assert len(metadata["body"]) == 64  # the sha256 of the body it was trained on
    assert (SHIPPED / f"{name}.onnx").stat().st_size < 6e6
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) >= LARGE:
            assert tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64)
