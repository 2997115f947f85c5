"""From camera frame to pose-calibrated 3D body mesh."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .camera import Camera
    from .people import Person
    from .pipeline import Pipeline

__all__ = ["Camera", "Person", "Pipeline"]

_HOMES = {"Camera": ".camera", "Person": ".people", "Pipeline": ".pipeline"}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import pchmr` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
