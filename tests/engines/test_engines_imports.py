"""The engines room imports, and says what is missing, without any runtime installed."""

import subprocess
import sys
from pathlib import Path

import pchmr_engines

BLOCKED = ("onnxruntime", "openvino", "onnx", "torch", "cupy", "tensorrt", "tensorrt_rtx")
SCRIPT = """
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
for name in {modules}:
    importlib.import_module(name)
"""


def test_every_module_imports_with_the_optional_packages_blocked():
    root = Path(pchmr_engines.__file__).parent
    files = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py")]
    modules = [".".join(("pchmr_engines", *path.parts)) for path in files]
    assert "pchmr_engines.backends.openvino" in modules
    script = SCRIPT.format(blocked=set(BLOCKED), modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(root.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
