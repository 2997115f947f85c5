"""Everything that needs a GPU, from the source tree and without a network: `make gpu-check`.

    python benchmarks/gpu_check.py [kernels] [pipeline] [sanitizer] [training]

Each part runs its tests and measurements within nine minutes. What this machine lacks is printed as
not tested and is no failure; a test or a measurement that fails is.
"""

from __future__ import annotations

import ast
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
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
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
    for package, extra in (("cupy", "cuda13"), ("platformdirs", "cuda13"), ("pytest", "dev")):
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
    tests = gpu_tests(part)
    if not tests:
        print(f"{part}: not tested: there are no gpu tests of it")
    passed = not tests or run(*PYTEST, "-m", "gpu", *tests) == 0
    return run(sys.executable, "benchmarks/gpu.py", "--part", part) == 0 and passed


def gpu_tests(part: str) -> list[str]:
    """The files of a part that have such tests and whose imports are all here."""
    found = []
    for folder in TESTS[part]:
        for file in sorted((ROOT / folder).glob("test_*.py")):
            text = file.read_text(encoding="utf-8")
            if "mark.gpu" not in text and "import devices" not in text:
                continue
            lacking = [name for name in imports(text) if not there(name, file.parent)]
            if lacking:
                print(f"{part}: not tested: {file.name}, which needs {', '.join(lacking)}")
            else:
                found.append(str(file.relative_to(ROOT)))
    return found


def imports(text: str) -> list[str]:
    """Top-level packages that a file imports as soon as it is."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return sorted(names)


def there(name: str, folder: Path) -> bool:
    beside = [folder, folder.parent, *(ROOT / room for room in ROOMS)]
    own = any((place / name).is_dir() or (place / f"{name}.py").exists() for place in beside)
    return own or importlib.util.find_spec(name) is not None


def sanitized(part: str) -> bool:
    """The kernels' tests, of small sizes, under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print(f"{part}: not tested: compute-sanitizer is not installed")
        return True
    passed = True
    for check in TOOLS:
        command = [tool, "--tool", check, "--error-exitcode", "9", "--target-processes", "all"]
        code = run(*command, *PYTEST, "-m", "gpu", "-k", "sanitized", SANITIZED)
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
