"""Facts about this machine: how many CPUs may be used, their name, and where caches live."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_path

from .errors import EngineError


def cache_folder(*parts: str) -> Path:
    """A folder below the platform's cache folder (or $PCHMR_CACHE), made where it is missing.

    Raises: EngineError when it cannot be made.
    """
    root = os.environ.get("PCHMR_CACHE")
    folder = (
        Path(root).expanduser() if root else user_cache_path("pchmr", appauthor=False)
    ).joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the cache folder {folder} ({error.strerror}): set PCHMR_CACHE to one "
            "that can be written"
        ) from error
    return folder


def usable_cpus() -> int:
    """CPUs this process may use: its affinity mask, cut to the control group's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or the quota is "max"
        return cpus


def cpu_model() -> str:
    """The CPU as its maker calls it, where the system tells (Linux), or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


@cache
def cpu_name() -> str:
    """The CPU's name, with its instruction sets where the system tells them (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    facts = {line.split(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    return " ".join([platform.machine(), *(facts[key] for key in wanted if key in facts)])


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed, read without importing them."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
