"""Backend "auto": measures once, says what it chose, remembers it, never changes precision."""

from pathlib import Path

import pytest
from tiny_graphs import make_feed, write_graph

from pchmr_engines import auto, engine_from_onnx
from pchmr_engines.errors import EngineError


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The backends of each measurement; openvino always comes out fastest."""
    calls = []

    def latencies(engines):
        calls.append(tuple(engines))
        return {name: {"onnxruntime": 2e-3, "openvino": 1e-3}[name] for name in engines}

    monkeypatch.setattr(auto, "latencies", latencies)
    return calls


def test_the_choice_is_told_and_remembered(graph, measured, capsys):
    assert engine_from_onnx(graph, threads=1).backend == "openvino"
    told = capsys.readouterr().err
    assert told == (
        "auto: tiny.onnx runs on openvino (onnxruntime 2.00 ms, openvino 1.00 ms; threads: 1)\n"
    )
    assert engine_from_onnx(graph, threads=1).backend == "openvino"
    assert capsys.readouterr().err == ""
    assert measured == [("onnxruntime", "openvino")]


def test_another_model_thread_count_or_cpu_is_measured_anew(graph, measured, monkeypatch, tmp_path):
    engine_from_onnx(graph, threads=1)
    engine_from_onnx(graph, threads=2)
    engine_from_onnx(write_graph(tmp_path / "other.onnx", bias=1.0), threads=1)
    monkeypatch.setattr(auto, "cpu_fingerprint", lambda: "another CPU")
    engine_from_onnx(graph, threads=1)
    monkeypatch.setattr(auto, "installed_versions", lambda packages: {packages[0]: "another"})
    engine_from_onnx(graph, threads=1)
    assert len(measured) == 5


def test_a_memory_that_makes_no_sense_is_measured_anew(graph, measured, cache):
    engine_from_onnx(graph, threads=1)
    (memory,) = (cache / "auto").iterdir()
    memory.write_text("tensorrt")
    assert engine_from_onnx(graph, threads=1).backend == "openvino"
    assert len(measured) == 2


def test_a_backend_without_the_precision_is_left_out(graph, measured, monkeypatch, capsys):
    from pchmr_engines.backends import openvino

    monkeypatch.setattr(openvino, "has_bf16", lambda: True)
    assert engine_from_onnx(graph, threads=1, precision="bf16").precision == "bf16"
    assert measured == [("openvino",)]
    assert "onnxruntime cannot lower a graph to bf16" in capsys.readouterr().err


def test_a_graph_that_nothing_runs_is_refused(tmp_path: Path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"neither a graph nor anything else")
    with pytest.raises(EngineError, match=r"no installed backend runs bad.onnx: onnxruntime: .*"):
        engine_from_onnx(path)


def test_it_really_measures(graph, capsys):
    engine = engine_from_onnx(graph, threads=1)
    assert f"runs on {engine.backend} (onnxruntime 0." in capsys.readouterr().err
    assert engine.run(make_feed(1))["z"].shape == (1, 4)
