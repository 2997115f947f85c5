"""What a command of `pchmr` leaves behind."""

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pchmr.media import VideoWriter

PROGRESS = re.compile("[\u2501\u2578\u257a]|-:--:--")  # a bar, or an empty one's time left


@dataclass(frozen=True)
class Outcome:
    """What a command left behind. code: its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error: nothing else may stand on stderr but progress, and which
        backend was measured to be fastest."""
        assert self.code == 1, (self.code, self.err)
        lines = [line for line in self.err.splitlines() if line and not PROGRESS.search(line)]
        (line,) = (line for line in lines if not line.startswith("auto: "))
        assert line.startswith("pchmr: ")
        return line


def read_npz(path: Path) -> dict[str, NDArray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def count_frames(path: Path) -> int:
    """Frames of a video that decode."""
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def write_video(path: Path, frames: list[NDArray[np.uint8]], fps: float = 25.0) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, fps, (width, height)) as video:
        for frame in frames:
            video.write(frame)
    return path
