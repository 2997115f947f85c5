"""A small player of glTF animations, on what pygltflib reads: independent of the writer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pygltflib

DTYPES = {5126: np.float32, 5123: np.uint16, 5125: np.uint32}
WIDTHS = {"SCALAR": 1, "VEC3": 3}


@dataclass(frozen=True)
class Shown:
    """A mesh at one moment. positions, normals: (V, 3); faces: (F, 3)."""

    name: str
    positions: np.ndarray
    normals: np.ndarray | None
    faces: np.ndarray


class Player:
    def __init__(self, path: Path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        self._blob = self.gltf.binary_blob()

    def array(self, accessor: int) -> np.ndarray:
        entry = self.gltf.accessors[accessor]
        view = self.gltf.bufferViews[entry.bufferView]
        width = WIDTHS[entry.type]
        dtype = np.dtype(DTYPES[entry.componentType])
        assert view.byteLength == entry.count * width * dtype.itemsize
        flat = np.frombuffer(self._blob, dtype, entry.count * width, view.byteOffset)
        array = flat.reshape(-1, width)
        if entry.min:
            np.testing.assert_array_equal(array.min(0), np.array(entry.min, dtype))
            np.testing.assert_array_equal(array.max(0), np.array(entry.max, dtype))
        return array

    def at(self, seconds: float) -> list[Shown]:
        """The meshes whose scale is not 0."""
        shown = []
        for number, node in enumerate(self.gltf.nodes):
            if node.mesh is None:
                continue
            mesh = self.gltf.meshes[node.mesh]
            scale = self._value(number, "scale", seconds, np.ones(3))
            weights = self._value(number, "weights", seconds, np.array(mesh.weights or []))
            assert set(scale) <= {0.0, 1.0}
            if scale.all():
                shown.append(self._blend(mesh, weights))
        return shown

    def _value(self, node: int, path: str, seconds: float, default: np.ndarray) -> np.ndarray:
        for animation in self.gltf.animations:
            for channel in animation.channels:
                if (channel.target.node, channel.target.path) == (node, path):
                    sampler = animation.samplers[channel.sampler]
                    times = self.array(sampler.input)[:, 0]
                    assert (np.diff(times) > 0).all()
                    values = self.array(sampler.output).reshape(len(times), -1)
                    if sampler.interpolation == "STEP":
                        return values[max(np.searchsorted(times, seconds, "right") - 1, 0)]
                    columns = [np.interp(seconds, times, column) for column in values.T]
                    return np.array(columns)
        return default

    def _blend(self, mesh: pygltflib.Mesh, weights: np.ndarray) -> Shown:
        (primitive,) = mesh.primitives
        faces = self.array(primitive.indices).reshape(-1, 3)
        blended: dict[str, np.ndarray | None] = {"NORMAL": None}
        for name in ("POSITION", "NORMAL"):
            base = getattr(primitive.attributes, name)
            if base is None:
                continue
            total = self.array(base).astype(np.float64)
            for weight, target in zip(weights, primitive.targets or [], strict=True):
                if weight:
                    total = total + weight * self.array(target[name])
            blended[name] = total
        return Shown(mesh.name, blended["POSITION"], blended["NORMAL"], faces)
