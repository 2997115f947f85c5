"""What a lower precision may cost a stage, in the stage's own unit, and what it does cost.

A budget is 10 mm per vertex, or 1 mm for fp16: on a real person open-plus is 66 mm off after
alignment, and 10 mm more that have nothing to do with those make it 66.8. The stages' budgets are
about what moves the mesh by as much: 1 px of a person 200 px high, 1 degree at half a metre.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.blazepose import refine_landmarks
from pchmr.geometry import rot6d_to_rotmat
from pchmr_engines.manifest import Stage

from .gates import MAP_DECODERS, UNITS, decoded

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

MESH_MM = 10.0
"""Mean mm per vertex of the composition, about the root."""
BUDGETS = {
    "px": 1.0,
    "mm": MESH_MM,
    "deg": 1.0,
    "betas": 0.1,
    "probability": 0.05,
    "of the largest": 0.02,
}
"""Unit -> greatest mean difference over real rows."""
SHARES = {"fp16": 0.1, "bf16": 1.0, "int8": 1.0, "fp8": 1.0}
SEEN = 0.5
"""Visibility from which a landmark counts."""


@dataclass(frozen=True)
class Spent:
    """One quantity of a stage, or of the whole mesh, in lower precision against float32.

    stage: its name, or "composition: <topology>". mean, p95, worst: over rows and points, `unit`.
    """

    stage: str
    quantity: str
    backend: str
    precision: str
    unit: str
    mean: float
    p95: float
    worst: float
    budget: float

    @property
    def passed(self) -> bool:
        return self.mean <= self.budget  # False for NaN

    @property
    def share(self) -> float:
        """Of the budget; infinite for NaN."""
        return float(np.nan_to_num(self.mean / self.budget, nan=np.inf))


def budget(unit: str, precision: str) -> float:
    """The greatest mean difference allowed, in `unit`."""
    return BUDGETS[unit] * SHARES[precision]


def spent(
    stage: str, backend: str, precision: str, off: Mapping[str, tuple[str, Floats]]
) -> tuple[Spent, ...]:
    """Each quantity of `differences`, summed up and with its budget."""
    return tuple(
        summed_up(stage, quantity, backend, precision, unit, values)
        for quantity, (unit, values) in off.items()
    )


def summed_up(
    stage: str, quantity: str, backend: str, precision: str, unit: str, values: Floats
) -> Spent:
    """values: differences of any shape; none at all is no difference."""
    values = values if values.size else np.zeros(1)
    return Spent(
        stage,
        quantity,
        backend,
        precision,
        unit,
        mean=float(values.mean()),
        p95=float(np.quantile(values, 0.95)),
        worst=float(values.max()),
        budget=budget(unit, precision),
    )


def differences(stage: Stage, found: Arrays, expected: Arrays) -> dict[str, tuple[str, Floats]]:
    """Quantity -> unit, and how far `found` is from `expected` at each row and point.

    Of a detector the best box; of landmarks those seen; of heat maps the joints decoded from them.
    """
    outputs = set(expected)
    if {"boxes", "scores"} <= outputs:
        return _detection(found, expected)
    if {"landmarks", "presence", "world"} <= outputs:
        return _blazepose(found, expected)
    off: dict[str, tuple[str, Floats]] = {}
    for name, right in expected.items():
        got = found[name]
        if name == "heatmaps" and (decoder := stage.settings.get("decoder")) in MAP_DECODERS:
            off["keypoints"] = "px", _apart(decoded(got, decoder), decoded(right, decoder))
        elif name in ("rot6d", "rotmats"):
            off[name] = "deg", _degrees(*(_rotations(name, x) for x in (got, right)))
        elif name in MEASURES:
            unit, scale = MEASURES[name]
            off[name] = unit, scale * _apart(got, right)
        else:
            largest = float(np.abs(right).max(initial=1e-9))
            off[name] = "of the largest", np.abs(_double(got) - right) / largest
    return off


MEASURES = {**UNITS, "landmarks": ("mm", 1000.0), "betas": ("betas", 1.0)}
"""Output -> unit, and units per number of it; the distance is over its last axis."""


def _double(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)


def _apart(found: NDArray[Any], expected: NDArray[Any]) -> Floats:
    return np.asarray(np.linalg.norm(_double(found) - expected, axis=-1))


def _sigmoid(logits: NDArray[Any]) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * _double(logits)))


def _detection(found: Arrays, expected: Arrays) -> dict[str, tuple[str, Floats]]:
    """The box and its score where the detector in float32 is surest, rows with somebody in them."""
    right = _sigmoid(expected["scores"][..., 0])
    best = right.argmax(1)
    rows = np.flatnonzero(right.max(1) >= SEEN)
    boxes, scores = (
        [pair[key][rows, best[rows]] for pair in (found, expected)] for key in ("boxes", "scores")
    )
    return {
        "box": ("px", np.abs(_double(boxes[0]) - boxes[1])),
        "score": ("probability", np.abs(_sigmoid(scores[0]) - _sigmoid(scores[1]))),
    }


def _blazepose(found: Arrays, expected: Arrays) -> dict[str, tuple[str, Floats]]:
    """Landmarks that are seen, refined by the heat maps where there are some."""
    seen = _sigmoid(expected["landmarks"][:, :33, 3]) >= SEEN
    presence = np.abs(_double(found["presence"]) - expected["presence"])
    world = 1000 * _apart(found["world"][:, :33], expected["world"][:, :33])[seen]
    points = _apart(_refined(found), _refined(expected))[seen]
    return {
        "keypoints": ("px", points),
        "world": ("mm", world),
        "presence": ("probability", presence),
    }


def _refined(outputs: Arrays) -> NDArray[Any]:
    points = outputs["landmarks"][:, :33, :2]
    if "heatmaps" not in outputs:
        return points
    maps = outputs["heatmaps"][..., :33]
    pairs = zip(points, maps, strict=True)
    return np.stack([refine_landmarks(p, np.ascontiguousarray(m)) for p, m in pairs])


def _rotations(name: str, values: NDArray[Any]) -> Floats:
    numbers = _double(values)
    return np.asarray(rot6d_to_rotmat(numbers)) if name == "rot6d" else numbers


def _degrees(found: Floats, expected: Floats) -> Floats:
    """Angle between rotations (..., 3, 3), from the chord, which stays exact for small angles."""
    chord = np.linalg.norm(found - expected, axis=(-2, -1)) / np.sqrt(8)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))))
