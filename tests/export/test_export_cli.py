"""`pchmr export` on the command line."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from export_cases import seeded, small_recipe

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.verify import Gate
from pchmr_export import report, single_file, single_whole
from pchmr_export.onnx_graph import StageFile
from pchmr_export.ready import recipe_text
from pchmr_export.strict_toml import read_toml
from pchmr_export.work_folder import WorkFolder

Run = Callable[..., tuple[int, str, str]]


def test_a_recipe_becomes_a_bundle_with_a_parity_table_and_a_report(
    run: Run, tmp_path: Path, work: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_recipe(tmp_path)  # writes its module
    monkeypatch.setattr(
        report, "write_report", lambda bundle, *given, modules: bundle.root / "report.md"
    )
    (tmp_path / "r.toml").write_text(
        """
        name = "small"
        body.file = "synthetic"
        [stages.generator]
        kind = "custom"
        source = "my_networks:small"
        outputs = ["vertices", "cam"]
        takes.image = { size = [224, 224], crop = "spin" }
        settings = { camera = "weak" }
        licence = "of the test"
        [stages.lifter]
        network = "videopose3d_h36m_9"
        checkpoint = "seeded"
        """
    )
    target = tmp_path / "bundle"
    arguments = ("export", tmp_path / "r.toml", "-o", target, "--work", work.root)
    code, _, err = run(*arguments)
    assert (code, err.splitlines()[-1].split(": add")[0]) == (
        1,
        "pchmr: small: stage generator would run the code of my_networks:small",
    )
    code, out, _ = run(*arguments, "--trust")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["stage", "output", "precision", "onnxruntime", "openvino", "allowed"] in lines
    assert {"detector", "landmarks", "generator", "lifter", "composition"} <= {
        line[0] for line in lines if line
    }
    assert [str(target / "report.md")] in lines
    code, out, _ = run(*arguments, "--trust", "--no-report", "--json")
    found = json.loads(out)
    assert (code, found["bundle"], found["report"]) == (0, str(target), None)
    assert (found["topologies"], found["budgets"]) == (["serial", "mesh-only"], [])
    assert all(gate["passed"] for gate in found["gates"])
    assert {"detector", "lifter", "composition"} <= {gate["stage"] for gate in found["gates"]}
    assert Bundle.load(target).manifest.topologies == ("serial", "mesh-only")


def test_ready_recipes_are_listed_and_shown_as_toml(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", "--list")
    assert code == 0
    assert "vibe+cpn50_384x288+videopose3d_coco_243          s p t  h36m17, coco17" in out
    code, out, _ = run("export", "--list", "--json")
    rows = {row.pop("recipe"): row for row in json.loads(out)}
    assert rows["vibe+cpn50_384x288+videopose3d_coco_243"] == {
        "topologies": ["serial", "parallel", "template"],
        "joints": ["h36m17", "coco17"],
        "approximate": [],
    }
    code, out, _ = run(
        *("export", "spin_hmr+videopose3d_h36m_9", "--show", "--checkpoint", "lifter=a.bin"),
        *("--body", "SMPL.pkl", "--regressor", "h36m17=J.npy", "--calibration", "w.npz"),
    )
    (tmp_path / "r.toml").write_text(out)
    tables = read_toml(tmp_path / "r.toml")
    assert code == 0
    assert Path(tables["stages"]["lifter"]["checkpoint"]) == Path("a.bin").absolute()
    assert tables["stages"]["generator"] == seeded("spin_hmr")
    assert Path(tables["body"]["file"]) == Path("SMPL.pkl").absolute()
    assert Path(tables["body"]["regressors"]["h36m17"]) == Path("J.npy").absolute()
    assert Path(tables["calibration"]["weights"]) == Path("w.npz").absolute()


def test_a_single_file_is_told_as_json(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TensorSpec("image", ("B", 224, 224, 3), "uint8")
    gates = (Gate("serial", "joints", "openvino", "fp32", "mm", 0.1, 0.1, 1.0),)
    monkeypatch.setattr(single_whole, "whole_of_open", lambda *given: None)
    monkeypatch.setattr(
        single_file,
        "export_single_file",
        lambda whole, path: (StageFile(path, (), (spec,), (spec,)), gates),
    )
    code, out, _ = run("export", "open", "--single-file", tmp_path / "x.onnx", "--json")
    found = json.loads(out)
    assert (code, found["file"], found["topology"]) == (0, str(tmp_path / "x.onnx"), "serial")
    image = {"name": "image", "shape": ["B", 224, 224, 3], "dtype": "uint8"}
    assert found["inputs"] == found["outputs"] == [image]
    assert found["gates"] == [asdict(gates[0]) | {"passed": True}]


@pytest.mark.parametrize("missing", ["torch", "onnxscript"])
def test_a_package_that_the_extra_brings_is_named(
    missing: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else name)
    code, _, err = run("export", "--list")
    assert code == 1
    assert f"needs the package '{missing}'" in err
    assert "pip install 'pchmr[export]'" in err


@pytest.mark.slow
def test_the_whole_is_one_file_for_other_runtimes(run: Run, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path = tmp_path / "whole.onnx"
    code, out, _ = run("export", "spin_hmr+semgcn_plain", "--single-file", path)
    assert code == 0
    assert list(tmp_path.iterdir()) == [path]
    outputs = ["vertices", "generator_vertices", "joints", "target_joints", "translation"]
    assert [value.name for value in onnx.load(path).graph.output] == outputs
    assert all(f"serial  {name}" in out for name in outputs)
    assert "image (B, 224, 224, 3) uint8" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which recipe? give a .toml or a name that"),
        (("opne",), "opne is no recipe"),
        (("open", "--checkpoint", "lifter=x.pt"), "open is built from pinned files"),
        (("none.toml",), "none.toml: No such file"),
        (("spin_hmr+semgcn_plain", "--show", "--json"), "--show prints TOML: leave it or --json"),
        (("spin_hmr+semgcn_plain", "--checkpoint", "lifter"), "--checkpoint lifter: expected NAME"),
        (("spin_hmr+semgcn_plain", "--checkpoint", "pose2d=x.pt"), "has no such stage"),
        (("spin_hmr+semgcn_plain", "--body", "none.pkl"), "there is no file"),
        (("spin_hmr+videopose3d_h36m_9", "--single-file", "x.onnx"), "sees several frames"),
        (
            ("open", "--single-file", "x.onnx", "--topology", "template"),
            "expected serial or parall",
        ),
        (
            ("spin_hmr+semgcn_plain", "--single-file", "x.onnx", "--topology", "parallel"),
            "no single file of 'parallel'; its stages allow serial",
        ),
    ],
)
def test_an_error_is_one_line(
    arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    code, out, err = run("export", *arguments, "-o", tmp_path / "bundle")
    lines = [line for line in err.splitlines() if line.startswith("pchmr: ")]
    assert (code, len(lines)) == (1, 1)
    assert message in lines[0]
    assert not (tmp_path / "bundle").exists()
    assert out == ""


def test_a_recipe_of_ones_own_stays_as_it_is(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    with pytest.raises(InputError, match="small has stages of its own: change the recipe's"):
        recipe_text(recipe)
