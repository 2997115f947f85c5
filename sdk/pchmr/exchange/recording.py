"""What `pchmr run` wrote, read back: the people of a results npz, each with their frames."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError

Array = npt.NDArray[Any]

_ROWS = ("frame", "t_ns", "vertices", "joints", "target_joints", "rotmats", "betas", "camera")


@dataclass(frozen=True, eq=False)
class Track:
    """One person's N frames in order of time; metres, camera frame (x right, y down, z away).

    frame, t_ns: (N,) int64; vertices: (N, V, 3) float32; joints, target_joints: (N, J, 3);
    rotmats: (N, K, 3, 3) and betas: (N, S) of the generator; camera: (N, 4), fx, fy, cx, cy.
    """

    id: int
    frame: Array
    t_ns: Array
    vertices: npt.NDArray[np.float32]
    joints: Array
    target_joints: Array
    rotmats: Array
    betas: Array
    camera: Array

    @property
    def runs(self) -> list[slice]:
        """The stretches without a missing frame."""
        cuts = np.flatnonzero(np.diff(self.frame) != 1) + 1
        ends = [0, *cuts.tolist(), len(self.frame)]
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Recording:
    """The people of one results file. faces: (F, 3). fps: frames of the source a second.

    bundle, body_sha256, skeleton: as the file tells, "" where it does not.
    """

    tracks: Mapping[int, Track]
    faces: npt.NDArray[np.int32]
    fps: float
    bundle: str = ""
    body_sha256: str = ""
    skeleton: str = ""

    def track(self, person: int | None = None) -> Track:
        """The person asked for, or the one with most frames. Raises: InputError."""
        if person is None:
            return max(self.tracks.values(), key=lambda track: len(track.frame))
        if person not in self.tracks:
            raise InputError(
                f"person {person} is not in the results; they hold {self.describe()}: name one"
            )
        return self.tracks[person]

    def describe(self) -> str:
        """ "person 0 (167 frames), person 3 (28 frames)"."""
        return ", ".join(
            f"person {track.id} ({len(track.frame)} frames)" for track in self.tracks.values()
        )


def read_recording(path: Path | str, group: str | None = None) -> Recording:
    """The results in an npz of `pchmr run`, without rows that are not valid.

    group: of a file that keeps several runs apart, such as the demo's: serial or parallel.

    Raises:
        InputError: no such file, not such a file, or nobody in it.
    """
    prefix = f"{group}_" if group else ""
    if not zipfile.is_zipfile(path):
        reason = "is no whole npz" if Path(path).exists() else "does not exist"
        raise InputError(f"{path} {reason}: give the npz that pchmr run wrote")
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = set(stored.files)
            if f"{prefix}vertices" not in names:
                raise InputError(_no_vertices(path, names))
            rows = {name: stored[prefix + name] for name in (*_ROWS, "track_id", "valid")}
            faces = stored["faces"]
            about = {
                name: str(stored[name])
                for name in ("bundle", "body_sha256", "skeleton")
                if name in names
            }
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as results ({error}): give the npz that pchmr run wrote"
        ) from error
    valid, track_id = rows.pop("valid"), rows.pop("track_id")
    # Of nobody the vertices have no shape but (0,).
    keep = valid & np.isfinite(rows["vertices"]).all((1, 2)) if len(valid) else valid
    if not keep.any():
        raise InputError(f"{path} holds nobody: give the results of a run that found someone")
    fps = _fps(rows["frame"], rows["t_ns"])
    tracks = {}
    for person in np.unique(track_id[keep]).tolist():
        mine = keep & (track_id == person)
        tracks[person] = Track(person, **{name: array[mine] for name, array in rows.items()})
    return Recording(tracks, faces, fps, **about)


def _no_vertices(path: Path | str, names: set[str]) -> str:
    groups = sorted(name.removesuffix("_vertices") for name in names if name.endswith("_vertices"))
    if groups:
        return f"{path} holds {', '.join(groups)}: name one of them with --group"
    if "vertices" in names:
        return f"{path} holds one run: leave --group out"
    return f"{path} holds no vertices: give the npz that pchmr run wrote"


def _fps(frame: Array, t_ns: Array) -> float:
    """Frames a second over the whole file; 30 where it has one frame, or no time passes."""
    first, last = int(np.argmin(frame)), int(np.argmax(frame))
    frames, elapsed_ns = int(frame[last] - frame[first]), int(t_ns[last] - t_ns[first])
    return frames * 1e9 / elapsed_ns if frames and elapsed_ns > 0 else 30.0
