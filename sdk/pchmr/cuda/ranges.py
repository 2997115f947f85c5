"""NVTX ranges around the work on a GPU, where the package `nvtx` is installed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


@cache
def _nvtx() -> Any:
    try:
        import nvtx
    except ImportError:
        return None
    return nvtx


def span(name: str) -> AbstractContextManager[Any]:
    """A range that Nsight shows on the host's timeline, and nothing without NVTX."""
    nvtx = _nvtx()
    return nullcontext() if nvtx is None else nvtx.annotate(name, domain="pchmr")
