"""Fixtures of the SDK's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from blazepose_networks import BlazePose

from pchmr_engines import engine_from_onnx


@pytest.fixture(scope="session")
def blazepose(assets: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> BlazePose:
    """The trained networks on ONNX Runtime, one thread."""
    import onnx

    from pchmr_export.blazepose import build_detector, build_landmark

    folder = tmp_path_factory.mktemp("blazepose")
    engines = []
    for network in (build_detector(), build_landmark("full", heatmaps=True)):
        path = folder / f"{network.model.graph.name}.onnx"
        onnx.save(network.model, str(path))
        engines.append(engine_from_onnx(path, backend="onnxruntime", threads=1))
    return BlazePose(*engines)
