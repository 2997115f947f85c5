"""`open` in lower precisions: stopped, resumed and refused; verified and built."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import few_frames

from pchmr_engines.backends import openvino
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import EngineError
from pchmr_engines.manifest import Manifest, Precision, Topology
from pchmr_export import lowering
from pchmr_export.assemble import Exported, export_open
from pchmr_export.budgets import Spent
from pchmr_export.composition import demo_frames
from pchmr_export.mesh_budget import Composed
from pchmr_export.precision import BudgetExceeded, Lowered
from pchmr_export.rehearsal import covering, recorded_inputs
from pchmr_export.work_folder import WorkFolder

Run = Callable[..., tuple[int, str, str]]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
if openvino.has_bf16():
    PRECISIONS += ("bf16",)
STAGES = ("detector", "landmarks", "generator", "lifter")


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def _few_frames() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        few_frames(patch.setattr)
        yield


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's bundle lies; `work` beside it is its work folder."""
    return tmp_path_factory.mktemp("lowered") / "bundle"


@pytest.fixture(scope="module")
def stopped(target: Path) -> Manifest:
    """The manifest there once a bundle of float32 was to be replaced, which was stopped late."""

    def stop(step: str) -> None:
        if step == f"composition in {PRECISIONS[-1]}":
            raise Killed

    work = WorkFolder(target.parent / "work")
    export_open("open", target, work=work)
    with pytest.raises(Killed):
        export_open("open", target, PRECISIONS, work, stop)
    return Bundle.load(target).manifest


@pytest.fixture(scope="module")
def exported(stopped: Manifest, target: Path) -> Exported:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "recorded_inputs", None)  # graphs were made before
        return export_open("open", target, PRECISIONS, WorkFolder(target.parent / "work"))


def test_a_stopped_export_leaves_the_old_bundle(
    stopped: Manifest, open_bundle: Bundle, exported: Exported
) -> None:
    assert stopped == open_bundle.manifest
    assert exported.bundle.manifest != stopped


def test_every_stage_of_open_holds_its_budgets(exported: Exported) -> None:
    lowered = exported.lowered
    assert lowered
    assert lowered.refused == ()
    kinds = {stage.name: tuple(g.precision for g in stage.graphs) for stage in lowered.stages}
    assert kinds == dict.fromkeys(STAGES, PRECISIONS)
    assert {mesh.spent.precision for mesh in lowered.composed} == set(PRECISIONS[1:])
    assert all(0 < figure.mean <= figure.budget for figure in lowered.spent)
    assert all(mesh.spent.passed for mesh in lowered.composed)
    assert exported.bundle.stage("lifter").graph("fp16").notes


@pytest.mark.parametrize(
    ("topologies", "run"),
    [
        (("serial", "parallel", "template", "mesh-only"), ("parallel", "serial")),
        (("serial", "template"), ("serial", "template")),
        (("template", "mesh-only"), ("template", "mesh-only")),
    ],
)
def test_every_stage_is_rehearsed(
    topologies: tuple[Topology, ...], run: tuple[str, ...], open_bundle: Bundle
) -> None:
    manifest = replace(open_bundle.manifest, topologies=topologies)
    bundle = replace(open_bundle, manifest=manifest)
    assert covering(bundle) == run
    assert recorded_inputs(bundle, [demo_frames(2)]).keys() == set(STAGES)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_verify_and_build_take_the_precision(
    precision: str, exported: Exported, run: Run, tmp_path: Path
) -> None:
    root = exported.bundle.root
    code, out, _ = run("verify", root, "--precision", precision)
    assert (code, out.count(f"{precision} ")) == (0, 9)
    code, out, _ = run("build", root, "--backend", "openvino", "--precision", precision)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(STAGES)


def test_the_precision_named_first_runs_by_default(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowering, "composed", None)  # nothing is measured again
    work = WorkFolder(exported.bundle.root.parent / "work")
    again = export_open("open", tmp_path / "again", ("fp16", "fp32"), work)
    assert [graph.precision for graph in again.bundle.stage("lifter").graphs] == ["fp16", "fp32"]
    assert again.lowered
    assert exported.lowered
    known = {figure for figure in exported.lowered.spent if figure.precision == "fp16"}
    assert set(again.lowered.spent) == known


def test_what_is_refused_is_printed_beside_a_bundle_of_the_rest(
    exported: Exported, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "stage 'landmarks' in fp16 on onnxruntime: world is 13 mm off: the stage stays float32"

    def refuse(*arguments: Any) -> Lowered:
        raise BudgetExceeded(line, ())

    work = shutil.copytree(target := exported.bundle.root.parent / "work", tmp_path / "work")
    for path in target.glob("*/landmarks.fp16.onnx"):
        shutil.rmtree(work / path.parent.name)
    monkeypatch.setattr(lowering, "lower_stage", refuse)
    monkeypatch.setattr(lowering, "recorded_inputs", lambda *given: {"landmarks": {}})
    bundle = tmp_path / "bundle"
    arguments = ("export", "open", "-o", bundle, "--precision", "fp16", "--work", work)
    code, out, err = run(*arguments, "--no-report")
    assert code == 1
    assert f"refused: {line}" in err.splitlines()
    assert "detector in fp16: judged on real crops" in out
    kinds = {name: len(stage.graphs) for name, stage in Bundle.load(bundle).stages.items()}
    assert kinds == dict.fromkeys(STAGES, 2) | {"landmarks": 1}
    code, _, err = run("build", bundle, "--backend", "openvino", "--precision", "fp16")
    rest = "--stage detector --stage generator --stage lifter"
    assert (code, f"have no fp16 .onnx graph: build the others with  {rest}" in err) == (1, True)


class Spending:
    """Stages in place of `_Steps`. costs: stage -> mm of the mesh at each level that it has."""

    def __init__(self, costs: Mapping[str, Mapping[int, float]]) -> None:
        self.costs, self.refused = costs, list[str]()

    def lower(self, name: str, precision: str, levels: tuple[int, ...] = (0,)) -> Any:
        found = [level for level in levels if level in self.costs[name]]
        return lowered(name, found[0]) if found else None

    def meshes(self, precision: str, made: Mapping[str, Any]) -> tuple[Composed, ...]:
        total = sum(self.costs[name][one.level] for name, one in made.items())
        figure = Spent("composition: serial", "mesh", "x", "int8", "mm", total, 0.0, 0.0, 10.0)
        return (Composed(figure, None, None),)  # type: ignore[arg-type]


def lowered(name: str, level: int) -> Lowered:
    return Lowered(None, "int8", Path(name), level, 0, (), {})  # type: ignore[arg-type]


def test_the_stage_that_spends_most_gives_way_until_the_mesh_holds() -> None:
    costs = {"landmarks": {0: 9.0, 2: 7.0}, "generator": {0: 4.0}, "lifter": {0: 3.0}}
    made: Any = {(name, "int8"): lowered(name, 0) for name in costs}
    steps: Any = Spending(costs)
    (mesh,) = lowering._hold_together(steps, made, "int8")
    assert mesh.spent.mean == 7.0  # 9 + 4 + 3, then 7 + 4 + 3, then without the landmarks
    assert [name for name, _ in made] == ["generator", "lifter"]
    first, second = steps.refused
    assert "the mesh is 16 mm a vertex off float32 in the mean; allowed are 10. Stage 'lan" in first
    assert first.endswith("spends most of it, 9 mm alone, and keeps its last 2 layers in float32")
    assert second.endswith("Stage 'landmarks' spends most of it, 7 mm alone, and stays float32")


def test_bf16_where_the_cpu_has_none_is_one_line(
    run: Run, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "bf16" not in PRECISIONS:
        pytest.skip("not tested: this CPU has no bf16, nor the bundle")
    for module in (openvino, sys.modules["pchmr_export.precision"]):
        monkeypatch.setattr(module, "has_bf16", lambda: False)
    root = exported.bundle.root
    for arguments, message in (
        (("export", "open", "-o", tmp_path / "b", "--precision", "bf16"), "cannot be judged here"),
        (("build", root, "--backend", "openvino", "--precision", "bf16", "--force"), "has no bf16"),
        (("verify", root, "--backend", "openvino", "--precision", "bf16"), "has no bf16"),
        (("export", "open", "-o", tmp_path / "b", "--precision", "fp12"), "'fp12' is unknown; ex"),
    ):
        code, _, err = run(*arguments)
        (line,) = (line for line in err.splitlines() if line.startswith("pchmr: "))
        assert (code, message in line) == (1, True), line
    assert not (tmp_path / "b").exists()
    with pytest.raises(EngineError, match="no bf16 instructions: use precision='fp32'"):
        exported.bundle.engine("lifter", "openvino", precision="bf16")
