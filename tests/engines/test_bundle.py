"""A bundle is read as it was written or not at all."""

import multiprocessing
import os
import shutil
import signal
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_graphs import expected_outputs, make_feed, write_graph

from pchmr_engines import Bundle, bundle, store, write_bundle
from pchmr_engines.errors import BundleError
from pchmr_engines.manifest import FileRef, Graph, Stage
from pchmr_engines.store import npz_bytes


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def with_stage(parts, **changes):
    """The manifest and files of `parts` with the only stage changed."""
    manifest, files = parts
    return replace(manifest, stages=(replace(manifest.stages[0], **changes),)), dict(files)


def with_graph(parts, **changes):
    """The manifest and files of `parts` with the only graph changed."""
    return with_stage(parts, graphs=(replace(parts[0].stages[0].graph(), **changes),))


def test_what_was_written_is_read(bundle_folder, parts):
    loaded = Bundle.load(bundle_folder)
    stage = loaded.stages["tiny"]
    written = parts[0].stages[0]
    assert stage.settings == {"threshold": 0.5, "names": ["a", "b"]}
    graphs = (replace(stage.graph(), sha256=""),)
    assert replace(stage, graphs=graphs, settings=written.settings, parity_data=None) == replace(
        written, parity_data=None
    )
    assert loaded.manifest.topologies == ("serial", "parallel")
    assert loaded.body()["faces"].shape == (4, 3)
    assert loaded.parity_data("tiny").keys() >= {"inputs/x", "outputs/z"}
    assert stat.S_IMODE(bundle_folder.stat().st_mode) == 0o755


def test_a_stage_has_a_graph_a_precision(parts, tmp_path):
    manifest, files = parts
    plain = manifest.stages[0].graph()
    lower = write_graph(tmp_path / "lower.onnx", bias=1.0)
    graphs = (plain, replace(plain, precision="bf16"), Graph("int8", "stages/tiny.int8.onnx"))
    manifest, _ = with_stage(parts, graphs=graphs)
    files = {**files, "stages/tiny.int8.onnx": lower}
    loaded = Bundle.load(write_bundle(tmp_path / "b", manifest, files).root)
    assert loaded.stage("tiny").graph("bf16").sha256 == loaded.stage("tiny").graph().sha256
    assert len([ref for ref in loaded.manifest.files() if ref.file == plain.file]) == 1
    feed = make_feed(2)
    exact, shifted = (loaded.engine("tiny", "onnxruntime", 1, p) for p in (None, "int8"))
    assert (exact.precision, shifted.precision) == ("fp32", "int8")
    np.testing.assert_allclose(shifted.run(feed)["y"], exact.run(feed)["y"] + 1, atol=1e-5)
    with pytest.raises(
        BundleError, match=r"'tiny' has no fp8 .onnx graph; it has fp32 .onnx, bf16 .on"
    ):
        loaded.engine("tiny", precision="fp8")


def manifest_in(folder: Path) -> Path:
    return folder / "bundle.json"


@pytest.mark.parametrize("pack", [lambda folder: folder, manifest_in, zipped])
def test_a_stage_runs_from_a_folder_its_manifest_and_a_zip(pack, bundle_folder, cache):
    feed = make_feed(2)
    for _ in range(2):
        engine = Bundle.load(pack(bundle_folder)).engine("tiny", "onnxruntime", threads=1)
        np.testing.assert_allclose(engine.run(feed)["z"], expected_outputs(feed)["z"], atol=1e-5)
    assert len(list(cache.glob("bundles/*"))) == (pack is zipped)


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_changed_byte_anywhere_is_found(place, flip, bundle_folder):
    files = sorted(path for path in bundle_folder.rglob("*") if path.is_file())
    offset = int(place * sum(path.stat().st_size for path in files))
    for path in files:
        if offset < path.stat().st_size:
            break
        offset -= path.stat().st_size
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[offset] ^= flip
    try:
        path.write_bytes(changed)
        if path.name == "bundle.json" and not changed[offset : offset + 1].strip():
            return  # one white space for another, which JSON does not tell apart
        with pytest.raises(BundleError) as caught:
            Bundle.load(bundle_folder)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "bundle.json").unlink(), "has no bundle.json: give the folder or"),
        (lambda root: (root / "bundle.json").write_bytes(b"\xff"), "is not UTF-8 text"),
        (lambda root: (root / "body.npz").unlink(), "body.npz is missing: copy or export"),
        (lambda root: (root / "body.npz").write_bytes(b""), "body.npz has sha256 e3b0c44298fc..."),
        (lambda root: (root / "stages/w.bin").touch(), "w.bin is not listed in bundle.json: remo"),
        (lambda root: (root / "stages/up").symlink_to(root), "up is not listed in bundle.json"),
    ],
)
def test_a_damaged_folder_is_refused(damage, message, bundle_folder):
    damage(bundle_folder)
    for named in (bundle_folder, manifest_in(bundle_folder)):
        if named.exists():
            with pytest.raises(BundleError, match=message) as caught:
                Bundle.load(named)
            assert "built anew" not in str(caught.value)


def test_a_file_behind_a_link_that_leaves_is_refused(bundle_folder, tmp_path):
    (bundle_folder / "body.npz").rename(tmp_path / "body.npz")
    (bundle_folder / "body.npz").symlink_to(tmp_path / "body.npz")
    with pytest.raises(BundleError, match=r"'body.npz' is a link that leaves .*bundle: put the fi"):
        Bundle.load(bundle_folder)


@pytest.mark.parametrize(
    "path", ["../tiny.onnx", "/tmp/tiny.onnx", "stages/../../tiny.onnx", "a\\b.onnx", "C:/x", ""]
)
def test_a_path_that_leaves_is_refused(path, parts, tmp_path):
    manifest, files = with_graph(parts, file=path)
    files[path] = files.pop("stages/tiny.fp32.onnx")
    with pytest.raises(BundleError, match="is not a path below"):
        write_bundle(tmp_path / "bundle", manifest, files)
    assert not (tmp_path / "bundle").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny.onnx"}


def test_a_bundle_that_is_not_there_names_the_registered_ones(tmp_path, monkeypatch):
    class Entry:
        name = "mine"

        def load(self):
            return lambda: tmp_path / "none"

    monkeypatch.setattr(bundle, "entry_points", lambda group: [Entry()])
    with pytest.raises(BundleError, match=r"other does not exist: .* or one of \['mine'\]"):
        Bundle.load("other")
    assert bundle.find_bundle("mine") == tmp_path / "none"


def test_a_registered_bundle_that_is_damaged_can_be_built_anew(parts, tmp_path, monkeypatch):
    written = write_bundle(tmp_path / "built", *parts)

    class Entry:
        name = "mine"

        def load(self):
            return lambda: written.root

    monkeypatch.setattr(bundle, "entry_points", lambda group: [Entry()])
    assert Bundle.load("mine").manifest == written.manifest
    file = written.root / "stages" / "tiny.fp32.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"changed .*; or remove .*built, and mine is built anew"):
        Bundle.load("mine")


def test_a_graph_that_is_not_what_the_manifest_says_is_refused(parts, tmp_path):
    manifest, files = parts
    graph = write_graph(tmp_path / "fixed.onnx", batch=2)
    written = write_bundle(tmp_path / "b", manifest, {**files, "stages/tiny.fp32.onnx": graph})
    with pytest.raises(
        BundleError,
        match=r"stage 'tiny': stages/tiny.fp32.onnx has x \(2, 3, 6, 6\) float32; .*; bundle.json s"
        r"ays x \(B, 3, 6, 6\) float32",
    ):
        written.engine("tiny", "onnxruntime")


def test_an_unknown_stage_and_a_missing_body_are_named(parts, tmp_path):
    manifest, files = parts
    files = {name: content for name, content in files.items() if name != "body.npz"}
    written = write_bundle(tmp_path / "b", replace(manifest, body=None), files)
    with pytest.raises(BundleError, match=r"has no stage 'big'; it has \['tiny'\]"):
        written.engine("big")
    with pytest.raises(BundleError, match="'test' has no body file"):
        written.body()


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".ts"])
def test_a_format_that_can_run_code_needs_trust(suffix, parts, tmp_path):
    manifest, files = with_graph(parts, file=f"stages/tiny{suffix}")
    files[f"stages/tiny{suffix}"] = files.pop("stages/tiny.fp32.onnx")
    write_bundle(tmp_path / "b", manifest, files)
    with pytest.raises(BundleError, match="files can run code: pass trust=True if you trust the b"):
        Bundle.load(tmp_path / "b")
    trusted = Bundle.load(tmp_path / "b", trust=True)
    with pytest.raises(BundleError, match=r"'tiny' has no .onnx graph; it has fp32 "):
        trusted.engine("tiny")


def test_an_unknown_format_is_refused(parts, tmp_path):
    manifest, files = with_graph(parts, file="stages/tiny.pkl")
    files["stages/tiny.pkl"] = files.pop("stages/tiny.fp32.onnx")
    with pytest.raises(BundleError, match=r"is stages/tiny.pkl; expected one of \['.onnx', "):
        write_bundle(tmp_path / "b", manifest, files)


def test_a_pickled_body_is_refused(parts, tmp_path):
    manifest, files = parts
    path = tmp_path / "pickled.npz"
    np.savez(path, faces=np.array([{"a": 1}], dtype=object))
    written = write_bundle(tmp_path / "b", manifest, {**files, "body.npz": path})
    with pytest.raises(BundleError, match=r"body.npz is not an npz of plain arrays"):
        written.body()


def test_external_weights_are_hashed(parts, tmp_path):
    manifest, files = with_graph(parts, external=(FileRef("stages/tiny.data"),))
    files["stages/tiny.data"] = b"weights"
    written = write_bundle(tmp_path / "b", manifest, files)
    (written.root / "stages/tiny.data").write_bytes(b"Weights")
    with pytest.raises(BundleError, match=r"tiny.data has sha256"):
        Bundle.load(written.root)


def test_the_files_given_must_be_those_listed(parts, tmp_path):
    manifest, files = parts
    with pytest.raises(BundleError, match=r"lists \['body.npz', .*'more'.*: give exactly"):
        write_bundle(tmp_path / "b", manifest, {**files, "more": b""})


def test_another_folder_is_never_replaced(parts, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("words")
    for target in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        with pytest.raises(BundleError, match="is there and is no bundle: choose another folder"):
            write_bundle(target, *parts)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "words"


@pytest.mark.parametrize("swap", [True, False])
def test_a_bundle_is_replaced_whole(swap, bundle_folder, parts, monkeypatch):
    if not swap:
        monkeypatch.setattr(store, "_swap", lambda one, other: False)
    manifest, files = parts
    write_bundle(bundle_folder, replace(manifest, name="new"), files)
    assert Bundle.load(bundle_folder).manifest.name == "new"
    assert {path.name for path in bundle_folder.parent.iterdir()} == {"bundle", "tiny.onnx"}


def test_an_interrupted_write_leaves_the_old_bundle(bundle_folder, parts, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "with_hashes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle_folder, replace(parts[0], name="new"), parts[1])
    assert Bundle.load(bundle_folder).manifest.name == "test"
    assert {path.name for path in bundle_folder.parent.iterdir()} == {"bundle", "tiny.onnx"}


def _write_and_die(target, manifest, files):
    bundle.replace_folder = lambda new, old: os.kill(os.getpid(), signal.SIGKILL)
    write_bundle(target, manifest, files)


def _write_often(target, manifest, files, name):
    for _ in range(10):
        write_bundle(target, replace(manifest, name=name), files)


def test_a_killed_write_leaves_the_old_bundle(bundle_folder, parts):
    manifest, files = parts
    process = multiprocessing.get_context("spawn").Process(
        target=_write_and_die, args=(bundle_folder, replace(manifest, name="new"), files)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert Bundle.load(bundle_folder).manifest.name == "test"


def test_two_writers_leave_one_whole_bundle(tmp_path, parts):
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write_often, args=(tmp_path / "b", *parts, name))
        for name in ("one", "two")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert Bundle.load(tmp_path / "b").manifest.name in ("one", "two")
    assert {path.name for path in tmp_path.iterdir()} == {"b", "tiny.onnx"}


def test_the_same_arrays_give_the_same_bytes():
    arrays = {"a": np.arange(3), "b/c": np.eye(2, dtype=np.float32)}
    assert npz_bytes(arrays) == npz_bytes(arrays)


@pytest.mark.parametrize(
    ("member", "mode", "message"),
    [
        ("../evil", 0o644, r"'../evil' is not a path below"),
        ("/evil", 0o644, r"'/evil' is not a path below"),
        ("link", stat.S_IFLNK | 0o777, "link is a link: pack the file"),
    ],
)
def test_a_zip_that_reaches_out_is_refused(member, mode, message, bundle_folder, tmp_path, cache):
    path = zipped(bundle_folder)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(member)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BundleError, match=message):
        Bundle.load(path)
    assert not list((cache / "bundles").iterdir())
    assert not (tmp_path / "evil").exists()


def test_a_zip_that_would_fill_the_disk_is_refused(bundle_folder, monkeypatch):
    path = zipped(bundle_folder)
    for limit in ("MAX_BYTES", "MAX_MEMBERS"):
        with monkeypatch.context() as patch:
            patch.setattr(store, limit, 2)
            with pytest.raises(BundleError, match=r"would unpack to .*; allowed are"):
                Bundle.load(path)
    monkeypatch.setattr(store, "SMALL_BYTES", 0)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    with pytest.raises(BundleError, match=r"would unpack to .*; allowed are"):
        Bundle.load(path)


def test_a_torn_zip_is_refused(bundle_folder):
    path = zipped(bundle_folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"bundle.zip cannot be unpacked .*: copy it again"):
        Bundle.load(path)


def test_whatever_byte_of_a_zip_is_wrong_it_is_refused_or_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "cache"))
    whole = npz_bytes({"x": np.random.default_rng(0).integers(0, 4, 100)})
    path = tmp_path / "x.npz"
    for read in (store.read_npz, store.extracted):
        refused = 0
        for place in range(len(whole)):
            content = bytearray(whole)
            content[place] ^= 0xFF
            path.write_bytes(content)
            try:
                read(path)
            except BundleError:
                refused += 1
        assert refused > len(whole) / 2


def test_a_zip_of_a_damaged_bundle_is_named(bundle_folder):
    (bundle_folder / "body.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"bundle\.zip, unpacked: .*body\.npz has sha256"):
        Bundle.load(zipped(bundle_folder))


def test_a_damaged_copy_in_the_cache_is_extracted_again(bundle_folder):
    path = zipped(bundle_folder)
    copy = Bundle.load(path).root
    (copy / "body.npz").write_bytes(b"")
    assert Bundle.load(path).body()["faces"].shape == (4, 3)


def test_stage_names_cannot_be_paths(parts, tmp_path):
    manifest, files = with_stage(parts, name="../tiny")
    assert isinstance(manifest.stages[0], Stage)
    with pytest.raises(BundleError, match=r"stage name '../tiny' is not of letters"):
        write_bundle(tmp_path / "b", manifest, files)
