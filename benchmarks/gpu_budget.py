"""What measurements on a GPU share: a time limit, errors that end no more than themselves."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pchmr_engines.errors import PchmrError

Report = dict[str, Any]

WARM_UP = 3  # calls that do not count
LEAST_CALLS = 20


class Budget:
    """Seconds that a part may take; what it begins late is left out, and said."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def tried(self, call: Callable[[], Any], least: float = 5.0) -> Any:
        """What `call` gives, or "not tested: why", or "failed: why" and the traceback on stderr.

        Failed is what another library's error is behind; all else is not here to be tested. least:
        seconds that must be left to begin it.
        """
        if self.left < least:
            return "not tested: no time was left"
        try:
            return call()
        except Exception as error:  # of CUDA, CuPy or torch, too
            behind = error.__cause__
            ours = isinstance(error, (PchmrError, ImportError))
            if ours and isinstance(behind, (PchmrError, ImportError, OSError, type(None))):
                return f"not tested: {error}"
            traceback.print_exc()
            sys.stderr.flush()
            lines = str(behind if ours else error).splitlines() or [""]
            return f"failed: {type(error).__name__}: {lines[0]}"


def percentiles(call: Callable[[], None], seconds: float) -> dict[str, float]:
    """Of wall time, each call waited for; in about so many seconds, 20 calls at least."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    found = {f"p{q}_ms": float(np.percentile(times, q)) for q in (50, 95, 99)}
    return {**found, "samples": len(times)}


def failures(report: Any, name: str = "") -> Iterator[str]:
    """Whatever failed in a report, by where it stands."""
    if isinstance(report, dict):
        for key, value in report.items():
            yield from failures(value, f"{name}, {key}" if name else str(key))
    elif isinstance(report, list):
        for row in report:
            batch = row.get("batch") if isinstance(row, dict) else None
            yield from failures(row, name if batch is None else f"{name} {batch}")
    elif isinstance(report, str) and report.startswith("failed"):
        yield name
