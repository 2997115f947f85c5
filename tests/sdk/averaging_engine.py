"""A temporal network in NumPy: the mean of 2 n + 1 steps, frame by frame or in windows."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.engine import Caps, Context, TensorSpec

WIDTH = 3


class AveragingEngine:
    """x (B, 3) -> mean (B, 3), with the last 2 n + 1 inputs as its state, n steps late."""

    backend, precision = "numpy", "fp32"
    caps = Caps("cpu", 64, False)

    def __init__(self, reach: int) -> None:
        self.reach, self.runs = reach, 0
        length = 2 * reach + 1
        self.inputs = {
            "x": TensorSpec("x", ("B", WIDTH), "float32"),
            "seen": TensorSpec("seen", ("B",), "int64"),
            "last": TensorSpec("last", ("B", length, WIDTH), "float32"),
        }
        self.outputs = {
            "mean": TensorSpec("mean", ("B", WIDTH), "float32"),
            "seen_next": TensorSpec("seen_next", ("B",), "int64"),
            "last_next": TensorSpec("last_next", ("B", length, WIDTH), "float32"),
        }
        self.settings = {
            "look_ahead": reach,
            "rate_hz": None,
            "state": {"seen": "seen_next", "last": "last_next"},
        }

    def context(self, batch: int, stream: object = None, threads: int | None = None) -> Context:
        return _Context(self, batch)

    def enqueue(self, buffers: Mapping[str, NDArray]) -> None:
        new = (buffers["seen"] == 0)[:, None, None]
        last = np.where(new, buffers["x"][:, None], buffers["last"])
        last = np.concatenate([last[:, 1:], buffers["x"][:, None]], 1)
        buffers["mean"][:] = last.mean(1)
        buffers["seen_next"][:], buffers["last_next"][:] = buffers["seen"] + 1, last


class WindowEngine(AveragingEngine):
    """x (B, window, 3) -> mean of all it sees about each frame, of the kept ones or of all."""

    def __init__(self, reach: int, kept: int, whole: bool) -> None:
        super().__init__(reach)
        window = kept + 2 * reach
        self.kept = range(reach, reach + kept)
        self.inputs = {"x": TensorSpec("x", ("B", window, WIDTH), "float32")}
        given = window if whole else kept
        self.outputs = {"mean": TensorSpec("mean", ("B", given, WIDTH), "float32")}
        self.settings = {"window": window, "keep": [reach, reach + kept], "rate_hz": None}

    def enqueue(self, buffers: Mapping[str, NDArray]) -> None:
        x, mean = buffers["x"], buffers["mean"]
        mean[:] = np.nan
        for at, frame in enumerate(self.kept):
            where = frame if mean.shape[1] == x.shape[1] else at
            mean[:, where] = x[:, frame - self.reach : frame + self.reach + 1].mean(1)


class _Context:
    def __init__(self, engine: AveragingEngine, batch: int) -> None:
        specs = (*engine.inputs.values(), *engine.outputs.values())
        self.buffers = {spec.name: np.zeros(spec.sized(batch), spec.dtype) for spec in specs}
        self._engine = engine

    def freeze(self) -> None: ...

    def enqueue(self) -> None:
        self._engine.runs += 1
        self._engine.enqueue(self.buffers)


def averaged(clip: NDArray, reach: int) -> NDArray:
    """The same of a whole clip (T, 3) at once, its edges repeated."""
    index = np.arange(len(clip))[:, None] + np.arange(-reach, reach + 1)
    return clip[index.clip(0, len(clip) - 1)].mean(1)
