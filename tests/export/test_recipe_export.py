"""Whole exports: every kind of composition, planted faults, resuming, a killed one, two at once.

Of small custom networks, and of official ones; one more of those is in test_export_examples.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_cases import LIFTER, POSE2D, POSE3D, seeded, small_recipe
from seeded_stages import COMPOSITIONS

from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.errors import InputError, PchmrError
from pchmr_engines.manifest import Manifest
from pchmr_engines.store import path_inside
from pchmr_engines.verify import verify_bundle
from pchmr_export import assemble
from pchmr_export.assemble import Exported, export_recipe
from pchmr_export.composition import composition_gates
from pchmr_export.gates import GateFailed, check
from pchmr_export.ready import ready_recipe
from pchmr_export.recipe import Recipe
from pchmr_export.recipe_body import make_body
from pchmr_export.stage_build import load_network
from pchmr_export.work_folder import WorkFolder, locked

POSE_STREAMS: dict[str, dict[str, Any]] = {
    "pose2d and lifter": {"pose2d": POSE2D, "lifter": seeded("semgcn_plain")},
    "pose3d": {"pose3d": POSE3D},
}
SLOW = (
    "spin_hmr+cpn50_256x192+semgcn_linear16",
    "vibe+videopose3d_h36m_9",
    "hmmr_tf+videopose3d_h36m_27",
    "hmr2+semgcn_nonlocal",
    "spin_hmr+hrnet_w32_256x192+videopose3d_h36m_243",
    "vibe+hrnet_w48_384x288+videopose3d_coco_243",
)
Export = Callable[[Recipe], Exported]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, work: WorkFolder) -> Export:
    """Exports into a bundle of the recipe's name; finished stages are shared."""
    folder = tmp_path_factory.mktemp("exports")

    def export(recipe: Recipe) -> Exported:
        return export_recipe(recipe, folder / recipe.name, work, trust=True)

    return export


@pytest.fixture(scope="module")
def small(export: Export, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Exported]:
    """A custom generator of vertices and a temporal lifter."""
    recipe = small_recipe(tmp_path_factory.mktemp("recipe"), LIFTER)
    return recipe, export(recipe)


def check_exported(recipe: Recipe, exported: Exported) -> None:
    bundle = exported.bundle
    assert bundle.manifest.topologies == recipe.topologies
    assert list(bundle.stages) == ["detector", "landmarks", *recipe.stages]
    for name, stage in bundle.stages.items():
        assert stage.macs
        assert stage.provenance.licence
        assert stage.provenance.exporter or name in ("detector", "landmarks")
    composed = {gate.output for gate in exported.gates if gate.stage == "composition"}
    for topology in {"serial", "parallel", "template"} & set(recipe.topologies):
        assert {f"{topology} vertices", f"{topology} generator_vertices"} <= composed
    assert all(gate.passed for gate in exported.gates)
    assert {gate.backend for gate in exported.gates} == {"onnxruntime", "openvino"}
    (pair,) = bundle.manifest.calibrations
    assert pair.settings["composition"].keys() == composed


@pytest.mark.parametrize("name", POSE_STREAMS)
def test_a_parallel_bundle_is_what_pytorch_computes(
    name: str, export: Export, tmp_path: Path
) -> None:
    recipe = replace(small_recipe(tmp_path, POSE_STREAMS[name]), name=name)
    assert "parallel" in recipe.topologies
    check_exported(recipe, export(recipe))


@pytest.mark.parametrize(
    "name", [*COMPOSITIONS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_bundles_of_ready_recipes_are_what_pytorch_computes(
    name: str, work: WorkFolder, tmp_path: Path
) -> None:
    recipe = ready_recipe(name)
    check_exported(recipe, export_recipe(recipe, tmp_path, work))
    shutil.rmtree(tmp_path)  # gigabytes, which pytest would keep


def test_a_custom_generator_of_vertices_needs_no_body_stage(
    small: tuple[Recipe, Exported],
) -> None:
    recipe, exported = small
    check_exported(recipe, exported)
    assert all(gate.passed for gate in verify_bundle(exported.bundle, "onnxruntime", threads=1))


def files_of(exported: Exported) -> dict[str, Any]:
    root = exported.bundle.root
    return {ref.file: path_inside(root, ref.file) for ref in exported.bundle.manifest.files()}


def changed(manifest: Manifest, stage: str, **changes: Any) -> Manifest:
    stages = tuple(
        replace(held, **changes) if held.name == stage else held for held in manifest.stages
    )
    return replace(manifest, stages=stages)


@pytest.mark.parametrize("fault", ["crop", "camera", "joints", "weights"])
def test_planted_faults_fail_the_composition(
    fault: str, small: tuple[Recipe, Exported], tmp_path: Path
) -> None:
    recipe, exported = small
    bundle = exported.bundle
    manifest = bundle.manifest
    stages = bundle.stages
    files = files_of(exported)
    if fault == "crop":
        rule = replace(stages["generator"].crop, affine="hmr2")  # type: ignore[type-var]
        manifest = changed(manifest, "generator", crop=rule)
    elif fault == "camera":
        settings = {**stages["generator"].settings, "camera": "perspective"}
        manifest = changed(manifest, "generator", settings=settings)
    elif fault == "joints":
        settings = {**stages["lifter"].settings, "keypoints": "spin_h36m17"}  # left leg first
        manifest = changed(manifest, "lifter", settings=settings)
    else:
        arrays = bundle.body()
        values = arrays["calibration_h36m17_offsets"]
        arrays["calibration_h36m17_offsets"] = np.ascontiguousarray(values[::-1])
        np.savez(tmp_path / "body.npz", **arrays)
        files["body.npz"] = tmp_path / "body.npz"
    faulty = write_bundle(tmp_path / "faulty", manifest, files)
    networks = {name: load_network(recipe, name, trust=True) for name in recipe.stages}
    gates = composition_gates(recipe, make_body(recipe), networks, faulty, ["onnxruntime"])
    with pytest.raises(GateFailed, match="stage 'composition' in fp32 on onnxruntime: serial"):
        check(gates)


def test_a_second_export_reuses_what_was_finished(
    small: tuple[Recipe, Exported], export: Export, work: WorkFolder
) -> None:
    recipe, exported = small
    before = {path: path.stat().st_mtime_ns for path in work.root.iterdir()}
    again = export(recipe)
    assert {path: path.stat().st_mtime_ns for path in work.root.iterdir()} == before
    assert again.bundle.manifest == exported.bundle.manifest
    assert again.gates == exported.gates


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_bundle_and_goes_on_where_it_was(
    small: tuple[Recipe, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = small[1]
    target, marker = tmp_path / "bundle", tmp_path / "marker"
    shutil.copytree(exported.bundle.root, target)
    other = small_recipe(tmp_path, {"lifter": seeded("semgcn_plain")})
    command = (
        "from pathlib import Path; from export_cases import *; "
        "from pchmr_export.assemble import *; from pchmr_export.work_folder import *; "
        f"folder = Path({str(tmp_path)!r}); "
        "recipe = small_recipe(folder, {'lifter': seeded('semgcn_plain')}); "
        "export_recipe(recipe, folder / 'bundle', WorkFolder(folder / 'work'), trust=True)"
    )
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        [sys.executable, "-c", command], env={**environment, "EXPORT_STOPS_AT": str(marker)}
    ) as process:
        while not marker.exists():  # it is in the midst of the stage generator
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert Bundle.load(target).manifest == exported.bundle.manifest

    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert len(finished) == 2  # detector, landmarks
    sys.modules.pop("my_networks", None)
    monkeypatch.setattr(assemble, "_composition", lambda *given: ())  # it is tried elsewhere
    export_recipe(other, target, WorkFolder(tmp_path / "work"), trust=True)
    assert list(Bundle.load(target).stages)[-1] == "lifter"
    kept = {path: path.stat().st_mtime_ns for path in finished}
    assert kept == finished
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert hidden == []


def test_two_exports_into_one_folder_do_not_meet(
    small: tuple[Recipe, Exported], export: Export
) -> None:
    recipe, exported = small
    with (
        locked(exported.bundle.root),
        pytest.raises(PchmrError, match=r"another export is writing .*: wait for it, or choose"),
    ):
        export(recipe)
    export(recipe)


def test_a_full_disk_is_told_before_the_work(
    small: tuple[Recipe, Exported], export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"has 100\.0 MB free; small needs about 285\.9 MB"):
        export(small[0])


@pytest.mark.parametrize("full", [(ir, "save"), (shutil, "copyfile")])
def test_a_disk_that_fills_up_is_told_and_finished_stages_stay(
    full: tuple[Any, str],
    small: tuple[Recipe, Exported],
    work: WorkFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the midst of a stage, or of the bundle."""
    recipe = small[0] if full == (shutil, "copyfile") else small_recipe(tmp_path, licence="other")
    (tmp_path / "bundle").mkdir()
    target = write_bundle(tmp_path / "bundle", small[1].bundle.manifest, files_of(small[1])).root

    def no_space(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*full, no_space)
    before = set(work.root.iterdir())
    line = (
        rf"No space left on device in one of {tmp_path}, {work.root}, .*: small needs about "
        rf"[\d.]+ MB there; free some, and run it again: finished stages are kept in {work.root}$"
    )
    with pytest.raises(InputError, match=line):
        export_recipe(recipe, target, work, trust=True)
    assert set(work.root.iterdir()) == before
    assert Bundle.load(target).manifest == small[1].bundle.manifest
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_of_another_network_is_refused_in_a_line(
    export: Export, tmp_path: Path
) -> None:
    network = load_network(ready_recipe("spin_hmr+semgcn_plain"), "lifter").network
    torch.save({"state_dict": network.state_dict()}, tmp_path / "model.pt")
    recipe = ready_recipe("spin_hmr+videopose3d_h36m_9")
    stage = replace(recipe.stages["lifter"], checkpoint=str(tmp_path / "model.pt"))
    recipe = replace(recipe, stages={**recipe.stages, "lifter": stage})
    with pytest.raises(InputError, match=r"model.pt is not videopose3d_h36m_9 but looks like semg"):
        load_network(recipe, "lifter")
    missing = replace(stage, checkpoint=str(tmp_path / "none.pt"))
    recipe = replace(recipe, stages={**recipe.stages, "lifter": missing})
    with pytest.raises(InputError, match=r"there is no file .*none\.pt"):
        export(recipe)
