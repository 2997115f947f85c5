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
from .measure import WARM_UP, check_seen
from .recorder import Recorder

Float64 = npt.NDArray[np.float64]

BLOCK = 16  # frames drawn together: neighbours are alike
GROUP = 4  # frames of a pair: as many with one pipeline first as with the other
DRAWS = 1000
ROUNDS = 4
FIGURES = {"pairs": None, "p50": 50, "p95": 95}
INCLUDES = {
    "pairs": (
        f"median of the ratios of {GROUP} frames in a row, each through both in turn: what the "
        "frame is and what else the machine does cancel out"
    ),
    "camera_to_mesh": (
        "decoding in the same thread, once for both, the whole pipeline and, for a temporal "
        "network, its look-ahead"
    ),
    "pipeline": "the whole call with a decoded frame",
    "cpu": "CPU time of the calling thread in that call: other programs do not stretch it",
}
TIMES = ("camera_to_mesh", "pipeline", "cpu")


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
    """(2, len(TIMES), frames) milliseconds, in the order of `TIMES`.

    Every frame goes through both, each as often first as the other, after a warm-up.

    Raises: InputError where nobody was seen.
    """
    rows: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
    anybody = False
    for number, frame in enumerate(islice(source, WARM_UP + frames)):
        decode = (frame.received_ns - frame.captured_ns) / 1e6
        for which in (0, 1) if number % 4 in (0, 3) else (1, 0):
            pipeline = pair[which]
            if frame.cut:
                pipeline.reset()
            begin, cpu = perf_counter_ns(), thread_time_ns()
            people = pipeline(frame.image, frame.t_ns)
            spent = (perf_counter_ns() - begin) / 1e6
            anybody = anybody or bool(people)
            late = people[0].latency_ms.get("look_ahead", 0.0) if people else 0.0
            rows[which].append((decode + spent + late, spent, (thread_time_ns() - cpu) / 1e6))
    check_seen(anybody, len(rows[0]))
    return np.array(rows)[:, WARM_UP:].swapaxes(1, 2)


def compare(
    load: Callable[[], AbstractContextManager[tuple[Runs, Runs]]],
    source: Timed,
    frames: int,
    rounds: int,
) -> dict[str, Any]:
    """Figures of both, and B over A with 95 % intervals of a bootstrap.

    load: makes both anew, once a round: where memory and threads come to lie makes two pipelines
    of one bundle differ by some percent, more than any number of frames tells; one round is enough
    for a pipeline against itself. frames: a round. The bootstrap draws rounds, and blocks of
    frames in them.
    """
    times = []
    for _ in range(rounds):
        with load() as pair:
            times.append(interleave(pair, source, frames))
    figures: dict[str, Any] = {"frames": frames * rounds, "rounds": rounds, "ratios": {}}
    for number, name in enumerate(TIMES):
        a, b = (np.stack([time[which, number] for time in times]) for which in (0, 1))
        both = {"a": distribution(a.ravel().tolist()), "b": distribution(b.ravel().tolist())}
        figures[f"{name}_ms"] = both
        figures["ratios"][name] = {
            figure: ratio_of(a, b, percent) for figure, percent in FIGURES.items()
        }
    return {**figures, "includes": INCLUDES}


def ratio_of(a: Float64, b: Float64, percent: float | None) -> dict[str, float]:
    """A percentile of b (rounds, frames) over that of a, or of `pairs`, and the interval of 95 % of
    the draws."""

    def ratio(one: Float64, other: Float64) -> np.floating:
        if percent is None:
            return np.median(pairs(one, other))
        return np.percentile(other, percent) / np.percentile(one, percent)

    rng = np.random.default_rng(0)
    rounds, frames = a.shape
    block = min(BLOCK, frames)
    drawn = []
    for _ in range(DRAWS):
        starts = rng.integers(0, (frames - block) // GROUP + 1, (rounds, -(-frames // block)))
        columns = (GROUP * starts[..., None] + np.arange(block)).reshape(rounds, -1)[:, :frames]
        rows = rng.integers(0, rounds, (rounds, 1))
        drawn.append(ratio(a[rows, columns], b[rows, columns]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {
        name: round(float(number), 4)
        for name, number in (("ratio", ratio(a, b)), ("low", low), ("high", high))
    }


def pairs(a: Float64, b: Float64) -> Float64:
    """b over a of each group of `GROUP` frames, or of all where there are fewer."""
    whole = a.shape[1] // GROUP * GROUP or a.shape[1]
    size = min(GROUP, whole)
    one, other = (x[:, :whole].reshape(-1, size).sum(1) for x in (a, b))
    return other / one
