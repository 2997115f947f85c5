"""Tiny ONNX graphs and bundles, and a cache folder of each test's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_graphs import expected_outputs, make_feed, write_graph

from pchmr_engines import engine_from_onnx, write_bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.manifest import (
    BodyFile,
    Calibration,
    Crop,
    FileRef,
    Graph,
    Manifest,
    Parity,
    Provenance,
    Stage,
)
from pchmr_engines.store import npz_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The tiny graph with a free batch."""
    return write_graph(tmp_path / "tiny.onnx")


@pytest.fixture
def parts(graph: Path) -> tuple[Manifest, dict[str, bytes | Path]]:
    """What `write_bundle` takes to write a bundle of one stage with gates, and a body."""
    feed = make_feed(2)
    parity = {f"inputs/{name}": array for name, array in feed.items()}
    parity |= {f"outputs/{name}": array for name, array in expected_outputs(feed).items()}
    gates = {"y": Parity("px", 1, 1e-6, 1e-4), "z": Parity("mm", 1000, 1e-3, 0.1)}
    stage = Stage(
        name="tiny",
        role="mesh-generator",
        graphs=(Graph("fp32", "stages/tiny.fp32.onnx", parity=gates, notes=("seeded",)),),
        inputs=(TensorSpec("x", ("B", 3, 6, 6), "float32"), TensorSpec("k", ("B", 4), "float32")),
        outputs=(TensorSpec("y", ("B", 2, 6, 6), "float32"), TensorSpec("z", ("B", 4), "float32")),
        provenance=Provenance("seeded", "CC0", exporter={"onnx": onnx.__version__}),
        skeleton="smpl24",
        crop=Crop((6, 6), "rgb", "square"),
        parity_data=FileRef("parity/tiny.npz"),
        macs=1948,
        params=64,
        settings={"threshold": 0.5, "names": ("a", "b")},
    )
    manifest = Manifest(
        name="test",
        topologies=("serial", "parallel"),
        stages=(stage,),
        body=BodyFile("body.npz", Provenance("seeded", "CC0")),
        calibrations=(Calibration("smpl24", "smpl24/"),),
    )
    body = npz_bytes({"faces": np.zeros((4, 3), np.int32)})
    files = {"stages/tiny.fp32.onnx": graph, "parity/tiny.npz": npz_bytes(parity), "body.npz": body}
    return manifest, files


@pytest.fixture
def bundle_folder(tmp_path: Path, parts: tuple[Manifest, dict[str, bytes | Path]]) -> Path:
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle", *parts).root


@pytest.fixture
def engine_of(graph: Path) -> Callable:
    """`engine_of(backend)`: the tiny graph on one thread."""
    return lambda backend: engine_from_onnx(graph, backend, threads=1)
