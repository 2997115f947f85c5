"""Two pipelines, interleaved on the same frames, as ratios: drifts of the machine hit both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from time import perf_counter_ns, thread_time_ns
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..latency import distribution
from ..people import Person
from ..pipeline import Pipeline
from .frames import Timed
from .measure import WARM_UP
from .recorder import Recorder

Float64 = npt.NDArray[np.float64]

BLOCK = 16  # frames drawn together: neighbours are alike
DRAWS = 1000
ROUNDS = 4
FIGURES = {"p50": 50, "p95": 95}
INCLUDES = {
    "camera_to_mesh": (
        "decoding in the same thread, once for both, the whole pipeline and, for a temporal "
        "network, its look-ahead"
    ),
    "pipeline": "the whole call with a decoded frame",
    "cpu": "CPU time of the calling thread in that call: other programs do not stretch it",
}


class Runs(Protocol):
    """A `Pipeline`, or what stands for one."""

    def __call__(self, image: np.ndarray, t_ns: int) -> list[Person]: ...
    def reset(self) -> None: ...


@dataclass(frozen=True)
class Switched:
    """A pipeline with its recorder on or off: two of them compare it with itself."""

    pipeline: Pipeline
    recorder: Recorder
    on: bool

    def __call__(self, image: np.ndarray, t_ns: int) -> list[Person]:
        self.recorder.on = self.on
        return self.pipeline(image, t_ns)

    def reset(self) -> None:
        self.pipeline.reset()


def interleave(pair: tuple[Runs, Runs], source: Timed, frames: int) -> Float64:
    """(2, len(INCLUDES), frames) milliseconds, in the order of `INCLUDES`.

    Every frame goes through both, each as often first as the other, after a warm-up.
    """
    rows: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
    for number, frame in enumerate(islice(source, WARM_UP + frames)):
        decode = (frame.received_ns - frame.captured_ns) / 1e6
        for which in (0, 1) if number % 4 in (0, 3) else (1, 0):
            pipeline = pair[which]
            if frame.cut:
                pipeline.reset()
            begin, cpu = perf_counter_ns(), thread_time_ns()
            people = pipeline(frame.image, frame.t_ns)
            spent = (perf_counter_ns() - begin) / 1e6
            late = people[0].latency_ms.get("look_ahead", 0.0) if people else 0.0
            rows[which].append((decode + spent + late, spent, (thread_time_ns() - cpu) / 1e6))
    return np.array(rows)[:, WARM_UP:].swapaxes(1, 2)


def compare(
    load: Callable[[], AbstractContextManager[tuple[Runs, Runs]]],
    source: Timed,
    frames: int,
    rounds: int,
) -> dict[str, Any]:
    """Figures of both, and B over A with 95 % intervals of a bootstrap.

    load: makes both anew, once a round: where memory and threads come to lie makes two pipelines
    of one bundle differ by some percent, more than any number of frames tells. frames: a round.
    The bootstrap draws rounds, and blocks of frames in them.
    """
    times = []
    for _ in range(rounds):
        with load() as pair:
            times.append(interleave(pair, source, frames))
    figures: dict[str, Any] = {"frames": frames * rounds, "rounds": rounds, "ratios": {}}
    for number, name in enumerate(INCLUDES):
        a, b = (np.stack([time[which, number] for time in times]) for which in (0, 1))
        both = {"a": distribution(a.ravel().tolist()), "b": distribution(b.ravel().tolist())}
        figures[f"{name}_ms"] = both
        figures["ratios"][name] = {
            figure: ratio_of(a, b, percent) for figure, percent in FIGURES.items()
        }
    return {**figures, "includes": INCLUDES}


def ratio_of(a: Float64, b: Float64, percent: float) -> dict[str, float]:
    """A percentile of b (rounds, frames) over that of a, and the interval of 95 % of the draws."""
    rng = np.random.default_rng(0)
    rounds, frames = a.shape
    block = min(BLOCK, frames)
    drawn = []
    for _ in range(DRAWS):
        starts = rng.integers(0, frames - block + 1, (rounds, -(-frames // block)))
        columns = (starts[..., None] + np.arange(block)).reshape(rounds, -1)[:, :frames]
        rows = rng.integers(0, rounds, (rounds, 1))
        one, other = a[rows, columns], b[rows, columns]
        drawn.append(np.percentile(other, percent) / np.percentile(one, percent))
    low, high = np.percentile(drawn, (2.5, 97.5))
    ratio = np.percentile(b, percent) / np.percentile(a, percent)
    return {"ratio": round(float(ratio), 4), "low": round(low, 4), "high": round(high, 4)}
