"""The bundle `open`: what it holds, and that it is built once, whole or not at all."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pchmr import assets
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import AssetError, MissingDependency, PchmrError
from pchmr_engines.manifest import Stage
from pchmr_export import open_bundle as builder
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights

SMPL, BLAZEPOSE = get_skeleton("smpl24"), get_skeleton("blazepose33")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick_body(open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half minute of the body is left out: it is taken from the bundle that is there."""
    body = {k: v for k, v in open_bundle.body().items() if not k.startswith(builder.PREFIX)}
    monkeypatch.setattr(builder, "build_open_body", lambda folder, progress: dict(body))


# What it holds


def test_stages_and_topologies(open_bundle: Bundle) -> None:
    manifest = open_bundle.manifest
    assert manifest.name == "open"
    assert manifest.topologies == ("serial", "parallel", "template", "mesh-only")
    assert {name: stage.role for name, stage in open_bundle.stages.items()} == {
        "detector": "detector",
        "landmarks": "tracker",
        "generator": "mesh-generator",
        "lifter": "lifter",
    }
    for name in ("generator", "lifter"):
        wanted = open_bundle.stage(name).settings["landmarks"]
        assert set(wanted) <= set(BLAZEPOSE.joints)
        assert open_bundle.stage(name).inputs[0].shape == ("B", len(wanted), 3)


def test_everything_says_where_it_comes_from(open_bundle: Bundle) -> None:
    manifest = open_bundle.manifest
    provenances = [stage.provenance for stage in manifest.stages] + [manifest.body.provenance]
    for provenance in provenances:
        assert provenance.source
        assert provenance.licence.startswith(("Apache-2.0", "CC0"))


def test_every_stage_was_measured_against_its_original(open_bundle: Bundle) -> None:
    for stage in open_bundle.manifest.stages:
        assert stage.graph().parity
        assert stage.macs > 0
        assert stage.parity_data is not None
        for gate in stage.graph().parity.values():
            assert 0 <= gate.value <= gate.tolerance
    gates = [gate for s in open_bundle.manifest.stages for gate in s.graph().parity.values()]
    values = [gate.value for gate in gates]
    assert max(values) > 0  # a runtime that rounded exactly alike would be a gate that sees nothing


def test_calibration_weights_are_shares_of_bones(open_bundle: Bundle) -> None:
    body = open_bundle.body()
    stored = SparseWeights(
        *(body[builder.PREFIX + part] for part in ("indices", "values", "offsets"))
    )
    assert open_bundle.manifest.calibrations[0].settings["trained"]
    for weights in (stored, builder.untrained_weights(body)):
        indices, values, offsets = weights.indices, weights.values, weights.offsets
        assert indices.shape == values.shape == offsets.shape
        assert len(indices) == len(body["v_template"])
        assert indices.max() < len(SMPL.bones)
        np.testing.assert_allclose(values.sum(1), 1.0, atol=1e-5)
        assert (values >= 0).all()
        assert (offsets >= 0).all()
        assert (offsets <= values + 1e-6).all()


def test_carries_are_shares_of_landmarks() -> None:
    for joint, row in builder.CARRY.items():
        assert joint in SMPL.joints
        assert set(row) <= set(BLAZEPOSE.joints), joint
        assert sum(row.values()) == pytest.approx(1.0), joint
    assert set(builder.CARRY) == set(SMPL.joints)


def test_carries_are_symmetric() -> None:
    def mirrored(name: str) -> str:
        for a, b in (("left_", "right_"), ("right_", "left_")):
            if name.startswith(a):
                return b + name[len(a) :]
        return name

    for joint, row in builder.CARRY.items():
        expected = {mirrored(landmark): weight for landmark, weight in row.items()}
        assert builder.CARRY[mirrored(joint)] == pytest.approx(expected)


# How it is built


def test_building_again_gives_the_same_files(
    quick_body: None, open_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder.build_bundle(tmp_path / "again", "open", {"landmarks": "full"})
    again = Bundle.load(tmp_path / "again")
    for stage in again.manifest.stages:
        assert stage.graph().sha256 == open_bundle.stage(stage.name).graph().sha256
        assert stage.parity_data == open_bundle.stage(stage.name).parity_data
    assert again.manifest.body == open_bundle.manifest.body
    assert "building the bundle" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_build_leaves_nothing(
    error: BaseException, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, progress: Callable[[float], None]) -> None:
        progress(0.5)
        raise error

    monkeypatch.setattr(builder, "fetch", lambda name: Path("unused"))
    monkeypatch.setattr(builder, "build_open_body", interrupted)
    monkeypatch.setattr(builder, "build_detector", lambda: None)
    monkeypatch.setattr(builder, "build_landmark", lambda variant, heatmaps: None)
    monkeypatch.setattr(builder, "_add_blazepose", lambda *_: None)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        builder.open_bundle()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_it_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(target: Path, name: str, landmarks: dict[str, str]) -> None:
        built.append((name, landmarks))
        target.mkdir(parents=True)
        (target / "bundle.json").write_text("{}")

    monkeypatch.setattr(builder, "build_bundle", build)
    assert builder.open_bundle() == builder.open_bundle()
    assert builder.open_plus_bundle() != builder.open_bundle()
    assert built == [
        ("open", {"landmarks": "full"}),
        ("open-plus", {"landmarks": "full", "pose_landmarks": "heavy"}),
    ]


def test_every_file_that_builds_it_counts_as_a_source() -> None:
    """All of this room that building needs, and no other: an edit elsewhere costs no rebuild."""
    code = "import json, sys, pchmr_export.open_bundle; print(json.dumps(list(sys.modules)))"
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **paths}, capture_output=True, check=True
    )
    room = Path(builder.__file__).parent
    needed = {
        name.partition(".")[2]
        for name in json.loads(done.stdout)
        if name.startswith("pchmr_export.")
    }
    sources = builder._sources()
    assert needed <= {path.stem for path in sources if path.parent == room}
    assert {path.name for path in sources} >= {"pins.py", "skeletons.py", "generator.onnx"}
    other = room / "open_networks.py"
    assert other.is_file()
    assert other not in sources


def test_another_version_of_its_sources_is_built_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    monkeypatch.setattr(builder, "build_bundle", lambda target, *_: folders.append(target))
    for digest in ("a" * 64, "b" * 64):
        monkeypatch.setattr(builder, "_sources_digest", lambda digest=digest: digest)
        builder.open_bundle()
    assert folders[0] != folders[1]


@pytest.mark.parametrize("package", ["scipy", "onnx"])
def test_a_package_that_is_missing(
    package: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(MissingDependency, match=rf"'{package}'.*pip install 'pchmr\[open\]'"):
        builder.open_bundle()


def test_open_plus_without_npm(
    cache: Path, monkeypatch: pytest.MonkeyPatch, assets: Callable[[str], Path]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(
        builder, "fetch", lambda name: fetch_heavy(name) if "heavy" in name else Path("unused")
    )
    with pytest.raises(AssetError, match=r"npm is not installed: install Node\.js"):
        builder.open_plus_bundle()


def fetch_heavy(name: str) -> Path:
    return assets.fetch(name, progress=False)


def test_a_stage_that_differs_from_its_original_stops_the_build(open_bundle: Bundle) -> None:
    manifest = open_bundle.manifest
    files = {ref.file: open_bundle.root / ref.file for ref in manifest.files()}

    def changed(stage: Stage) -> Stage:
        graph = stage.graph()
        if stage.name != "lifter":
            return replace(stage, graphs=(replace(graph, parity={}),), parity_data=None)
        strict = {name: replace(gate, tolerance=1e-12) for name, gate in graph.parity.items()}
        return replace(stage, graphs=(replace(graph, parity=strict),))

    stages = [changed(stage) for stage in manifest.stages]
    kept = {ref.file for ref in replace(manifest, stages=tuple(stages)).files()}
    with pytest.raises(PchmrError, match=r"stage 'lifter': \w+ is .* mm off .* report this"):
        builder.with_measured_parity(
            replace(manifest, stages=tuple(stages)),
            {name: path for name, path in files.items() if name in kept},
        )
