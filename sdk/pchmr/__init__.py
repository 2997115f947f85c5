"""From camera frame to pose-calibrated 3D body mesh.

    pipe = Pipeline.load("open", topology="parallel")
    for person in pipe(frame):  # (H, W, 3) uint8 BGR
        print(person.vertices, person.joints)  # metres, camera frame

Beside it: `media` pictures and videos in and out, `overlay` meshes drawn, `live` cameras in real
time, `exchange` GLB, BVH and SMPL parameters, `profiling` where the time goes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .camera import Camera
    from .people import Person
    from .pipeline import Pipeline

__version__: str
__all__ = ["Camera", "Person", "Pipeline"]

_HOMES = {"Camera": ".camera", "Person": ".people", "Pipeline": ".pipeline"}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import pchmr` costs nothing."""
    if name == "__version__":
        return import_module("importlib.metadata").version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
