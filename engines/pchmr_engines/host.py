"""Facts about this machine: how many CPUs may be used, their name, and where caches live."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from .errors import EngineError


def cache_folder(*parts: str) -> Path:
    """A folder below the platform's cache folder (or $PCHMR_CACHE), made where it is missing.

    Raises: EngineError when it cannot be made.
    """
    folder = _cache_root().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the cache folder {folder} ({error.strerror}): set PCHMR_CACHE to one "
            "that can be written"
        ) from error
    return folder


def _cache_root() -> Path:
    if root := os.environ.get("PCHMR_CACHE"):  # all that is needed where platformdirs is not there
        return Path(root).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("pchmr", appauthor=False)


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
    return _cpu_facts().get("model name") or platform.processor() or platform.machine()


def cpu_fingerprint() -> str:
    """The CPU with its instruction sets where the system tells them (Linux): what is measured on
    one CPU holds on others of the same fingerprint."""
    facts = _cpu_facts()
    parts = (facts[key] for key in ("flags", "Features", "CPU part") if key in facts)
    return " ".join([platform.machine(), cpu_model(), *parts])


@cache
def _cpu_facts() -> dict[str, str]:
    """/proc/cpuinfo of the last CPU; empty where the system has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed, read without importing them."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
