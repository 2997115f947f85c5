"""`pchmr export`: what it is asked, where it writes, and what it says meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pchmr_engines.errors import InputError
from pchmr_engines.progress import progress
from pchmr_export import assemble, precision, quantise
from pchmr_export.cli import _precisions

Run = Callable[..., tuple[int, str, str]]


def test_precisions_are_a_list_or_repeated() -> None:
    assert _precisions(["fp16,bf16"]) == _precisions(["fp16", "bf16"]) == ("fp32", "fp16", "bf16")
    assert _precisions(["int8, fp32"]) == ("int8", "fp32")
    assert _precisions(None) == ()
    with pytest.raises(InputError, match="precision 'fp61' is unknown"):
        _precisions(["fp16,fp61"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spin_hmr+semgcn_plain", "--topology", "parallel"), "its stages allow serial, mesh-only"),
        (("spin_hmr+semgcn_plain", "--topology", "mesh-only"), "no topology runs the stage lifter"),
        (("spin_hmr+semgcn_plain", "--topology", "sreial"), "its stages allow serial, mesh-only"),
        (("open", "--topology", "serial"), "open is built from pinned files"),
        (("open", "--single-file", "x.onnx", "--precision", "fp16"), "a single file is float32"),
        (("open", "-o", "{}/file"), "is there and is no bundle: choose another folder"),
        (("open", "-o", "{}/full"), "is there and is no bundle: choose another folder"),
        (("open", "-o", "{}/file/bundle"), "cannot write in "),
        (("open", "-o", "{}/new", "--work", "{}/file"), "cannot write in "),
        (("spin_hmr+semgcn_plain", "-o", "{}/full"), "is there and is no bundle"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_work(
    arguments: tuple[str, ...],
    message: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assemble, "make_body", None)  # nothing is begun
    monkeypatch.setattr(assemble, "verify_bundle", None)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own").touch()
    code, out, err = run("export", *(part.format(tmp_path) for part in arguments))
    (line,) = (line for line in err.splitlines() if line.startswith("pchmr: "))
    assert (code, out, message in line) == (1, "", True), line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "own"]


def test_bf16_where_the_cpu_has_none_is_told_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    monkeypatch.setattr(assemble, "verify_bundle", None)
    code, out, err = run("export", "open", "-o", tmp_path / "b", "--precision", "fp16,bf16")
    (line,) = (line for line in err.splitlines() if line.startswith("pchmr: "))
    assert (code, out, list(tmp_path.iterdir())) == (1, "", [])
    assert "bf16 cannot be judged here: it takes openvino on a CPU with bf16; leave it" in line


def test_int8_without_its_quantiser_is_told_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    monkeypatch.setattr(assemble, "verify_bundle", None)
    code, out, err = run("export", "open", "-o", tmp_path / "b", "--precision", "int8")
    (line,) = (line for line in err.splitlines() if line.startswith("pchmr: "))
    assert (code, out, list(tmp_path.iterdir())) == (1, "", [])
    assert "quantising with nncf needs the package 'nncf'" in line


def test_one_topology_needs_less_of_the_body(run: Run) -> None:
    name = "spin_hmr+hrnet_w32_256x192+videopose3d_coco_243"
    code, out, _ = run("export", name, "--topology", "parallel", "--show")
    assert (code, 'topologies = ["parallel"]' in out) == (0, True)


def test_a_log_has_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as tell:
        for done in (0.1, 0.2):
            tell("detector", "tactics", done)
        tell("landmarks [full]")
    out, err = capsys.readouterr()
    assert [line.split(" s  ")[1] for line in err.splitlines()] == ["detector", "landmarks [full]"]
    assert (out, err.isascii()) == ("", True)
