"""Meshes over time as one binary glTF 2.0 file, vertex for vertex: y up, metres, seconds.

Every frame is a morph target that replaces the clip's first mesh whole; an animation of the weights
blends from each frame to the next, so the mesh is exact at the frame's time. A long track is cut
into clips of `CLIP` frames, one node each, shown in turn by an animation of their scale (0 hides a
node, by the standard): the weights would otherwise grow with the square of the frames, and WebGL
promises a mesh no more than some 200 targets. While a person is out of sight no node is shown.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError

from ..whole import whole_file
from .recording import Recording, Track

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CLIP = 128
MOST_BYTES = 2**32 - 1  # a GLB counts its own length in 32 bits
TO_GLTF = np.array([1, -1, -1], np.float32)  # x right, y down, z away -> y up, z to the viewer
COLOURS = ((0.80, 0.47, 0.33), (0.35, 0.55, 0.75), (0.45, 0.65, 0.40), (0.70, 0.60, 0.35))

COMPONENTS = {"float32": 5126, "uint16": 5123, "uint32": 5125}
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963


def write_glb(
    path: Path | str, recording: Recording, person: int | None = None, normals: bool = True
) -> None:
    """The calibrated meshes of all people, or of one, and the camera that saw them.

    normals: of every frame, for smooth shading; without them the file is half as large and
    programs shade it flat. A frame takes 12 bytes a vertex, 24 with normals.

    Raises:
        InputError: more than a GLB can hold, or a place that cannot be written to.
    """
    tracks = list(recording.tracks.values()) if person is None else [recording.track(person)]
    with whole_file(path) as part, tempfile.TemporaryFile(dir=part.parent) as buffer:
        document = _Document(recording.faces, recording.fps, tracks, normals, buffer)
        for number, track in enumerate(tracks):
            document.add(track, COLOURS[number % len(COLOURS)])
        document.write(part)


class _Document:
    """The JSON of a glTF file, and its one buffer in a scratch file."""

    def __init__(
        self, faces: Array, fps: float, tracks: Sequence[Track], normals: bool, buffer: IO[bytes]
    ) -> None:
        self._faces, self._fps, self._normals, self._buffer = faces, fps, normals, buffer
        self._begin_ns = min(int(track.t_ns[0]) for track in tracks)
        self._end_ns = max(int(track.t_ns[-1]) for track in tracks)
        self._json: dict[str, Any] = {"asset": {"version": "2.0", "generator": "pchmr"}}
        self._nodes: list[int] = [self._append("nodes", name="camera", camera=0)]
        self._append("cameras", type="perspective", perspective=_perspective(tracks[0].camera[0]))
        self._samplers: list[dict[str, Any]] = []
        self._channels: list[dict[str, Any]] = []
        index = np.uint16 if faces.max() < 65535 else np.uint32
        self._indices = self._accessor(faces.reshape(-1, 1).astype(index), ELEMENT_ARRAY_BUFFER)

    def add(self, track: Track, colour: tuple[float, float, float]) -> None:
        """A person: a node for each clip, under one node of theirs."""
        surface = {"baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
        name = f"person {track.id}"
        material = self._append("materials", name=name, pbrMetallicRoughness=surface)
        clips = [
            (begin, min(begin + CLIP, run.stop), run.stop)
            for run in track.runs
            for begin in range(run.start, run.stop, CLIP)
        ]
        # The next frame, where there is one, ends a clip too: nothing jumps between two of them.
        children = [
            self._clip(track, range(begin, min(end + 1, stop)), end < stop, material)
            for begin, end, stop in clips
        ]
        self._nodes.append(self._append("nodes", name=name, children=children))

    def _clip(self, track: Track, frames: range, goes_on: bool, material: int) -> int:
        first, *rest = (self._shape(track.vertices[i]) for i in frames)
        primitive: dict[str, Any] = {
            "attributes": {name: self._accessor(array) for name, array in first.items()},
            "indices": self._indices,
            "material": material,
        }
        mesh: dict[str, Any] = {"primitives": [primitive]}
        if rest:
            primitive["targets"] = [
                {name: self._accessor(array - first[name]) for name, array in shape.items()}
                for shape in rest
            ]
            mesh["weights"] = [0.0] * len(rest)
            mesh["extras"] = {"targetNames": [f"frame {track.frame[i]}" for i in frames[1:]]}
        name = f"person {track.id} from frame {track.frame[frames[0]]}"
        node = self._append("nodes", name=name, mesh=self._append("meshes", name=name, **mesh))
        seconds = (track.t_ns[frames] - self._begin_ns) / 1e9
        if rest:
            weights = np.eye(len(frames), dtype=np.float32)[:, 1:]
            self._animate(node, "weights", seconds, weights.reshape(-1, 1), "LINEAR")
        self._show(node, seconds, goes_on)
        return node

    def _shape(self, vertices: Float32) -> dict[str, Float32]:
        turned = vertices * TO_GLTF
        shape = {"POSITION": turned}
        if self._normals:
            shape["NORMAL"] = vertex_normals(turned, self._faces)
        return shape

    def _show(self, node: int, seconds: Float64, goes_on: bool) -> None:
        """Shown from the clip's first frame to its last, and for the time of one frame."""
        end = seconds[-1] if goes_on else seconds[-1] + 1 / self._fps
        keys = [(0.0, 0), (seconds[0], 1)] if seconds[0] > 0 else [(0.0, 1)]
        if goes_on or end < (self._end_ns - self._begin_ns) / 1e9:
            keys.append((end, 0))
        if len(keys) > 1:
            times, scales = np.array([time for time, _ in keys]), [[on] * 3 for _, on in keys]
            self._animate(node, "scale", times, np.array(scales, np.float32), "STEP")
        if seconds[0] > 0:
            self._json["nodes"][node]["scale"] = [0.0, 0.0, 0.0]  # where nothing is played

    def _animate(
        self, node: int, path: str, seconds: Float64, values: Float32, interpolation: str
    ) -> None:
        times = self._accessor(seconds.astype(np.float32)[:, None], None, bounds=True)
        output = self._accessor(values, None)
        self._channels.append(
            {"sampler": len(self._samplers), "target": {"node": node, "path": path}}
        )
        self._samplers.append({"input": times, "output": output, "interpolation": interpolation})

    def _append(self, kind: str, **fields: Any) -> int:
        self._json.setdefault(kind, []).append(fields)
        return len(self._json[kind]) - 1

    def _accessor(
        self, array: Array, target: int | None = ARRAY_BUFFER, bounds: bool = False
    ) -> int:
        """The number of an accessor of (N, components), written behind the ones before."""
        view = {"buffer": 0, "byteOffset": self._buffer.tell(), "byteLength": array.nbytes}
        if target is not None:
            view["target"] = target
        self._buffer.write(np.ascontiguousarray(array).data)
        self._buffer.write(bytes(-array.nbytes % 4))
        fields: dict[str, Any] = {
            "bufferView": self._append("bufferViews", **view),
            "componentType": COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": "SCALAR" if array.shape[1] == 1 else "VEC3",
        }
        if bounds or target == ARRAY_BUFFER:
            fields["min"], fields["max"] = array.min(0).tolist(), array.max(0).tolist()
        return self._append("accessors", **fields)

    def write(self, path: Path) -> None:
        """The finished file. Raises: InputError where it would be too large."""
        if self._channels:
            animation = {"samplers": self._samplers, "channels": self._channels}
            self._append("animations", name="motion", **animation)
        length = self._buffer.tell()
        self._append("buffers", byteLength=length)
        self._json.update(scene=0, scenes=[{"nodes": self._nodes}])
        text = json.dumps(self._json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + length
        if total > MOST_BYTES:
            raise InputError(
                f"the file would be {total / 2**30:.1f} GiB; a GLB holds 4: convert one person "
                "(--person), a shorter part, or leave out normals (--flat)"
            )
        self._buffer.seek(0)
        with path.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", length, b"BIN\0"))
            shutil.copyfileobj(self._buffer, file, 1 << 20)


def _perspective(camera: Array) -> dict[str, float]:
    """The camera's view, where its principal point is the middle of the picture."""
    fx, fy, cx, cy = map(float, camera)
    return {
        "yfov": 2 * math.atan(cy / fy),
        "aspectRatio": (cx / fx) / (cy / fy),
        "znear": 0.01,
    }


def vertex_normals(vertices: Float32, faces: Array) -> Float32:
    """(V, 3) float32 unit normals: those of the faces around a vertex, weighted by their area."""
    corners = vertices[faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    around = np.repeat(normal, 3, axis=0)
    total = np.stack(
        [np.bincount(faces.reshape(-1), around[:, c], len(vertices)) for c in range(3)], 1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.where(length > 0, total / np.maximum(length, 1e-30), (0.0, 1.0, 0.0))
    return unit.astype(np.float32)
