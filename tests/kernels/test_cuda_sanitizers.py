"""The kernels as host threads under ThreadSanitizer and AddressSanitizer, with planted mistakes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_shim.shim_runtime import build, find_compiler

from pchmr_kernels import cuda

HERE = Path(__file__).parent
BARRIERS = 7  # of `calibrate`; `blend` has one

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_compiler() is None,
        reason="not tested: the CUDA kernels under sanitizers (no g++ here)",
    ),
]


def run_under(library: str, folder: Path, sanitizer: str, *arguments: str):
    """Python itself is not built for it, so the sanitizer is loaded before everything else."""
    shim = build(folder, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=undefined")
    runtime = subprocess.check_output([find_compiler(), f"-print-file-name={library}"], text=True)
    if not os.path.isabs(runtime.strip()):
        pytest.skip(f"not tested: the CUDA kernels under {library} (not installed here)")
    environment = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "TSAN_OPTIONS": "suppress_equal_stacks=0 suppress_equal_addresses=0",
        "PYTHONPATH": os.pathsep.join([str(cuda.NATIVE.parents[1]), str(HERE)]),
    }
    command = [sys.executable, str(HERE / "cuda_shim" / "sanitized.py"), str(shim), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_no_race_and_a_race_without_any_one_of_the_barriers(tmp_path):
    source = (cuda.NATIVE / "calibrate.cu").read_text()
    assert source.count("__syncthreads()") == BARRIERS + 1
    clean = run_under("libtsan.so", tmp_path, "thread")
    assert clean.returncode == 0, clean.stderr
    assert "WARNING" not in clean.stderr
    planted = run_under("libtsan.so", tmp_path, "thread", *map(str, range(BARRIERS)))
    names = re.findall(r"^(without barrier \d|blend)$", planted.stderr, re.M)
    parts = re.split(r"^(?:without barrier \d|blend)$", planted.stderr, flags=re.M)[1:]
    assert len(names) == BARRIERS + 1
    for name, part in zip(names, parts, strict=True):
        assert "ThreadSanitizer: data race" in part, name


def test_nothing_is_read_or_written_beyond_an_array(tmp_path):
    clean = run_under("libasan.so", tmp_path, "address,undefined")
    assert clean.returncode == 0, clean.stderr
    assert "blend" in clean.stderr
    short = run_under("libasan.so", tmp_path, "address,undefined", "short")
    assert "AddressSanitizer: heap-buffer-overflow" in short.stderr
