"""The check of TensorRT's API sees what one version has and the other lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USES = """
import tensorrt as trt

def only_before_11(config: trt.IBuilderConfig) -> None:
    config.set_flag(trt.BuilderFlag.FP16)

def only_after_10(context: trt.IExecutionContext) -> None:
    print(context.unfused_tensors_debug_state)

def in_both(context: trt.IExecutionContext) -> bool:
    return context.execute_async_v3(0)
"""


@pytest.mark.slow
def test_a_call_that_one_version_lacks_is_found(tmp_path: Path) -> None:
    file = tmp_path / "uses.py"
    file.write_text(USES)
    command = [sys.executable, "tools/check_tensorrt_api.py", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "can be had" in done.stdout or "not checked" in done.stdout:
        pytest.skip(f"the check itself was not tested: {done.stdout}")
    assert done.returncode == 1
    oldest, newest = done.stdout.split("TensorRT 1")[1:]
    assert oldest.count("error:") == 1
    assert newest.count("error:") == 1
    assert '"IExecutionContext" has no attribute "unfused_tensors_debug_state"' in oldest
    assert '"type[BuilderFlag]" has no attribute "FP16"' in newest
