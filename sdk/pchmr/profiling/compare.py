"""Two pipelines, interleaved on the same frames, as ratios: drifts of the machine hit both."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from ..latency import distribution
from ..pipeline import Pipeline
from .frames import Timed
from .measure import WARM_UP

Float64 = npt.NDArray[np.float64]

BLOCK = 16  # frames drawn together: neighbours are alike
DRAWS = 2000
FIGURES = {"p50": 50, "p95": 95}
INCLUDES = {
    "camera_to_mesh": "decoding in the same thread, once for both, and the whole pipeline",
    "pipeline": "the whole call with a decoded frame",
}


@dataclass(frozen=True)
class Pair:
    """Milliseconds of each frame: decoding, and the two pipelines' whole calls."""

    decode: Float64
    a: Float64
    b: Float64


def interleave(a: Pipeline, b: Pipeline, source: Timed, frames: int) -> Pair:
    """Every frame through both pipelines, each as often first as the other, after a warm-up."""
    decode: list[float] = []
    times: tuple[list[float], list[float]] = ([], [])
    for number, frame in enumerate(islice(source, WARM_UP + frames)):
        order = (0, 1) if number % 4 in (0, 3) else (1, 0)
        for which in order:
            pipeline = (a, b)[which]
            if frame.cut:
                pipeline.reset()
            begin = perf_counter_ns()
            pipeline(frame.image, frame.t_ns)
            times[which].append((perf_counter_ns() - begin) / 1e6)
        decode.append((frame.received_ns - frame.captured_ns) / 1e6)
    return Pair(*(np.array(values[WARM_UP:]) for values in (decode, *times)))


def compare(a: Pipeline, b: Pipeline, source: Timed, frames: int) -> dict[str, Any]:
    """Figures of both, and B over A with 95 % intervals of a bootstrap over blocks of frames."""
    pair = interleave(a, b, source, frames)
    whole = {"camera_to_mesh": pair.decode, "pipeline": np.zeros_like(pair.decode)}
    sums = {name: (pair.a + before, pair.b + before) for name, before in whole.items()}
    return {
        "frames": frames,
        **{
            f"{name}_ms": {"a": distribution(x.tolist()), "b": distribution(y.tolist())}
            for name, (x, y) in sums.items()
        },
        "ratios": {
            name: {figure: _ratio(x, y, percent) for figure, percent in FIGURES.items()}
            for name, (x, y) in sums.items()
        },
        "includes": INCLUDES,
    }


def _ratio(a: Float64, b: Float64, percent: float) -> dict[str, float]:
    drawn = a[_draws(len(a))], b[_draws(len(b))]
    low, high = np.percentile(
        np.percentile(drawn[1], percent, axis=1) / np.percentile(drawn[0], percent, axis=1),
        (2.5, 97.5),
    )
    ratio = np.percentile(b, percent) / np.percentile(a, percent)
    return {"ratio": round(float(ratio), 4), "low": round(low, 4), "high": round(high, 4)}


def _draws(count: int) -> npt.NDArray[np.int64]:
    """(DRAWS, count) frames drawn in blocks, the same at every call."""
    rng = np.random.default_rng(0)
    block = min(BLOCK, count)
    starts = rng.integers(0, count - block + 1, (DRAWS, -(-count // block)))
    return (starts[..., None] + np.arange(block)).reshape(DRAWS, -1)[:, :count]
