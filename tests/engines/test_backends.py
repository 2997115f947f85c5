"""Every backend by one body: the same numbers, fixed buffers, strict feeds, no silent fallback."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from tiny_graphs import expected_outputs, make_feed, write_graph

from pchmr_engines import engine_from_onnx
from pchmr_engines.backends import AUTO
from pchmr_engines.errors import EngineError, InputError, MissingDependency

backends = pytest.mark.parametrize("backend", AUTO)
# float32 against float64: 27 products of standard normals, and 36-fold means of their sums
TOLERANCE = {"fp32": 1e-5, "bf16": 0.2}


@backends
@pytest.mark.parametrize("batch", [1, 3])
def test_an_engine_computes_the_graph(backend, batch, engine_of):
    feed = make_feed(batch)
    found = engine_of(backend).run(feed)
    for name, expected in expected_outputs(feed).items():
        np.testing.assert_allclose(found[name], expected, atol=TOLERANCE["fp32"])


@backends
def test_specs_and_caps_come_from_the_graph(backend, engine_of):
    engine = engine_of(backend)
    assert [str(spec) for spec in engine.inputs.values()] == [
        "x (B, 3, 6, 6) float32",
        "k (B, 4) float32",
    ]
    assert list(engine.outputs) == ["y", "z"]
    assert (engine.caps.device, engine.caps.capturable) == ("cpu", False)
    assert (engine.backend, engine.precision) == (backend, "fp32")


@backends
def test_buffers_stay_where_they_are(backend, engine_of):
    context = engine_of(backend).context(2)
    addresses = {name: buffer.ctypes.data for name, buffer in context.buffers.items()}
    context.freeze()
    for seed in (1, 2):
        feed = make_feed(2, seed)
        for name, array in feed.items():
            context.buffers[name][:] = array
        context.enqueue()
        for name, expected in expected_outputs(feed).items():
            np.testing.assert_allclose(context.buffers[name], expected, atol=TOLERANCE["fp32"])
        for name, array in feed.items():
            np.testing.assert_array_equal(context.buffers[name], array)
    assert {name: buffer.ctypes.data for name, buffer in context.buffers.items()} == addresses


@backends
def test_a_bound_array_is_the_buffer(backend, engine_of):
    engine = engine_of(backend)
    feed = make_feed(2)
    upstream, downstream = feed["k"].copy(), np.zeros((3, 4), np.float32)
    context = engine.context(2)
    context.bind("k", upstream)
    context.bind("z", downstream[1:])
    context.freeze()
    context.buffers["x"][:] = feed["x"]
    upstream += 1
    context.enqueue()
    expected = expected_outputs({"x": feed["x"], "k": feed["k"] + 1})["z"]
    np.testing.assert_allclose(downstream[1:], expected, atol=TOLERANCE["fp32"])
    assert context.buffers["k"] is upstream
    assert not downstream[0].any()


@backends
def test_contexts_of_one_engine_run_at_the_same_time(backend, engine_of):
    engine = engine_of(backend)
    feeds = [make_feed(2, seed) for seed in range(2)]

    def run(feed):
        context = engine.context(2)
        context.freeze()
        for name, array in feed.items():
            context.buffers[name][:] = array
        for _ in range(200):
            context.enqueue()
        return context.buffers["y"]

    with ThreadPoolExecutor() as pool:
        for feed, found in zip(feeds, pool.map(run, feeds), strict=True):
            expected = expected_outputs(feed)["y"]
            np.testing.assert_allclose(found, expected, atol=TOLERANCE["fp32"])


@backends
def test_a_context_runs_only_between_freeze_and_close(backend, engine_of):
    context = engine_of(backend).context(1)
    with pytest.raises(EngineError, match="cannot enqueue: the context is open, expected frozen"):
        context.enqueue()
    context.freeze()
    with pytest.raises(EngineError, match="cannot bind 'k': the context is frozen"):
        context.bind("k", np.zeros((1, 4), np.float32))
    with pytest.raises(EngineError, match="cannot freeze: the context is frozen"):
        context.freeze()
    with pytest.raises(TypeError):
        context.buffers["k"] = np.zeros((1, 4), np.float32)
    kept = context.buffers["z"]
    context.close()
    with pytest.raises(EngineError, match="cannot enqueue: the context is closed"):
        context.enqueue()
    assert kept.shape == (1, 4)


@backends
def test_bind_refuses_what_it_cannot_alias(backend, engine_of):
    context = engine_of(backend).context(2)
    with pytest.raises(EngineError, match=r"'q' is no buffer; expected one of \['k', 'x', 'y'"):
        context.bind("q", np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match=r"'k' has shape \(3, 4\); expected \(B, 4\) with B = 2"):
        context.bind("k", np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match="'k' is float64; expected float32"):
        context.bind("k", np.zeros((2, 4)))
    with pytest.raises(EngineError, match="'k' is not a C-contiguous writable array"):
        context.bind("k", np.zeros((2, 8), np.float32)[:, ::2])
    frozen = np.zeros((2, 4), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(EngineError, match="'k' is not a C-contiguous writable array"):
        context.bind("k", frozen)


@backends
def test_a_frozen_context_allocates_nothing(backend, engine_of):
    context = engine_of(backend).context(256)
    context.freeze()
    for _ in range(100):
        context.enqueue()
    tracemalloc.start()
    try:
        context.enqueue()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(1000):
            context.enqueue()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000, "the smallest object left by each run would be 28,000 bytes"
    assert peak - before < context.buffers["y"].nbytes / 2, "no output may be copied"


@backends
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda feed: feed.pop("k"), r"names \['x'\]; expected \['k', 'x'\]: add \['k'\]"),
        (lambda feed: feed.update(q=feed["k"]), r"leave out \['q'\]"),
        (lambda feed: feed.update(k=feed["k"][:1]), r"'k' has shape \(1, 4\); expected \(B, 4\)"),
        (lambda feed: feed.update(x=feed["x"][..., 1:]), r"'x' has shape \(2, 3, 6, 5\)"),
        (lambda feed: feed.update(x=feed["x"][0]), r"'x' has shape \(3, 6, 6\)"),
        (lambda feed: feed.update(x=np.float32(1)), r"'x' has shape \(\)"),
        (lambda feed: feed.update(x=feed["x"].astype("u1")), r"'x' is uint8; .*astype\('float32'"),
        (lambda feed: feed.update(k=feed["k"].tolist()), "'k' is a list; expected an array"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(backend, change, message, engine_of):
    feed = make_feed(2)
    change(feed)
    with pytest.raises(InputError, match=message):
        engine_of(backend).run(feed)


@backends
def test_a_fixed_graph_takes_its_own_batch(backend, tmp_path):
    engine = engine_from_onnx(write_graph(tmp_path / "fixed.onnx", batch=2), backend, threads=1)
    assert engine.caps.max_batch == 2
    feed = make_feed(2)
    np.testing.assert_allclose(engine.run(feed)["z"], expected_outputs(feed)["z"], atol=1e-5)
    with pytest.raises(EngineError, match="batch 1 was asked for; the graph is fixed at batch 2"):
        engine.context(1)
    with pytest.raises(EngineError, match="batch 3 was asked for; this engine takes 1 to 2"):
        engine.context(3)


@backends
def test_contexts_are_refused_for_no_rows_and_for_streams(backend, engine_of):
    engine = engine_of(backend)
    with pytest.raises(EngineError, match="batch 0 was asked for"):
        engine.context(0)
    with pytest.raises(EngineError, match="runs on the CPU: pass stream=None"):
        engine.context(1, stream=object())


@backends
def test_a_second_free_dimension_is_refused(backend, tmp_path):
    path = write_graph(tmp_path / "wide.onnx", width="W", output_width="W")
    with pytest.raises(EngineError, match=r"wide.onnx: 'x' has shape .* only the first dimension"):
        engine_from_onnx(path, backend, threads=1)


@backends
def test_a_file_that_is_no_graph_is_refused(backend, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"neither a graph nor anything else")
    with pytest.raises(EngineError, match=r"cannot (load|read) .*bad.onnx: ") as caught:
        engine_from_onnx(path, backend)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match=r"none.onnx is not a file"):
        engine_from_onnx(tmp_path / "none.onnx", backend)


def test_an_unknown_backend_is_refused(graph):
    with pytest.raises(EngineError, match=r"'tflite' is unknown; expected one of \['auto', 'onnx"):
        engine_from_onnx(graph, "tflite")


@pytest.mark.parametrize(
    ("backend", "extra"), [("onnxruntime", "cpu"), ("openvino", "openvino"), ("auto", "cpu")]
)
def test_a_missing_package_names_its_extra(backend, extra, graph, monkeypatch):
    from pchmr_engines import auto
    from pchmr_engines.backends.openvino import openvino_core

    openvino_core.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(auto, "installed_versions", lambda packages: {})
    with pytest.raises(MissingDependency, match=rf"pip install 'pchmr\[{extra}\]'"):
        engine_from_onnx(graph, backend)


def test_two_builds_of_onnx_runtime_are_named(graph, monkeypatch):
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "1" if name == "onnxruntime-gpu" else real(name)
    )
    with pytest.raises(EngineError, match=r"onnxruntime and onnxruntime-gpu are installed togeth"):
        engine_from_onnx(graph, "onnxruntime")


def test_onnx_runtime_does_not_lower_precision(graph):
    with pytest.raises(EngineError, match="onnxruntime cannot lower a graph to bf16"):
        engine_from_onnx(graph, "onnxruntime", precision="bf16")


def test_openvino_refuses_an_unknown_precision(graph):
    with pytest.raises(EngineError, match=r"'fp64'; expected one of \['bf16', 'fp16', "):
        engine_from_onnx(graph, "openvino", precision="fp64")


def test_bf16_is_refused_where_the_cpu_lacks_it(graph, monkeypatch):
    from pchmr_engines.backends import openvino

    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    with pytest.raises(EngineError, match="no bf16 instructions: use precision='fp32'"):
        engine_from_onnx(graph, "openvino", precision="bf16")


def test_bf16_computes_in_bf16_where_the_cpu_has_it(graph):
    from pchmr_engines.backends.openvino import has_bf16

    if not has_bf16():
        pytest.skip("not tested: bf16 (this CPU has none)")
    feed = make_feed(2)
    found = engine_from_onnx(graph, "openvino", threads=1, precision="bf16").run(feed)["y"]
    error = np.abs(found - expected_outputs(feed)["y"]).max()
    assert TOLERANCE["fp32"] < error < TOLERANCE["bf16"]


def test_openvino_caches_compiled_models_by_their_weights(tmp_path, cache):
    feed = make_feed(1)
    found = []
    for bias in (0.0, 1.0, 0.0):
        path = write_graph(tmp_path / "same_name.onnx", bias=bias)
        found.append(engine_from_onnx(path, "openvino", threads=1).run(feed)["y"])
    np.testing.assert_allclose(found[1] - found[0], 1, atol=TOLERANCE["fp32"])
    np.testing.assert_array_equal(found[2], found[0])
    assert len(list((cache / "openvino").iterdir())) == 2


def test_a_torn_compiled_model_is_compiled_again(graph, cache):
    feed = make_feed(1)
    found = engine_from_onnx(graph, "openvino", threads=1).run(feed)["y"]
    (blob,) = (cache / "openvino").iterdir()
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    again = engine_from_onnx(graph, "openvino", threads=1).run(feed)["y"]
    np.testing.assert_array_equal(again, found)


def test_without_caching_nothing_is_written(graph, cache):
    engine_from_onnx(graph, "openvino", threads=1, cache=False).run(make_feed(1))
    assert not (cache / "openvino").exists()


def test_a_cache_folder_that_cannot_be_made_is_named(graph, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot make the cache folder .*: set PCHMR_CACHE"):
        engine_from_onnx(graph, "openvino").run(make_feed(1))


def test_the_cpu_quota_of_a_control_group_counts(monkeypatch):
    from pchmr_engines import host

    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for text, cpus in (("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 16)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert host.usable_cpus() == cpus
