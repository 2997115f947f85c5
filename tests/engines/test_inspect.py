"""What `pchmr inspect` and `pchmr verify` say of precisions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pchmr_engines import cli, verify, write_bundle
from pchmr_engines.build_cli import build
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import Graph
from pchmr_engines.verify import Gate

app = typer.Typer()
app.command("verify")(cli.verify)
app.command("inspect")(cli.inspect)
app.command("build")(build)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def two_precisions(tmp_path: Path, parts) -> Path:
    """The bundle with a second graph, which was judged otherwise than by its gates."""
    manifest, files = parts
    (stage,) = manifest.stages
    lower = Graph("fp16", "stages/tiny.fp16.onnx", parity=stage.graphs[0].parity, notes=("judged",))
    stages = (replace(stage, graphs=(*stage.graphs, lower)),)
    files = {**files, lower.file: files["stages/tiny.fp32.onnx"]}
    return write_bundle(tmp_path / "two", replace(manifest, stages=stages), files).root


def test_the_worst_gate_of_float32_and_how_the_rest_was_judged(two_precisions) -> None:
    out = invoke("inspect", two_precisions).stdout
    rows = [line.split() for line in out.splitlines()]
    size = f"{(two_precisions / 'stages/tiny.fp32.onnx').stat().st_size / 1e6:.2f}"
    assert ["tiny", "mesh-generator", "fp32", *("y", "1e-06", "px"), "0.0", size] not in rows
    assert ["tiny", "mesh-generator", "fp32", *("z", "0.001", "mm"), "0.0", size] in rows
    assert ["fp16", "judged", size] in rows
    assert ["tiny", "x", "(B,", "3,", "6,", "6)", "y", "(B,", "2,", "6,", "6)"] in rows


@pytest.mark.parametrize(("precision", "told"), [("fp32", False), ("fp16", True)])
def test_fp16_on_a_cpu_is_called_float32(precision, told, two_precisions, monkeypatch) -> None:
    gate = Gate("tiny", "y", "openvino", precision, "px", 0.0, np.float64(0.1), 1.0)
    monkeypatch.setattr(verify, "verify_bundle", lambda *given: (gate,))
    found = invoke("verify", two_precisions, "--precision", precision)
    assert found.exit_code == 0
    assert ("openvino computes fp16 in float32 on a CPU" in found.stderr) is told


@pytest.mark.parametrize("verb", ["verify", "build"])
def test_fp8_on_openvino_is_one_line(verb, tmp_path, parts) -> None:
    manifest, files = parts
    (stage,) = manifest.stages
    lower = Graph("fp8", "stages/tiny.fp8.onnx", parity=stage.graphs[0].parity)
    stages = (replace(stage, graphs=(*stage.graphs, lower)),)
    files = {**files, lower.file: files["stages/tiny.fp32.onnx"]}
    folder = write_bundle(tmp_path / "fp8", replace(manifest, stages=stages), files).root
    found = invoke(verb, folder, "--backend", "openvino", "--precision", "fp8")
    assert isinstance(found.exception, EngineError)
    assert "openvino has no precision 'fp8'; expected one of" in str(found.exception)
    assert "\n" not in str(found.exception)
