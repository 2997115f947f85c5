"""The kernels as host threads under ThreadSanitizer and AddressSanitizer, with planted mistakes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_shim.shim_runtime import build, find_compiler

from pchmr_kernels.cuda_runtime import KERNELS, NATIVE

HERE = Path(__file__).parent
RACE = "ThreadSanitizer: data race"

# The barriers that a thread of a kernel passes: two tiles of vertices a block, so that the last one
# of a tile counts. Those with shared memory are run with too little of it as well.
BARRIERS = {
    "pchmr_calibrate": 8 + 3,
    "pchmr_skin_calibrate": 2 + 8 + 3,
    "pchmr_blend": 3,
    "pchmr_pose_joints": 1,  # the other one is for skin_calibrate, which has that code too
    "pchmr_blend_grad_vertices": 1,
    "pchmr_blend_grad_bones": 4 + 1,
    "pchmr_person_landmarks": 1,
    "pchmr_person_pose": 3,  # three joints in a row
    "pchmr_person_place": 1,
    "pchmr_person_target": 1,
}

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
        "TSAN_OPTIONS": "halt_on_error=1",
        "PYTHONPATH": os.pathsep.join([str(NATIVE.parents[1]), str(HERE)]),
    }
    command = [sys.executable, str(HERE / "cuda_shim" / "sanitized.py"), str(shim), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_no_race_and_a_race_without_any_one_of_the_barriers(tmp_path):
    clean = run_under("libtsan.so", tmp_path, "thread")
    assert clean.returncode == 0, clean.stderr
    assert "WARNING" not in clean.stderr
    for kernel, count in BARRIERS.items():
        for barrier in range(count):
            planted = run_under("libtsan.so", tmp_path, "thread", f"{kernel}:{barrier}")
            assert RACE in planted.stderr, f"{kernel} without barrier {barrier}"


def test_nothing_is_read_or_written_beyond_an_array(tmp_path):
    clean = run_under("libasan.so", tmp_path, "address,undefined")
    assert clean.returncode == 0, clean.stderr
    assert set(re.findall(r"^run (\w+)", clean.stderr, re.M)) == set(KERNELS)
    for kernel in BARRIERS:
        short = run_under("libasan.so", tmp_path, "address,undefined", f"{kernel}:short")
        assert "AddressSanitizer: heap-buffer-overflow" in short.stderr, kernel
