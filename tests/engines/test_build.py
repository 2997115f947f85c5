"""Device engines in a bundle: built once, found again, and refused where they do not belong."""

import errno
import json
import re
import shutil
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import typer
from fake_gpu import Calls, fake_tensorrt
from tiny_graphs import expected_outputs, make_feed, write_graph
from typer.testing import CliRunner

from pchmr_engines import Bundle, build_cli, cli, device_engines, engine_from_onnx, write_bundle
from pchmr_engines.backends import BACKENDS, tensorrt
from pchmr_engines.build import build_engines
from pchmr_engines.cuda_driver import CudaDevice
from pchmr_engines.device_engines import Target, listings, store_built
from pchmr_engines.errors import BundleError, EngineError, InputError
from pchmr_engines.manifest import Graph

app = typer.Typer()
app.command("build")(build_cli.build)
rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="TensorRT for RTX is not installed: its builds were not tested",
)
buildable = pytest.mark.parametrize(
    "backend", ["openvino", pytest.param("tensorrt-rtx", marks=rtx)]
)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(bundle_folder):
    return Bundle.load(bundle_folder)


@pytest.fixture
def two_stages(parts, tmp_path):
    """A bundle of the tiny stage under two names."""
    manifest, files = parts
    twin = replace(manifest.stages[0], name="twin", parity_data=None)
    twin = replace(twin, graphs=(Graph("fp32", "stages/twin.onnx"),))
    files = {**files, "stages/twin.onnx": files["stages/tiny.fp32.onnx"]}
    return write_bundle(tmp_path / "two", replace(manifest, stages=(*manifest.stages, twin)), files)


def only(bundle):
    (listing,) = listings(bundle.root, "tiny")
    return listing


@buildable
def test_what_was_built_is_listed_and_kept(backend, bundle):
    (first,) = build_engines(bundle, backend, "fp32", batches=(4, 1))
    assert (first.stage, first.batches) == ("tiny", (1, 4))
    assert first.size > 0
    assert first.seconds is not None
    listing = only(bundle)
    assert listing.target.backend == backend
    assert listing.inputs == bundle.stage("tiny").inputs
    (again,) = build_engines(bundle, backend, "fp32", batches=(1, 4))
    assert again == replace(first, seconds=None)
    assert only(bundle) == listing
    Bundle.load(bundle.root)  # engines are no part of the manifest


@buildable
def test_other_batches_are_built_anew_and_the_old_files_go(backend, bundle):
    list(build_engines(bundle, backend, "fp32", batches=(1,)))
    old = only(bundle)
    (outcome,) = build_engines(bundle, backend, "fp32", batches=(2,))
    assert outcome.seconds is not None
    folder = bundle.root / "engines" / old.target.fingerprint
    named = {ref.file for ref in only(bundle).files}
    assert named.isdisjoint({ref.file for ref in old.files})
    assert {file.name for file in folder.iterdir()} - {"timing.cache"} == {"tiny.json", *named}


def test_openvino_runs_what_was_built_and_compiles_the_rest(bundle):
    list(build_engines(bundle, "openvino", "fp32", batches=(1, 4)))
    engine = bundle.engine("tiny", "openvino", threads=1)
    assert engine._blobs.keys() == {1, 4}
    for batch in (1, 2, 4):
        feed = make_feed(batch)
        found = engine.run(feed)
        for name, expected in expected_outputs(feed).items():
            np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_a_bundle_that_moves_to_another_machine_runs_its_graph_there(bundle, monkeypatch):
    list(build_engines(bundle, "openvino", "fp32"))
    monkeypatch.setattr("pchmr_engines.backends.openvino.cpu_model", lambda: "Another CPU")
    assert not bundle.engine("tiny", "openvino")._blobs
    monkeypatch.undo()
    assert bundle.engine("tiny", "openvino")._blobs.keys() == {1}


@rtx
def test_a_damaged_engine_is_named_and_built_anew(bundle):
    list(build_engines(bundle, "tensorrt-rtx", "fp32"))
    listing = only(bundle)
    path = bundle.root / "engines" / listing.target.fingerprint / listing.files[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(
        EngineError, match=r"\.plan is missing or was changed: run  pchmr build .*b"
    ):
        bundle.engine("tiny", "tensorrt-rtx")
    (outcome,) = build_engines(bundle, "tensorrt-rtx", "fp32")
    assert outcome.seconds is not None


@rtx
def test_an_engine_of_another_graph_is_refused(bundle, parts, tmp_path):
    list(build_engines(bundle, "tensorrt-rtx", "fp32"))
    manifest, files = parts
    graph = write_graph(tmp_path / "other.onnx", bias=1.0)
    other = write_bundle(tmp_path / "o", manifest, {**files, "stages/tiny.fp32.onnx": graph})
    shutil.copytree(bundle.root / "engines", other.root / "engines")
    with pytest.raises(
        EngineError, match=r"'tiny' for tensorrt-rtx .* was built from another graph"
    ):
        other.engine("tiny", "tensorrt-rtx")


def test_an_engine_of_another_gpu_says_where_it_runs_and_what_to_do(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(Calls()))
    monkeypatch.setattr(tensorrt, "cuda_device", lambda: CudaDevice("NVIDIA H200", 90, "13.2"))
    command = f"run  pchmr build {bundle.root} --backend tensorrt --precision fp32 --stage tiny$"
    with pytest.raises(
        EngineError, match=f"has no engine of tensorrt 10.3.0 on .*H200.*: {command}"
    ):
        bundle.engine("tiny", "tensorrt")
    other = Target("tensorrt", "10.13.2", "NVIDIA L4", "sm_89", "fp32", {})
    stage = bundle.stage("tiny")
    store_built(bundle.root, stage, stage.graph(), other, (1,), {".plan": b"plan"})
    with pytest.raises(
        EngineError,
        match=rf"there is one of tensorrt 10.13.2 on NVIDIA L4, fp32, which runs only.*: {command}",
    ):
        bundle.engine("tiny", "tensorrt")


def test_targets_that_differ_have_folders_that_differ():
    target = Target("tensorrt", "10.3.0", "NVIDIA L4", "sm_89", "fp32", {"tf32": False})
    changes = [
        {"version": "10.3.1"},
        {"device": "NVIDIA L40"},
        {"arch": "sm_90"},
        {"precision": "fp16"},
        {"flags": {"tf32": True}},
    ]
    names = {target.fingerprint, *(replace(target, **c).fingerprint for c in changes)}
    assert len(names) == 1 + len(changes)
    assert target.fingerprint.startswith("tensorrt-10.3.0-nvidia_l4-fp32-")


def test_an_interrupted_build_goes_on_where_it_was(two_stages, monkeypatch):
    def interrupt(stage, phase, done):
        if stage == "twin":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(build_engines(two_stages, "openvino", "fp32", progress=interrupt))
    tiny, twin = build_engines(two_stages, "openvino", "fp32")
    assert (tiny.seconds, twin.seconds is None) == (None, False)


def test_two_builds_at_once_leave_one_whole_engine(bundle):
    def build_often():
        for _ in range(5):
            list(build_engines(bundle, "openvino", "fp32", force=True))

    threads = [threading.Thread(target=build_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bundle.engine("tiny", "openvino")._blobs.keys() == {1}


def test_a_full_disk_is_one_line_and_leaves_the_old_engine(bundle, monkeypatch):
    list(build_engines(bundle, "openvino", "fp32"))
    before = only(bundle)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(device_engines, "write_atomically", full)
    with pytest.raises(EngineError, match=r"cannot write the engine of stage 'tiny' .*\(No space"):
        list(build_engines(bundle, "openvino", "fp32", force=True))
    assert only(bundle) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "fp16"}, BundleError, r"\['tiny'\] have no fp16 .onnx graph: export the bu"),
        ({"stages": ["big"]}, BundleError, r"has no stage 'big'; it has \['tiny'\]"),
        ({"backend": "onnxruntime"}, EngineError, "runs graphs as they are; engines are built for"),
        ({"backend": "abacus"}, EngineError, "backend 'abacus' is unknown; expected one of"),
        ({"backend": "torch"}, BundleError, r"\.pt2 files can run code: load 'test' with trust="),
    ],
)
def test_what_cannot_be_built_is_said(bundle, options, error, message):
    arguments = {"backend": "openvino", "precision": "fp32", **options}
    with pytest.raises(error, match=message):
        list(build_engines(bundle, **arguments))
    assert not (bundle.root / "engines").exists()


def test_a_precision_that_some_stages_lack_names_the_others(two_stages, tmp_path):
    tiny, twin = two_stages.manifest.stages
    graphs = (*twin.graphs, Graph("int8", "stages/twin.onnx"))
    manifest = replace(two_stages.manifest, stages=(tiny, replace(twin, graphs=graphs)))
    files = {ref.file: two_stages.root / ref.file for ref in manifest.files()}
    mixed = write_bundle(tmp_path / "mixed", manifest, files)
    with pytest.raises(
        BundleError, match=r"\['tiny'\] have no int8 .*: build the others with  --st"
    ):
        list(build_engines(mixed, "openvino", "int8"))
    (outcome,) = build_engines(mixed, "openvino", "int8", stages=["twin"])
    assert mixed.engine("twin", "openvino", precision="int8").precision == "int8"
    assert outcome.stage == "twin"


@rtx
def test_bf16_that_only_openvino_makes_is_no_graph_for_tensorrt(bundle, parts, tmp_path):
    manifest, files = parts
    plain = manifest.stages[0].graph()
    stage = replace(manifest.stages[0], graphs=(plain, replace(plain, precision="bf16")))
    both = write_bundle(tmp_path / "both", replace(manifest, stages=(stage,)), files)
    with pytest.raises(EngineError, match="has its bf16 only as a way in which OpenVINO runs"):
        list(build_engines(both, "tensorrt-rtx", "bf16"))


def test_the_command_builds_and_prints(bundle_folder):
    done = invoke(bundle_folder, "--backend", "openvino", "--batch", "1, 4")
    assert (done.exit_code, "1, 4" in done.stdout, "built in" in done.stdout) == (0, True, True)
    done = invoke(bundle_folder, "--backend", "openvino", "--batch", "4,1", "--json")
    (outcome,) = json.loads(done.stdout)
    assert outcome["seconds"] is None
    shown = typer.Typer()
    shown.command()(cli.inspect)
    told = CliRunner().invoke(shown, [str(bundle_folder)]).stdout
    assert re.search(r"engines of openvino .*, fp32: tiny", told)
    listed = json.loads(CliRunner().invoke(shown, [str(bundle_folder), "--json"]).stdout)
    assert [engine["batches"] for engine in listed["built"]] == [[1, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "0"], "--batch is '0'; expected numbers from 1, such as 1,4"),
        (["--batch", "two"], "--batch is 'two'; expected"),
        (["--batch", "1,²"], "--batch is '1,²'; expected"),
        (["--precision", "fp12"], "precision 'fp12' is unknown; expected one of"),
    ],
)
def test_options_that_cannot_be_meant(options, message, bundle_folder):
    done = invoke(bundle_folder, "--backend", "openvino", *options)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


@pytest.mark.parametrize("backend", [name for name, b in BACKENDS.items() if b.built == "always"])
def test_a_graph_alone_is_no_engine_of_these(backend, graph):
    with pytest.raises(EngineError, match=f"run  pchmr build BUNDLE --backend {backend}  and use"):
        engine_from_onnx(graph, backend)
