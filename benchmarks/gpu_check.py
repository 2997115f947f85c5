"""Everything that needs a GPU, from the source tree and without a network: `make gpu-check`.

    python benchmarks/gpu_check.py [kernels] [pipeline] [sanitizer] [training]

Each part runs its tests, a process a file, and its measurements within nine minutes. What this
machine lacks is printed as not tested and is no failure. What fails is printed whole, and the next
begins; figures are written as they come, so that whatever was done by then is kept.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "engines", "sdk", "export", "training")
SECONDS = 9 * 60
TESTS = {
    "kernels": ("tests/kernels",),
    "pipeline": ("tests/engines", "tests/sdk", "tests/export"),
    "training": ("tests/training",),
}
FIGURES = {"kernels": ("kernels",), "pipeline": ("frames", "pipeline"), "training": ("training",)}
SHARE_OF_TESTS = 0.5  # of a part's time, at most
LEAST = 20  # seconds, to begin anything
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
SANITIZED = "tests/kernels/test_cuda_gpu.py"
TOOLS = ("memcheck", "racecheck")


class Clock:
    """A part's time, and what failed in it."""

    def __init__(self, part: str) -> None:
        self.part, self.failed = part, False
        self._begin = time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self._begin

    def left(self, share: float = 1.0) -> float:
        """Seconds of a share of the part's time."""
        return share * SECONDS - self.spent

    def run(self, *command: str, share: float = 1.0) -> int:
        """A command's exit code; 124 where its time is over before it is."""
        left = self.left(share)
        if left < LEAST:
            self.say(f"no time was left for  {' '.join(command)}")
            return 0
        print("+", *command, flush=True)
        try:
            return subprocess.run(command, cwd=ROOT, env=environment(), timeout=left).returncode
        except subprocess.TimeoutExpired:
            print(f"{self.part}: failed: stopped after {left:.0f} s", flush=True)
            return 124

    def expect(self, code: int) -> None:
        self.failed |= code != 0

    def say(self, why: str) -> None:
        print(f"{self.part}: not tested: {why}", flush=True)


def main(parts: list[str]) -> int:
    unknown = set(parts) - PARTS.keys()
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected {', '.join(PARTS)}")
        return 2
    failed = []
    for part in parts or PARTS:
        clock = Clock(part)
        if why := missing():
            clock.say(why)
            continue
        build_native(clock)
        PARTS[part](clock)
        if clock.failed:
            failed.append(part)
        print(f"{part}: {'failed' if clock.failed else 'done'}, {clock.spent:.0f} s", flush=True)
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
    try:
        import cupy

        return None if cupy.cuda.is_available() else "no GPU"
    except Exception as error:  # a CUDA library that does not load, say
        return f"cupy does not run here ({type(error).__name__}: {error})"


def build_native(clock: Clock) -> None:
    """The native library beside its source, where neither an installation nor a build has it."""
    if not (ROOT / "kernels/pchmr_kernels/libpchmr_kernels.so").exists():
        clock.expect(clock.run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"))


def tested(clock: Clock) -> None:
    """The `gpu` tests of a part, then its figures."""
    tests = gpu_tests(clock)
    if not tests:
        clock.say("there are no gpu tests of it here")
    for file in tests:
        code = clock.run(*PYTEST, "-m", "gpu", file, share=SHARE_OF_TESTS)
        clock.expect(0 if code == 5 else code)  # 5: none was left after choosing those of the GPU
    figures = FIGURES[clock.part]
    for number, name in enumerate(figures):
        seconds = clock.left() / (len(figures) - number) - LEAST
        options = ("--part", name, "--budget", f"{seconds:.0f}")
        clock.expect(clock.run(sys.executable, "benchmarks/gpu.py", *options))


def gpu_tests(clock: Clock) -> list[str]:
    """Files of a part that have such tests and whose imports, and their conftest's, are here."""
    found = []
    for folder in TESTS[clock.part]:
        for file in sorted((ROOT / folder).glob("test_*.py")):
            text = file.read_text(encoding="utf-8")
            if "mark.gpu" not in text and "import devices" not in text:
                continue
            conftest = file.with_name("conftest.py")
            needed = imports(text) | (imports(conftest.read_text()) if conftest.exists() else set())
            lacking = sorted(name for name in needed if not there(name, file.parent))
            if lacking:
                clock.say(f"{file.name}, which needs {', '.join(lacking)}")
            else:
                found.append(str(file.relative_to(ROOT)))
    return found


def imports(text: str) -> set[str]:
    """Top-level packages that a file imports as soon as it is."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def there(name: str, folder: Path) -> bool:
    beside = [folder, folder.parent, *(ROOT / room for room in ROOMS)]
    own = any((place / name).is_dir() or (place / f"{name}.py").exists() for place in beside)
    return own or importlib.util.find_spec(name) is not None


def sanitized(clock: Clock) -> None:
    """The kernels' tests, of small sizes, under compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        clock.say("compute-sanitizer is not installed")
        return
    for number, check in enumerate(TOOLS, 1):
        command = [tool, "--tool", check, "--error-exitcode", "9", "--target-processes", "all"]
        sanitized = (*PYTEST, "-m", "gpu", "-k", "sanitized", SANITIZED)
        code = clock.run(*command, *sanitized, share=number / len(TOOLS))
        if code not in (0, 9) and b"not supported" in probe(tool):
            clock.say(f"{check}: this machine does not let it see the device")
            continue
        clock.expect(code)


def probe(tool: str) -> bytes:
    """What the sanitizer says of a program that does next to nothing on the device."""
    command = [tool, sys.executable, "-c", "import cupy; cupy.zeros(1)"]
    try:
        return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60).stdout
    except subprocess.TimeoutExpired:
        return b""


def environment() -> dict[str, str]:
    """The rooms on the path; no network; a cache, and the CUDA toolkit that torch compiles with,
    where nothing says where they are."""
    path = os.pathsep.join(
        [*(str(ROOT / room) for room in ROOMS), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    found = {**os.environ, "PYTHONPATH": path, "PIP_NO_INDEX": "1", "PYTHONUNBUFFERED": "1"}
    if importlib.util.find_spec("platformdirs") is None:
        found.setdefault("PCHMR_CACHE", str(Path(tempfile.gettempdir()) / "pchmr-gpu-check"))
    if toolkit := cuda_home():
        found.setdefault("CUDA_HOME", str(toolkit))
    return found


def cuda_home() -> Path | None:
    """The folder with CUDA's headers: that of nvcc, which may be a link or a script to it."""
    nvcc = shutil.which("nvcc")
    guesses = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    if nvcc is not None:
        guesses.insert(0, Path(nvcc).resolve().parents[1])
    return next((root for root in guesses if (root / "include/cuda.h").exists()), None)


PARTS: dict[str, Callable[[Clock], None]] = {
    "kernels": tested,
    "pipeline": tested,
    "sanitizer": sanitized,
    "training": tested,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
