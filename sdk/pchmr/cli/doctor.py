"""`pchmr doctor`: what this machine can run, and what to install for the rest."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer

from pchmr_engines.cli import JsonOption, print_json


@dataclass(frozen=True)
class Finding:
    """One ability of this machine. mend: what to do where it is missing."""

    ability: str
    ok: bool
    found: str
    mend: str = ""


OPTIONAL = (  # what it brings, package to import, distribution, extra
    ("run engines (ONNX Runtime)", "onnxruntime", "onnxruntime", "cpu"),
    ("run engines (OpenVINO)", "openvino", "openvino", "openvino"),
    ("build the open bundle: body", "scipy", "scipy", "open"),
    ("build the open bundle: graphs", "onnx", "onnx", "open"),
    ("train; the paper's networks", "torch", "torch", "train"),
    ("export checkpoints", "onnxscript", "onnxscript", "export"),
    ("webcam in a window", "pygame", "pygame-ce", "window"),
    ("webcam in the browser", "viser", "viser", "viewer"),
)


def examine() -> Iterator[Finding]:
    """Every finding; imports nothing heavy."""
    from pchmr_engines.host import cpu_model, installed_versions, usable_cpus

    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(f"Python {version}", sys.version_info >= (3, 10), sys.executable, "use 3.10+")
    yield Finding(f"{usable_cpus()} CPUs", True, cpu_model())
    yield _native()
    for ability, package, distribution, extra in OPTIONAL:
        there = importlib.util.find_spec(package) is not None
        version = installed_versions((distribution,)).get(distribution, "of another package")
        found = version if there else "not installed"
        yield Finding(ability, there, found, f"pip install 'pchmr[{extra}]'")
    yield _codec()
    yield from _gpu()
    npm = shutil.which("npm")
    yield Finding(
        "fetch the bundle open-plus (npm)", npm is not None, npm or "none", "install Node.js"
    )
    yield from _assets()


def _native() -> Finding:
    from pchmr_kernels import native

    try:
        return Finding("native kernels", True, native.instruction_set())
    except (ImportError, OSError) as error:
        return Finding("native kernels", False, "not loaded", str(error))


def _gpu() -> Iterator[Finding]:
    """The GPU, what its arrays need, and the backends that run on it."""
    from pchmr_engines.backends import BACKENDS
    from pchmr_engines.cuda_driver import cuda_device
    from pchmr_engines.errors import EngineError
    from pchmr_engines.host import installed_versions

    try:
        yield Finding("NVIDIA GPU", True, str(cuda_device()))
        gpu = True
    except EngineError as error:
        yield Finding("NVIDIA GPU", False, "none", str(error))
        gpu = False
    cupy = importlib.util.find_spec("cupy") is not None
    mend = "pip install 'pchmr[cuda13]' or, for CUDA 12, 'pchmr[cuda12]'"
    yield Finding("arrays on the GPU (CuPy)", cupy, "installed" if cupy else "not installed", mend)
    for name, backend in BACKENDS.items():
        if backend.device == "cuda":
            versions = installed_versions(backend.packages)
            found = ", ".join(" ".join(pair) for pair in versions.items()) or "not installed"
            mend = "an NVIDIA GPU" if versions else f"pip install 'pchmr[{backend.extra}]'"
            yield Finding(f"run engines ({name})", bool(versions) and gpu, found, mend)


def _codec() -> Finding:
    import av

    try:
        av.codec.Codec("libx264", "w")
    except ValueError:
        return Finding(
            "write H.264 video",
            False,
            f"av {av.__version__} without libx264",
            "pip install --force-reinstall av",
        )
    return Finding("write H.264 video", True, f"av {av.__version__}, libx264")


def _assets() -> Iterator[Finding]:
    from pchmr_engines.host import cache_folder

    from ..assets import ASSETS, cached
    from ..cache import entries

    held = [name for name in ASSETS if cached(name)]
    yield Finding(
        "assets in the cache",
        bool(held),
        f"{len(held)} of {len(ASSETS)}: pchmr assets",
        "fetched when first needed, or  pchmr assets fetch NAME",
    )
    size = sum(entry.size for entry in entries())
    yield Finding(f"cache of {size / 1e6:,.0f} MB", True, str(cache_folder()))


def doctor(as_json: JsonOption = False) -> None:
    """Show what this machine can run and what to install for the rest."""
    findings = list(examine())
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    width = max(60, shutil.get_terminal_size().columns - 1)
    for finding in findings:
        mark = "yes" if finding.ok else "no"
        typer.secho(f"{mark:5}", fg="green" if finding.ok else "yellow", nl=False)
        typer.echo(f"{finding.ability:34} {finding.found}")
        if not finding.ok and finding.mend:
            indent = " " * 7
            typer.echo(
                textwrap.fill(finding.mend, width, initial_indent=indent, subsequent_indent=indent)
            )
