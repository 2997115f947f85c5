"""Fixtures of the SDK's tests. Video and the command line are imported by those that need them: a
GPU's tests run where av is not installed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from blazepose_networks import BlazePose
from numpy.typing import NDArray

from pchmr import Pipeline
from pchmr_engines import engine_from_onnx
from pchmr_engines.bundle import Bundle

if TYPE_CHECKING:
    from command_line import Outcome

Image = NDArray[np.uint8]


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


@pytest.fixture(scope="session")
def load_open(open_bundle: Bundle) -> Callable[..., Pipeline]:
    """`load_open(topology, **options)`: a new pipeline of the open bundle, one thread."""

    def load(
        topology: str = "parallel", bundle: Bundle = open_bundle, **options: object
    ) -> Pipeline:
        return Pipeline.load(
            bundle, topology, **{"backend": "onnxruntime", "threads": 1, **options}
        )

    return load


@pytest.fixture(scope="session")
def pipelines(load_open: Callable[..., Pipeline]) -> Callable[[str], Pipeline]:
    """`pipelines(topology)`: one pipeline each, of two people, which forgot whom it followed."""
    made: dict[str, Pipeline] = {}

    def get(topology: str) -> Pipeline:
        if topology not in made:
            made[topology] = load_open(topology, max_people=2)
        made[topology].reset()
        return made[topology]

    return get


@pytest.fixture(scope="session")
def two_people(demo_frames: list[Image]) -> Image:
    """(994, 1768, 3): a woman who walks past, before a man who jumps."""
    return demo_frames[1]


@pytest.fixture(scope="session")
def walk(assets: Callable[[str], Path]) -> list[Image]:
    """The first six frames of the demo video."""
    from pchmr.media import open_source

    with open_source(assets("demo_video")) as source:
        return [frame.image for frame, _ in zip(source, range(6), strict=False)]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """`command("run", path, ...)`: the command line as its entry point runs it."""
    from command_line import Outcome

    from pchmr.cli.main import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main sets its own
        monkeypatch.setattr(sys, "argv", ["pchmr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        streams = capsys.readouterr()
        return Outcome(int(exit.value.code or 0), streams.out, streams.err)

    return run
