"""What a process holds, in MB of 10^6 bytes."""

from __future__ import annotations

import sys
from pathlib import Path


def resident_mb() -> float | None:
    """Resident memory now; None where the system does not tell (it does on Linux)."""
    return _status_mb("VmRSS")


def peak_mb() -> float | None:
    """The most that was ever resident."""
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(field + ":")]
    return round(int(found[0].split()[1]) * 1024 / 1e6, 1) if found else None


def gpu_mb() -> float | None:
    """Memory in use on the GPU, by everybody; None without one. Never executed."""
    cupy = sys.modules.get("cupy")  # what ran on a GPU has imported it
    if cupy is None or not cupy.cuda.is_available():
        return None
    free, total = cupy.cuda.runtime.memGetInfo()
    return round((total - free) / 1e6, 1)
