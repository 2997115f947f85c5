"""Accuracy gates of a stage: what torch gives, against what each installed backend makes of it.

data = parity_arrays(inputs, torch_outputs(form.module, fed, form.outputs))
parity = {name: output_parity(name, data[f"outputs/{name}"]) for name in form.outputs}
gates = run_gates("generator", file.path, parity, data)
measured(parity, check(gates))     # into the manifest
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.prepost.crops import Crop
from pchmr.stages.pose2d import DECODERS
from pchmr_engines.backends import AUTO, BACKENDS, engine_from_onnx
from pchmr_engines.errors import InputError, PchmrError
from pchmr_engines.host import installed_versions
from pchmr_engines.manifest import Parity
from pchmr_engines.verify import Gate, greatest_difference

Arrays = Mapping[str, NDArray[Any]]

# Float32 costs up to a third of these; the mean of green on red costs SPIN 150 times as much.
TOLERANCES = {
    "px": 0.02,
    "mm": 0.05,
    "deg": 0.01,
    "rad": 2e-4,
    "of the largest": 5e-5,
    "": 1e-3,
}
"""Unit -> greatest difference allowed in fp32. "": numbers without a unit, such as betas."""

POWER = 10
"""By how many tolerances the examples' outputs must differ: else no fault could fail a gate."""

UNITS = {
    "rotmats": ("deg", float(np.rad2deg(1))),  # to first order an entry's change is the angle
    "cam": ("px", 112.0),  # s (X + t) is -1..1 over a crop of 224
    "betas": ("", 1.0),
    "coord": ("px", 4.0),  # cells of the volume
    "keypoints": ("px", 1.0),
    **dict.fromkeys(("joints", "joints_3d", "vertices"), ("mm", 1000.0)),
}
"""Output -> its unit, and units per number of it; others are judged by their largest."""

MAP_DECODERS = ("hrnet", "cpn")
"""Those of heat maps."""


@dataclass(frozen=True)
class View:
    """Something that follows from a stage's outputs and is gated as well, at export only."""

    name: str
    parity: Parity
    of: Callable[[Arrays], NDArray[Any]]


class GateFailed(PchmrError):
    """A stage is not what the framework computes. gates: all of them, for the report."""

    def __init__(self, message: str, gates: tuple[Gate, ...]) -> None:
        super().__init__(message)
        self.gates = gates


def output_parity(name: str, expected: NDArray[Any]) -> Parity:
    """The gate of an output, its value still 0."""
    if expected.dtype.kind == "i":  # a counter of a stream's state
        return Parity("", 1.0, 0.0, TOLERANCES[""])
    largest = 1 / float(np.abs(expected).max(initial=1e-9))
    unit, scale = UNITS.get(name, ("of the largest", largest))
    return Parity(unit, scale, 0.0, TOLERANCES[unit])


def keypoint_views(decoder: str | None) -> tuple[View, ...]:
    """Keypoints of heat maps, in pixels of the crop, as the runtime decodes them."""
    if decoder not in MAP_DECODERS:
        return ()
    parity = Parity("px", 1.0, 0.0, TOLERANCES["px"])
    return (View("keypoints", parity, lambda outputs: decoded(outputs["heatmaps"], decoder)),)


def decoded(heatmaps: NDArray[Any], decoder: str) -> NDArray[Any]:
    """(N, J, 2), pixels of the crop, of heat maps (N, J, H, W)."""
    crop = Crop(np.zeros((0, 0, 3), np.uint8), np.eye(2, 3))
    return np.stack([DECODERS[decoder](maps, crop)[:, :2] for maps in heatmaps])


def run_gates(
    stage: str,
    graph: Path,
    parity: Mapping[str, Parity],
    data: Arrays,
    more: Sequence[View] = (),
    backends: Sequence[str] | None = None,
    must_vary: bool = True,
) -> tuple[Gate, ...]:
    """All gates of a stage in fp32 on each backend; None: on those installed. Passed or not.

    data: the parity arrays. must_vary: refuse examples that could fail no gate.

    Raises: InputError for examples so alike that no fault could fail a gate; EngineError from the
    backends.
    """
    if must_vary:
        check_power(stage, parity, data)
    inputs, expected = (
        {key.removeprefix(f"{side}/"): x for key, x in data.items() if key.startswith(f"{side}/")}
        for side in ("inputs", "outputs")
    )
    gates: list[Gate] = []
    for backend in installed_backends() if backends is None else backends:
        engine = engine_from_onnx(graph, backend, cache=False)
        found = engine.run(inputs)
        compared = [(name, wanted, found[name], expected[name]) for name, wanted in parity.items()]
        compared += [(view.name, view.parity, view.of(found), view.of(expected)) for view in more]
        for name, wanted, got, right in compared:
            value = wanted.scale * greatest_difference(got, right)
            measure = wanted.unit, wanted.value, value, wanted.tolerance
            gates.append(Gate(stage, name, backend, "fp32", *measure))
    return tuple(gates)


def installed_backends() -> tuple[str, ...]:
    """The CPU backends of this machine, by name. Raises: InputError without any."""
    found = tuple(name for name in AUTO if installed_versions(BACKENDS[name].packages))
    if not found:
        raise InputError(
            f"no backend is installed to hold a stage against: install one of {', '.join(AUTO)}"
        )
    return found


def check_power(stage: str, parity: Mapping[str, Parity], data: Arrays) -> None:
    """Raises: InputError where an output hardly depends on the input over the examples' rows."""
    for name, wanted in parity.items():
        rows = data[f"outputs/{name}"].astype(np.float64)
        varies = wanted.scale * float(np.ptp(rows, axis=0).max(initial=0.0))
        if varies < POWER * wanted.tolerance:
            raise InputError(
                f"stage {stage!r}: {name} varies by {varies:.3g} {wanted.unit} over the examples, "
                f"and the tolerance is {wanted.tolerance:.3g}: no fault could fail this gate; give "
                "examples, or weights, that differ more"
            )


def check(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """The gates. Raises: GateFailed that names the worst one of those that failed."""
    gates = tuple(gates)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        worst = max(failed, key=lambda gate: np.nan_to_num(gate.value / gate.tolerance, nan=np.inf))
        others = f"; {len(failed) - 1} more of {len(gates)} gates failed" if failed[1:] else ""
        raise GateFailed(
            f"stage {worst.stage!r} in {worst.precision} on {worst.backend}: {worst.output} is "
            f"{worst.value:.3g} {worst.unit} off the framework; allowed are "
            f"{worst.tolerance:.3g}{others}: export it again from its checkpoint, and report this "
            "if it stays",
            gates,
        )
    return gates


def measured(parity: Mapping[str, Parity], gates: Iterable[Gate]) -> dict[str, Parity]:
    """The gates as a manifest keeps them, each with its worst value over the backends."""
    gates = tuple(gates)
    return {
        name: replace(wanted, value=max(gate.value for gate in gates if gate.output == name))
        for name, wanted in parity.items()
    }
