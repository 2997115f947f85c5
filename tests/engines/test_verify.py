"""The gates repeat on every backend, and a planted fault fails them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from tiny_graphs import write_graph
from typer.testing import CliRunner

from pchmr_engines import Bundle, cli, write_bundle
from pchmr_engines.backends import AUTO
from pchmr_engines.errors import BundleError
from pchmr_engines.store import npz_bytes, read_npz
from pchmr_engines.verify import greatest_difference, verify_bundle

app = typer.Typer()
app.command("verify")(cli.verify)
app.command("inspect")(cli.inspect)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def faulty_folder(tmp_path: Path, parts) -> Path:
    """The bundle with a graph whose bias is 1 px off."""
    manifest, files = parts
    graph = write_graph(tmp_path / "faulty.onnx", bias=1.0)
    return write_bundle(tmp_path / "f", manifest, {**files, "stages/tiny.fp32.onnx": graph}).root


@pytest.mark.parametrize("backend", AUTO)
def test_gates_pass_on_the_graph_that_was_exported(backend, bundle_folder):
    gates = verify_bundle(Bundle.load(bundle_folder), backend, threads=1)
    assert [(gate.output, gate.unit, gate.passed) for gate in gates] == [
        ("y", "px", True),
        ("z", "mm", True),
    ]
    assert all(gate.backend == backend and gate.precision == "fp32" for gate in gates)


@pytest.mark.parametrize("backend", AUTO)
def test_a_planted_fault_fails(backend, faulty_folder):
    gates = verify_bundle(Bundle.load(faulty_folder), backend, threads=1)
    assert not any(gate.passed for gate in gates)
    assert gates[0].value == pytest.approx(1, abs=1e-4)  # px, as planted
    assert gates[1].value > 100  # mm: the unit's scale counts


def test_nan_fails(bundle_folder, parts, tmp_path):
    data = read_npz(bundle_folder / "parity/tiny.npz")
    data["outputs/z"][0, 0] = np.nan
    files = {**parts[1], "parity/tiny.npz": npz_bytes(data)}
    gates = verify_bundle(write_bundle(tmp_path / "nan", parts[0], files), "onnxruntime")
    assert [gate.passed for gate in gates] == [True, False]
    found = invoke("verify", tmp_path / "nan", "--backend", "onnxruntime", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)[1]["value"] is None


def test_parity_data_without_what_the_gates_need_is_named(bundle_folder, parts, tmp_path):
    data = read_npz(bundle_folder / "parity/tiny.npz")
    del data["outputs/z"]
    files = {**parts[1], "parity/tiny.npz": npz_bytes(data)}
    with pytest.raises(BundleError, match=r"its parity file lacks \['outputs/z'\]"):
        verify_bundle(write_bundle(tmp_path / "less", parts[0], files), "onnxruntime")


def test_a_bundle_without_gates_cannot_be_verified(parts, tmp_path):
    manifest, files = parts
    stage = manifest.stages[0]
    stage = replace(stage, graphs=(replace(stage.graph(), parity={}),), parity_data=None)
    files = {name: content for name, content in files.items() if name != "parity/tiny.npz"}
    written = write_bundle(tmp_path / "b", replace(manifest, stages=(stage,)), files)
    with pytest.raises(BundleError, match=r"'test' stores no outputs of .onnx graphs to verify"):
        verify_bundle(written)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(BundleError, match=r"an output has shape \(2,\); the parity file has \(3,"):
        greatest_difference(np.zeros(2), np.zeros(3))


def test_the_command_prints_a_table_and_fails_with_the_gates(bundle_folder, faulty_folder):
    good = invoke("verify", bundle_folder, "--backend", "openvino", "--threads", 1)
    assert (good.exit_code, good.stdout.count("pass")) == (0, 2)
    bad = invoke("verify", faulty_folder, "--backend", "openvino", "--threads", 1)
    assert (bad.exit_code, bad.stdout.count("FAIL")) == (1, 2)


def test_a_narrow_terminal_cuts_no_cell(bundle_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    table = invoke("verify", bundle_folder, "--backend", "onnxruntime", "--threads", 1).stdout
    assert table.count("pass") == 2
    assert "…" not in table


def test_the_command_prints_json(bundle_folder):
    found = invoke("verify", bundle_folder, "--backend", "onnxruntime", "--json")
    gates = json.loads(found.stdout)
    assert found.exit_code == 0
    assert [(gate["output"], gate["passed"]) for gate in gates] == [("y", True), ("z", True)]


def test_inspect_shows_what_a_bundle_holds(bundle_folder):
    found = invoke("inspect", bundle_folder).stdout
    for part in ("serial, parallel", "tiny", "(B, 3, 6, 6)", "fp32", "CC0", "body.npz", "smpl24"):
        assert part in found
    listed = json.loads(invoke("inspect", bundle_folder, "--json").stdout)
    assert listed["stages"][0]["macs"] == 1948
    assert listed["bytes"]["body.npz"] == (bundle_folder / "body.npz").stat().st_size


def test_verify_needs_no_framework(bundle_folder):
    """Only NumPy and a runtime: it must repeat the gates on a Jetson."""
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'scipy', 'cv2', 'pchmr', 'pchmr_export'):\n"
        "    sys.modules[name] = None\n"
        "from pchmr_engines.cli import verify\n"
        f"verify({str(bundle_folder)!r}, 'onnxruntime', None, 1, False, True)\n"
    )
    paths = {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [gate["passed"] for gate in json.loads(done.stdout)] == [True, True]


def test_a_precision_is_verified_where_it_is(bundle_folder):
    found = invoke("verify", bundle_folder, "--backend", "onnxruntime", "--precision", "fp32")
    assert (found.exit_code, found.stdout.count("pass")) == (0, 2)
    missing = invoke("verify", bundle_folder, "--backend", "onnxruntime", "--precision", "int8")
    assert "stores no outputs of int8 .onnx graphs" in str(missing.exception)
    unknown = invoke("verify", bundle_folder, "--precision", "int3")
    assert "precision 'int3' is unknown; expected one of" in str(unknown.exception)
