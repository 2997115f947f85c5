"""Type-checks the TensorRT backend against the oldest and the newest TensorRT it is written for.

    python tools/check_tensorrt_api.py [FILE]

TensorRT itself is large and comes from its vendor's own index, but its Python bindings are small
wheels on PyPI. They import over empty libraries, pybind11-stubgen writes down what they offer, and
mypy holds the backend against that: a call that one of the two lacks is an error. The stubs are
kept beside the virtual environment's packages, so that only the first check needs the network.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BACKEND = ROOT / "engines/pchmr_engines/backends/tensorrt.py"
STUBS = Path(sys.prefix) / "tensorrt-stubs"
# Bindings of the oldest and the newest version; behind them, where a Python has no wheel of one.
RANGES = {
    "oldest": [
        ("tensorrt_cu12_bindings", version)
        for version in ("10.3.0", "10.4.0", "10.6.0", "10.8.0.43", "10.13.0.35")
    ],
    "newest": [
        ("tensorrt_cu13_bindings", version)
        for version in ("11.4.0.106", "11.3.0.99", "11.2.1.2", "11.0.0.114")
    ],
}
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
FUNCTIONS = (
    *(f"createInfer{kind}_INTERNAL" for kind in ("Builder", "Refitter", "Runtime")),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL"),
    *("getBuilderPluginRegistry", "getPluginRegistry"),
    *("getNvOnnxParserVersion", "initLibNvInferPlugins"),
)


def main() -> int:
    """Exit code: 0 where both versions have all that is used."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else BACKEND
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        print(f"TensorRT's API: not checked, there are no bindings for {platform.platform()}")
        return 0
    failed = False
    for end, choices in RANGES.items():
        folder = stubs_of(choices)
        if folder is None:
            print(f"TensorRT's API: none of {choices} can be had, so the {end} was not checked")
            failed = True
            continue
        if folder.name != choices[0][1]:
            print(f"TensorRT {choices[0][1]} cannot be had here; {folder.name} stands for it")
        print(f"TensorRT {folder.name}: ", end="", flush=True)
        failed |= type_check(file, folder) != 0
    return int(failed)


def stubs_of(choices: list[tuple[str, str]]) -> Path | None:
    """The folder of the first version's stubs that is there or can be made; None without any."""
    made = (STUBS / version for _, version in choices)
    if there := next((folder for folder in made if (folder / "tensorrt").is_dir()), None):
        return there
    for package, version in choices:
        with tempfile.TemporaryDirectory() as scratch:
            if download(f"{package}=={version}", Path(scratch)):
                write_stubs(Path(scratch), version, STUBS / version)
                return STUBS / version
    return None


def download(requirement: str, folder: Path) -> bool:
    """Unpack a wheel into `folder`; False where this Python has none or there is no network."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run([*pip, requirement, "--dest", folder], capture_output=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    return done.returncode == 0


def write_stubs(folder: Path, version: str, target: Path) -> None:
    """The stubs of the bindings in `folder`, as a package in `target`, whole or not at all."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for name in LIBRARIES:
        library = folder / f"lib{name}.so.{version.split('.')[0]}"
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-o", library, source], check=True)
    environment = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "tensorrt_bindings")}
    stubgen = [sys.executable, "-m", "pybind11_stubgen", "tensorrt", "--ignore-all-errors"]
    subprocess.run(
        [*stubgen, "-o", folder / "stubs"],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    package = folder / "stubs" / version / "tensorrt"
    package.mkdir(parents=True)
    text = parsable((folder / "stubs" / "tensorrt.pyi").read_text())
    text = re.sub(r"^bool: .*$", "", text, flags=re.MULTILINE)  # it hides what "-> bool" means
    # What mypy finds in the stubs themselves is not ours to mend.
    (package / "__init__.pyi").write_text(f"# mypy: ignore-errors\n{text}\n__version__: str\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    package.parent.rename(target)


def parsable(text: str) -> str:
    """The stubs with the parameters left open where their names are no Python ("in")."""
    lines = text.splitlines()
    while True:
        try:
            ast.parse("\n".join(lines))
            return "\n".join(lines)
        except SyntaxError as error:
            place = (error.lineno or 0) - 1
            mended = re.sub(r"\((self).*\) ->", r"(\1, *args, **kwargs) ->", lines[place])
            if mended == lines[place]:
                raise
            lines[place] = mended


def type_check(file: Path, stubs: Path) -> int:
    """mypy's exit code for one file with these stubs of TensorRT."""
    cache = ["--cache-dir", STUBS / "mypy" / stubs.name]
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", *cache, file]
    return subprocess.run(command, env={**os.environ, "MYPYPATH": str(stubs)}, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
