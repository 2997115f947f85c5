"""The open body's surface and shape space: which vertices and faces, how adults vary."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .open_body_makehuman import MakeHuman
from .open_body_rig import bake_t_pose

PELVIS = np.array([0.0, -0.22, 0.03])  # about where SMPL's mean shape has it
STATURE_M = {"female": 1.63, "male": 1.76, "spread": 0.068}
# The tips of the chest, replaced by a flat patch: first and last vertex of either disc.
CLOSED_DISCS = ((1778, 1793), (8450, 8465))


@dataclass(frozen=True)
class ShapeSpace:
    """A mean body and unit-variance directions away from it.

    v_template: (V, 3); shapedirs: (V, 3, B), of decreasing effect, positive where taller;
    heads: joints and other bone heads (3,) of the mean by name; head_dirs: (3, B) each. Metres.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    heads: Mapping[str, np.ndarray]
    head_dirs: Mapping[str, np.ndarray]


def surface(source: MakeHuman) -> tuple[np.ndarray, np.ndarray]:
    """Indices (V,) of the body's vertices in the source, and triangles (F, 3) over these."""
    removed = np.concatenate([np.arange(first, last + 1) for first, last in CLOSED_DISCS])
    in_disc = np.isin(source.quads, removed).any(1)
    quads = source.quads[~in_disc]
    patches = [_fill(loop) for loop in _loops(source.quads[in_disc])]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], *patches])
    used, faces = np.unique(triangles, return_inverse=True)
    return used, faces.reshape(-1, 3)


def shape_space(
    source: MakeHuman,
    used: np.ndarray,
    heads: Mapping[str, str],
    num_betas: int,
    samples: int,
    progress: Callable[[float], None],
    seed: int = 0,
) -> ShapeSpace:
    """Principal components of random adults in the T-pose, each moved to put its pelvis at PELVIS.

    heads: name -> bone of the points to follow besides the vertices, the pelvis first.
    """
    amounts = _random_adults(source, used, samples, np.random.default_rng(seed))
    vertices = np.empty((samples, len(used), 3), np.float32)
    points = np.empty((samples, len(heads), 3))
    for i in range(samples):
        adult = source.vertices + np.tensordot(amounts[i], source.targets, 1)
        adult = (adult + adult[source.mirror] * [-1, 1, 1]) / 2
        posed, points[i] = bake_t_pose(source, adult, tuple(heads.values()))
        vertices[i] = posed[used] - points[i, 0] + PELVIS
        points[i] += PELVIS - points[i, 0]
        progress((i + 1) / samples)
    mean, point_mean = vertices.mean(0, dtype=np.float64), points.mean(0)
    deviations = (vertices - mean).reshape(samples, -1)
    scores = np.linalg.eigh(deviations @ deviations.T)[1][:, ::-1][:, :num_betas]
    scores *= np.sqrt(samples)
    shapedirs = (deviations.T @ scores / samples).reshape(-1, 3, num_betas)
    grown = np.ptp(mean[:, 1, None] + shapedirs[:, 1], axis=0) - np.ptp(mean[:, 1])
    scores, shapedirs = scores * np.sign(grown), shapedirs * np.sign(grown)
    point_dirs = np.einsum("npc,nb->pcb", points - point_mean, scores) / samples
    return ShapeSpace(
        mean,
        shapedirs,
        dict(zip(heads, point_mean, strict=True)),
        dict(zip(heads, point_dirs, strict=True)),
    )


def _random_adults(
    source: MakeHuman, used: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Amounts (count, T) of the targets of random adults, whose stature fits their gender."""
    tallness = (0.0, 0.5, 1.0)  # stature is linear in the slider on either side of the middle
    y, y_targets = source.vertices[used, 1], source.targets[:, used, 1]
    amounts = []
    for _ in range(count):
        gender = rng.beta(0.5, 0.5)
        sliders = {
            "gender": gender,
            "age": rng.beta(1.0, 2.0),
            "muscle": rng.beta(2.0, 2.0),
            "weight": rng.beta(2.0, 2.5),
            "proportions": rng.beta(2.0, 2.0),
        }
        mean_stature = (1 - gender) * STATURE_M["female"] + gender * STATURE_M["male"]
        stature = mean_stature + STATURE_M["spread"] * np.clip(rng.standard_normal(), -2.5, 2.5)
        trials = np.array([source.amounts({**sliders, "height": tall}) for tall in tallness])
        height = np.interp(stature, np.ptp(y + trials @ y_targets, axis=1), tallness)
        amounts.append(source.amounts({**sliders, "height": float(height)}))
    return np.array(amounts)


def _loops(quads: np.ndarray) -> list[list[int]]:
    """The rims of patches of quads, each in the quads' own sense of rotation."""
    edges = {
        (int(a), int(b)) for quad in quads for a, b in zip(quad, np.roll(quad, -1), strict=True)
    }
    following = {a: b for a, b in edges if (b, a) not in edges}
    loops = []
    while following:
        loop = [min(following)]
        while following[loop[-1]] != loop[0]:
            loop.append(following[loop[-1]])
        following = {a: b for a, b in following.items() if a not in loop}
        loops.append(loop)
    return loops


def _fill(loop: list[int]) -> np.ndarray:
    """Triangles (n - 2, 3) across a closed loop of n vertices, as a strip from its first vertex."""
    low, high, triangles = 0, len(loop) - 1, []
    while high - low > 1:
        triangles.append((loop[low], loop[low + 1], loop[high]))
        low += 1
        if high - low > 1:
            triangles.append((loop[low], loop[high - 1], loop[high]))
            high -= 1
    return np.array(triangles)
