"""docs/cpp.md as a C or C++ programmer follows it: every block compiled and run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pchmr_kernels import native

PACKAGE = Path(native.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs" / "cpp.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL))
C = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
CXX = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "straighten.c"
    path.write_text(BLOCKS["c"])
    return path


@pytest.mark.skipif(C is None, reason="not tested: the page's program (no C compiler)")
def test_program_of_the_page(source: Path) -> None:
    program = source.with_suffix("")
    link = (f"-I{PACKAGE}/native", source, f"-L{PACKAGE}", "-lpchmr_kernels")
    run(C, "-std=c11", *STRICT, *link, f"-Wl,-rpath,{PACKAGE}", "-o", program)
    assert run(program) == BLOCKS[""]


@pytest.mark.skipif(
    C is None or not shutil.which("cmake"), reason="not tested: the page's CMake lines (no cmake)"
)
def test_cmake_lines_of_the_page(source: Path) -> None:
    source.with_name("CMakeLists.txt").write_text(BLOCKS["cmake"])
    build = source.with_name("build")
    run("cmake", "-S", source.parent, "-B", build, f"-DPython_EXECUTABLE={sys.executable}")
    run("cmake", "--build", build)
    assert run(build / "straighten") == BLOCKS[""]


def test_python_lines_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS["python"], {})
    assert "left_hip" in capsys.readouterr().out


@pytest.mark.parametrize("header", sorted(path.name for path in PACKAGE.glob("native/pchmr_*.h")))
def test_public_headers_stand_alone(header: str) -> None:
    compilers = [(C, "c", "c99"), (CXX, "c++", "c++17")]
    if None in (C, CXX):
        pytest.skip("not tested: the headers in C and C++ (no compiler)")
    for compiler, language, standard in compilers:
        path = PACKAGE / "native" / header
        run(compiler, *STRICT, f"-std={standard}", "-fsyntax-only", "-x", language, path)
