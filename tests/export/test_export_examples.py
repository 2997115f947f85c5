"""The programs of examples/ that export run, and give what they say."""

import runpy
import sys
from pathlib import Path

import pytest

from pchmr_engines.bundle import Bundle
from pchmr_export import assemble
from pchmr_export.work_folder import WorkFolder

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _work(work: WorkFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of made-up weights stay out of the user's cache."""
    monkeypatch.setattr(assemble, "WorkFolder", lambda: work)


def run_example(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    path = EXAMPLES / name
    monkeypatch.setattr("sys.argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


def test_bring_your_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(
        "bring_your_own_checkpoint.py", monkeypatch, "spin_hmr+semgcn_plain", tmp_path / "bundle"
    )
    printed = capsys.readouterr().out
    assert "composition serial vertices onnxruntime: " in printed
    assert printed.endswith("39 (6890, 3) True\n")


def test_custom_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("custom_stage.py", monkeypatch, tmp_path / "bundle")
    assert capsys.readouterr().out.endswith("detector landmarks generator lifter\n")
    stage = Bundle.load(tmp_path / "bundle").stage("generator")
    assert stage.provenance.source == "custom_stage:Generator"
    assert [spec.name for spec in stage.outputs] == ["vertices", "cam"]


@pytest.mark.parametrize(
    ("name", "missing"),
    [("custom_stage.py", "torch"), ("bring_your_own_checkpoint.py", "pchmr_export.assemble")],
)
def test_without_pytorch_it_is_one_line(
    name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=r"run  pip install 'pchmr\[export\]'$"):
        run_example(name, monkeypatch)


def test_a_recipe_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^none is no recipe"):
        run_example("bring_your_own_checkpoint.py", monkeypatch, "none")
