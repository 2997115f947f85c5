"""A CUDA graph captured through torch, whose allocator then serves the capture from its own pool.

Never executed on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .gpu import nothing_collected
from .torch import import_torch


class TorchGraph:
    """What `queue` puts on a stream, torch's engines among it. stream: a cudaStream_t."""

    def __init__(self, stream: int, queue: Callable[[], None]) -> None:
        torch: Any = import_torch("torch-cuda")
        self._torch, self._stream = torch, torch.cuda.ExternalStream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with nothing_collected(), torch.cuda.stream(self._stream):
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                queue()
            except BaseException:
                with suppress(Exception):  # it may be broken, which the first error tells of
                    self._graph.capture_end()
                raise
            self._graph.capture_end()

    def replay(self) -> None:
        """Queue it on its stream."""
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()
