"""Everything that needs a GPU, from the source tree and without a network: `make gpu-check`.

    python benchmarks/gpu_check.py [kernels] [pipeline] [sanitizer] [training]

Each part runs its tests and measurements within nine minutes. What this machine lacks is printed as
not tested and is no failure; a test or a measurement that fails is.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "engines", "sdk", "export", "training")
MINUTES = 9
TESTS = {
    "kernels": ("tests/kernels",),
    "pipeline": ("tests/engines", "tests/sdk", "tests/export"),
    "training": ("tests/training",),
}
SANITIZED = "tests/kernels/test_cuda_gpu.py"
TOOLS = ("memcheck", "racecheck")


def main(parts: list[str]) -> int:
    unknown = set(parts) - PARTS.keys()
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected {', '.join(PARTS)}")
        return 2
    failed = []
    for part in parts or PARTS:
        if why := missing():
            print(f"{part}: not tested: {why}", flush=True)
            continue
        build_native()
        start = time.monotonic()
        if not PARTS[part](part):
            failed.append(part)
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


def missing() -> str | None:
    """What keeps everything here from running."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no GPU"
    for package, extra in (("cupy", "cuda13"), ("pytest", "dev")):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed (pip install 'pchmr[{extra}]')"
    import cupy

    return None if cupy.cuda.is_available() else "no GPU"


def build_native() -> None:
    """The native library beside its source, where neither an installation nor a build has it."""
    if not (ROOT / "kernels/pchmr_kernels/libpchmr_kernels.so").exists():
        run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")


def tested(part: str) -> bool:
    """The `gpu` tests of a part, then its benchmark."""
    tests = run(sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *TESTS[part])
    none = tests == 5  # pytest collected none
    if none:
        print(f"{part}: not tested: there are no gpu tests of it")
    return (tests == 0 or none) and run(sys.executable, "benchmarks/gpu.py", "--part", part) == 0


def sanitized(part: str) -> bool:
    """The kernels' tests, of small sizes, under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print(f"{part}: not tested: compute-sanitizer is not installed")
        return True
    passed = True
    for check in TOOLS:
        command = [tool, "--tool", check, "--error-exitcode", "9", "--target-processes", "all"]
        tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-k", "sanitized", SANITIZED]
        code = run(*command, *tests)
        if code not in (0, 9) and b"not supported" in probe(tool):
            print(f"{part}: not tested: {check}: this machine does not let it see the device")
            continue
        passed &= code == 0
    return passed


def probe(tool: str) -> bytes:
    """What the sanitizer says of a program that does next to nothing on the device."""
    command = [tool, sys.executable, "-c", "import cupy; cupy.zeros(1)"]
    return subprocess.run(command, capture_output=True, cwd=ROOT).stdout


def run(*command: str) -> int:
    print("+", *command, flush=True)
    path = os.pathsep.join(str(ROOT / room) for room in ROOMS)
    environment = os.environ | {"PYTHONPATH": path}
    try:
        limit = 60 * MINUTES
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        print(f"stopped after {MINUTES} minutes")
        return 124


PARTS: dict[str, Callable[[str], bool]] = {
    "kernels": tested,
    "pipeline": tested,
    "sanitizer": sanitized,
    "training": tested,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
