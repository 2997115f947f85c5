"""What an import costs, and that the runtime needs none of its optional packages to be imported."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import pchmr

ROOT = Path(__file__).parents[1]
ROOMS = {
    "pchmr": ROOT / "sdk",
    "pchmr_engines": ROOT / "engines",
    "pchmr_kernels": ROOT / "kernels",
}
OPTIONAL = {
    *("cupy", "tensorrt", "tensorrt_rtx", "pycuda", "torch", "openvino", "onnxruntime", "onnx"),
    *("scipy", "safetensors", "smplx", "viser", "pygame", "rerun"),
}
HEAVY = {*OPTIONAL, "numpy", "cv2", "av", "rich", "typer", "platformdirs", "PIL"}

SCRIPT = """
import importlib, json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}: blocked", name=name)
sys.meta_path.insert(0, Block())
{statements}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def imported_by(statements: str, blocked: set[str] = frozenset()) -> set[str]:
    """Top-level packages that a fresh interpreter holds after `statements`."""
    rooms = [str(ROOT / room) for room in ("sdk", "engines", "kernels", "export", "training")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(blocked=set(blocked), statements=statements)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(rooms)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(room: str) -> list[str]:
    files = sorted((ROOMS[room] / room).rglob("*.py"))
    names = [".".join(file.relative_to(ROOMS[room]).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def test_the_block_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'onnxruntime': blocked"):
        imported_by("import onnxruntime", OPTIONAL)


@pytest.mark.parametrize("room", ROOMS)
def test_every_runtime_module_imports_without_optional_packages(room: str) -> None:
    modules = modules_of(room)
    assert len(modules) > 5
    imported_by(f"for name in {modules}: importlib.import_module(name)", OPTIONAL)


def test_the_open_bundles_builder_imports_without_pytorch() -> None:
    imported_by("import pchmr_export.open_bundle", OPTIONAL - {"onnx", "scipy"})


def test_import_pchmr_imports_nothing_heavy() -> None:
    assert not imported_by("import pchmr") & HEAVY


def test_a_pipeline_imports_no_runtime_before_it_is_loaded() -> None:
    packages = imported_by("from pchmr import Pipeline")
    assert not packages & (OPTIONAL | {"av", "rich", "typer"})
    assert "cv2" in packages


def test_the_command_line_imports_no_runtime() -> None:
    """Heavy imports wait inside the verbs, so that `pchmr --help` is there at once."""
    packages = imported_by("from pchmr.cli.main import make_app; make_app()")
    assert not packages & (OPTIONAL | {"av", "cv2"})
    assert "typer" in packages


def test_what_the_package_offers() -> None:
    assert {"Pipeline", "__version__"} <= set(dir(pchmr))
    assert pchmr.__version__ == version("pchmr")
    assert isinstance(pchmr.Pipeline, type)
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = pchmr.Pipelin
