"""Results as a Rerun recording (.rrd): meshes, joints and targets over time, in 3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pchmr_engines.errors import InputError, MissingDependency
from pchmr_kernels.skeletons import SKELETONS

from ..whole import whole_file
from .glb import COLOURS, vertex_normals
from .recording import Recording, Track

FLUSH_S = 60.0
"""For the last of a file; on a full disk rerun may wait for ever."""
JOINTS, TARGETS = (230, 230, 230), (255, 80, 60)


def write_rerun(path: Path | str, recording: Recording, person: int | None = None) -> None:
    """Everyone's calibrated mesh, its joints and their targets; camera frame, metres.

    Raises:
        MissingDependency: without the package rerun.
        InputError: the place cannot be written to, or is full.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingDependency("rerun", "rerun", "writing a Rerun recording") from error
    tracks = list(recording.tracks.values()) if person is None else [recording.track(person)]
    stream = rr.RecordingStream("pchmr")
    with whole_file(path) as part:
        part.write_bytes(b"")
        stream.save(part)
        stream.log("world", rr.ViewCoordinates.RDF, static=True)
        for number, track in enumerate(tracks):
            _log_track(rr, stream, recording, track, COLOURS[number % len(COLOURS)])
        try:
            stream.flush(timeout_sec=FLUSH_S)
        except RuntimeError as error:
            raise InputError(
                f"{path} cannot be written ({error}): make room, or name another one"
            ) from error
        stream.disconnect()


def _log_track(
    rr: Any,
    stream: Any,
    recording: Recording,
    track: Track,
    colour: tuple[float, float, float],
) -> None:
    name = f"world/person_{track.id}"
    bones = SKELETONS[recording.skeleton].bones if recording.skeleton in SKELETONS else None
    once = rr.Mesh3D.from_fields(
        triangle_indices=recording.faces, albedo_factor=[*(round(255 * c) for c in colour), 255]
    )
    stream.log(f"{name}/mesh", once, static=True)
    for i, t_ns in enumerate(track.t_ns):
        stream.set_time("time", duration=int(t_ns) / 1e9)
        stream.set_time("frame", sequence=int(track.frame[i]))
        mesh = rr.Mesh3D.from_fields(
            vertex_positions=track.vertices[i],
            vertex_normals=vertex_normals(track.vertices[i], recording.faces),
        )
        stream.log(f"{name}/mesh", mesh)
        joints = track.joints[i]
        stream.log(f"{name}/joints", rr.Points3D(joints, colors=[JOINTS], radii=0.012))
        target = track.target_joints[i]
        if np.isfinite(target).all():
            stream.log(f"{name}/targets", rr.Points3D(target, colors=[TARGETS], radii=0.012))
        if bones is not None:
            stream.log(f"{name}/bones", rr.LineStrips3D(joints[bones], colors=[JOINTS]))
        gone = i + 1 == len(track.frame) or track.frame[i + 1] != track.frame[i] + 1
        if gone:
            stream.set_time("time", duration=int(t_ns) / 1e9 + 1 / recording.fps)
            stream.set_time("frame", sequence=int(track.frame[i]) + 1)
            stream.log(name, rr.Clear(recursive=True))
