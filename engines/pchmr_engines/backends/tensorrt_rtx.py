"""What TensorRT for RTX alone has: its kernels are compiled on the user's GPU, and kept there.

Never executed on a GPU so far; the calls are those of its bindings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..host import cache_folder
from ..store import write_atomically

FOLDER = "tensorrt-rtx"


class KernelCache:
    """Compiled kernels of an engine, in a file of the user's cache: they are code, so that no
    bundle brings them.

    config: for `create_execution_context`; kernels are compiled for the shapes that are set before
    a run begins, since a CUDA graph would go on with the slow ones that stand in for them.
    """

    def __init__(self, package: Any, engine: Any, name: str) -> None:
        self.config = engine.create_runtime_config()
        strategies = package.DynamicShapesKernelSpecializationStrategy
        self.config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self.config.create_runtime_cache()
        self._kept = self._read(cache_folder(FOLDER) / f"{name}.cache")
        if not self.config.set_runtime_cache(self._cache):
            raise EngineError("tensorrt-rtx: set_runtime_cache failed")

    def _read(self, path: Path) -> bytes:
        """What was kept; of another driver or GPU TensorRT refuses it, and it is made anew."""
        self._path = path
        kept = path.read_bytes() if path.is_file() else b""
        return kept if kept and self._cache.deserialize(kept) else b""

    def keep(self) -> None:
        """Write what was compiled since it was read. Where it cannot be, it is compiled again."""
        compiled = bytes(self._cache.serialize())
        if compiled != self._kept:
            try:
                write_atomically(self._path, compiled)
            except OSError:
                return
            self._kept = compiled
