"""Builds the native kernels; everything declarative stands in pyproject.toml.

One plain shared library with a C ABI, loaded by ctypes: no Python version in its name, so that one
wheel serves every Python and C++ hosts link the same file. Every .cpp of the folder goes in.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("kernels/pchmr_kernels/native")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]

# Files called *_rows.cpp are built once an instruction set, and the best one chosen when it runs:
# name -> (floats an instruction takes, flags). The baseline is SSE2 on x86-64 and NEON on ARM.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"]
BASELINE = {"baseline": (4, [])}
X86_64 = {"avx2": (8, AVX2), "avx512": (16, [*AVX512, "-mprefer-vector-width=512"])}


class BuildNative(build_ext):
    def build_extension(self, ext: Extension) -> None:
        compiler = find_compiler()
        objects = Path(self.build_temp, "native")
        objects.mkdir(parents=True, exist_ok=True)
        built = []
        for source in sorted(NATIVE.glob("*.cpp")):
            for name, flags in variants(source):
                target = objects / f"{name}.o"
                run([*compiler, *FLAGS, *flags, "-c", str(source), "-o", str(target)])
                built.append(str(target))
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(".part")  # a running process may have the old one open
        run([*compiler, "-shared", "-pthread", *built, "-o", str(partial)])
        partial.replace(library)

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"


class PlatformWheel(bdist_wheel):
    """py3-none-<platform>: the library knows nothing of Python's ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def variants(source: Path) -> list[tuple[str, list[str]]]:
    """(object name, extra flags) of each build of a source file."""
    if not source.name.endswith("_rows.cpp"):
        return [(source.stem, [])]
    isas = BASELINE | (X86_64 if platform.machine() in ("x86_64", "AMD64") else {})
    return [
        (f"{source.stem}_{isa}", [f"-DPCHMR_ISA={isa}", f"-DPCHMR_LANES={lanes}", *flags])
        for isa, (lanes, flags) in isas.items()
    ]


def find_compiler() -> list[str]:
    """$CXX, else the first C++ compiler on the path."""
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise CompileError(
        "no C++17 compiler found (tried $CXX, c++, g++, clang++), which the kernels need: "
        "install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install) or set CXX"
    )


def run(command: list[str]) -> None:
    print(shlex.join(command), file=sys.stderr)
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(f"building the native kernels failed: {error}") from error


setup(
    ext_modules=[Extension("pchmr_kernels.libpchmr_kernels", [])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
)
