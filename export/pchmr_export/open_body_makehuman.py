"""Reads the MakeHuman files (CC0) the open body is made of: mesh, shape targets, rig, skin weights.

Everything is in metres, y up, facing +z, the person's left at +x, in MakeHuman's own vertex order;
the caller picks the vertices of the body.
"""

import gzip
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pchmr_engines.errors import AssetError

METRES_PER_UNIT = 0.1  # the files are in decimetres

GENDERS, AGES = ("female", "male"), ("young", "old")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
HEIGHTS = ("minheight", "maxheight")
PROPORTIONS = ("uncommonproportions", "idealproportions")
ORIGINS = ("african", "asian", "caucasian")


@dataclass(frozen=True)
class Bone:
    """parent: name or ""; head: indices of the vertices whose mean is the bone's start."""

    parent: str
    head: np.ndarray


@dataclass(frozen=True)
class MakeHuman:
    """vertices: (N, 3) float64; quads: (Q, 4), body and eyes; mirror: (N,) index of each vertex's
    mirror image; bones, weights: by bone name, weights as (vertex indices, values); targets:
    (T, N, 3) float32 offsets, target t made for the variations target_keys[t]."""

    vertices: np.ndarray
    quads: np.ndarray
    mirror: np.ndarray
    bones: Mapping[str, Bone]
    weights: Mapping[str, tuple[np.ndarray, np.ndarray]]
    targets: np.ndarray
    target_keys: tuple[tuple[str, ...], ...]

    def amounts(self, sliders: Mapping[str, float]) -> np.ndarray:
        """How much (T,) float32 of each target makes an adult: vertices + amounts . targets.

        sliders: gender (0 female, 1 male), age (0 young, 1 old), muscle, weight, height and
        proportions, each 0..1 with the average at 0.5. A target's amount is the product of those of
        its variations, as MakeHuman's own macro definition says.
        """
        amount = {
            **dict(zip(GENDERS, _between(sliders["gender"]), strict=True)),
            **dict(zip(AGES, _between(sliders["age"]), strict=True)),
            **dict(zip(MUSCLES, _low_middle_high(sliders["muscle"]), strict=True)),
            **dict(zip(WEIGHTS, _low_middle_high(sliders["weight"]), strict=True)),
            **dict(zip(HEIGHTS, _low_middle_high(sliders["height"])[::2], strict=True)),
            **dict(zip(PROPORTIONS, _low_middle_high(sliders["proportions"])[::2], strict=True)),
            **dict.fromkeys(ORIGINS, 1 / len(ORIGINS)),
        }
        products = [np.prod([amount[part] for part in key]) for key in self.target_keys]
        return np.array(products, np.float32)


def read_makehuman(folder: Path) -> MakeHuman:
    """MakeHuman's data from a folder laid out as mpfb2's `data`, with 3dobjs, rigs and targets.

    Raises: AssetError naming the file that is missing.
    """
    needed = [folder / path for path in required_files()]
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise AssetError(
            f"{folder} lacks {len(missing)} of {len(needed)} MakeHuman files, the first is "
            f"{missing[0].relative_to(folder)}: fetch it again with  pchmr assets fetch makehuman"
        )
    vertices, groups = _read_obj(folder / "3dobjs/base.obj")
    quads = np.concatenate([groups[name] for name in ("body", "helper-l-eye", "helper-r-eye")])
    mirror = np.array(
        [line.split()[1] for line in (folder / "mesh_metadata/hm08.mirror").open() if line.strip()],
        np.int64,
    )
    rig = json.loads((folder / "rigs/standard/rig.default.json").read_text())
    weights = json.loads((folder / "rigs/standard/weights.default.json").read_text())["weights"]
    cubes = {name: np.unique(faces) for name, faces in groups.items()}
    target_keys, target_paths = zip(*_target_files(), strict=True)
    return MakeHuman(
        vertices * METRES_PER_UNIT,
        quads,
        mirror,
        {name: Bone(bone["parent"], _head(bone["head"], cubes)) for name, bone in rig.items()},
        {name: _sparse_column(pairs) for name, pairs in weights.items()},
        np.stack([_read_target(folder / path, len(vertices)) for path in target_paths]),
        target_keys,
    )


def required_files() -> list[str]:
    """Paths, relative to the MakeHuman folder, of every file `read_makehuman` opens."""
    return [
        "3dobjs/base.obj",
        "mesh_metadata/hm08.mirror",
        "rigs/standard/rig.default.json",
        "rigs/standard/weights.default.json",
        *(path for _, path in _target_files()),
    ]


def _target_files() -> Iterator[tuple[tuple[str, ...], str]]:
    """(variations whose amounts multiply, path) of each adult shape target."""
    macro = "targets/macrodetails"
    for origin, gender, age in itertools.product(ORIGINS, GENDERS, AGES):
        yield (origin, gender, age), f"{macro}/{origin}-{gender}-{age}.target.gz"
    for key in itertools.product(GENDERS, AGES, MUSCLES, WEIGHTS):
        name = "-".join(key)
        yield key, f"{macro}/universal-{name}.target.gz"
        for height in HEIGHTS:
            yield (*key, height), f"{macro}/height/{name}-{height}.target.gz"
        for proportions in PROPORTIONS:
            yield (*key, proportions), f"{macro}/proportions/{name}-{proportions}.target.gz"


def _between(value: float) -> tuple[float, float]:
    return 1 - value, value


def _low_middle_high(value: float) -> tuple[float, float, float]:
    return max(0.0, 1 - 2 * value), 1 - abs(2 * value - 1), max(0.0, 2 * value - 1)


def _read_obj(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vertices (N, 3) and, by group name, quads (Q, 4) of a Wavefront file made of quads."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    group: list[list[int]] = []
    for line in path.open():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in rest])
        elif kind == "g":
            group = groups.setdefault(rest[0], [])
        elif kind == "f":
            group.append([int(corner.split("/")[0]) - 1 for corner in rest])
    return np.array(vertices), {name: np.array(quads) for name, quads in groups.items()}


def _read_target(path: Path, vertex_count: int) -> np.ndarray:
    """Offsets (N, 3) float32, metres, of a target file: lines of index, x, y, z."""
    with gzip.open(path, "rt") as lines:
        table = np.fromstring(lines.read(), sep=" ").reshape(-1, 4)
    offsets = np.zeros((vertex_count, 3), np.float32)
    offsets[table[:, 0].astype(np.int64)] = table[:, 1:] * METRES_PER_UNIT
    return offsets


def _head(head: Mapping, cubes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices of the vertices whose mean is the bone's start."""
    if head["strategy"] == "CUBE":
        return cubes[head["cube_name"]]
    return np.atleast_1d(head["vertex_index" if head["strategy"] == "VERTEX" else "vertex_indices"])


def _sparse_column(pairs: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    column = np.array(pairs, np.float64).reshape(-1, 2)
    return column[:, 0].astype(np.int64), column[:, 1]
