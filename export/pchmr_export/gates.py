"""Accuracy gates of a stage: what torch gives, against what each installed backend makes of it.

data = parity_arrays(inputs, framework_outputs(network, spec, inputs))
gates = run_gates("spin_hmr", file.path, requirements(spec, data), data, views(spec))
parity = measured(requirements(spec, data), check(gates))     # into the manifest
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.prepost.cpn import decode_cpn
from pchmr.prepost.crops import Crop
from pchmr.prepost.hrnet import decode_hrnet
from pchmr_engines.backends import AUTO, BACKENDS, engine_from_onnx
from pchmr_engines.errors import InputError, PchmrError
from pchmr_engines.host import installed_versions
from pchmr_engines.manifest import Parity
from pchmr_engines.verify import Gate, greatest_difference
from pchmr_training.networks import NetworkSpec

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

DEGREES = float(np.rad2deg(1))
CELL_PX = 4.0  # of the heat maps and volumes of all our networks
SCALES = {
    "rotmat": ("deg", DEGREES),  # to first order the greatest entry's change is at most the angle
    "cam": ("px", 112.0),  # s (X + t) is -1..1 over a crop of 224
    "betas": ("", 1.0),
    **dict.fromkeys(("theta", "omega", "omega_past5", "omega_future5"), ("rad", 1.0)),
    "coord": ("px", CELL_PX),
}
"""Output -> unit, and units per number of it."""


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


def requirements(spec: NetworkSpec, data: Arrays) -> dict[str, Parity]:
    """The gate of every output of a network, its value still 0."""
    return {name: _parity(spec, name, data[f"outputs/{name}"]) for name in spec.outputs}


def _parity(spec: NetworkSpec, name: str, expected: NDArray[Any]) -> Parity:
    if name == "pose":
        unit, scale = "mm", 1.0 if spec.unit.startswith("mm") else 1000.0
    elif name in SCALES:
        unit, scale = SCALES[name]
    else:  # heat maps and features have no unit
        unit, scale = "of the largest", 1 / float(np.abs(expected).max(initial=1e-9))
    return Parity(unit, scale, 0.0, TOLERANCES[unit])


def requirements_mm(outputs: Iterable[str]) -> dict[str, Parity]:
    """The gates of outputs in metres: vertices and joints."""
    return {name: Parity("mm", 1000.0, 0.0, TOLERANCES["mm"]) for name in outputs}


def views(spec: NetworkSpec) -> tuple[View, ...]:
    """Keypoints of a network of heat maps, in pixels of the crop."""
    if spec.skeleton != "coco17" or spec.outputs[0] not in ("heatmaps", "refine"):
        return ()
    decode = decode_hrnet if spec.outputs[0] == "heatmaps" else decode_cpn
    crop = Crop(np.zeros((0, 0, 3), np.uint8), np.eye(2, 3))

    def keypoints(outputs: Arrays) -> NDArray[Any]:
        maps = outputs[spec.outputs[0]]
        planes = np.moveaxis(maps, -1, 1) if spec.tensorflow else maps
        return np.stack([decode(person, crop)[:, :2] for person in planes])

    return (View("keypoints", Parity("px", 1.0, 0.0, TOLERANCES["px"]), keypoints),)


def run_gates(
    stage: str,
    graph: Path,
    parity: Mapping[str, Parity],
    data: Arrays,
    more: Sequence[View] = (),
    backends: Sequence[str] | None = None,
    precision: str = "fp32",
    seeded: bool = False,
    threads: int | None = None,
    must_vary: bool = True,
) -> tuple[Gate, ...]:
    """All gates of a stage on each backend; None: on those installed. Whether passed or not.

    data: the parity arrays. seeded: the weights are made up, and mean nothing in lower precision.
    must_vary: refuse examples that could fail no gate.

    Raises: InputError for seeded weights in lower precision, or for examples so alike that no fault
    could fail a gate; EngineError from the backends.
    """
    if seeded and precision != "fp32":
        raise InputError(
            f"stage {stage!r} has seeded weights, which are gated in fp32 only, not {precision}: "
            "the peak of a noisy map says nothing; give a checkpoint"
        )
    if must_vary:
        check_power(stage, parity, data)
    inputs, expected = (
        {key.removeprefix(f"{side}/"): x for key, x in data.items() if key.startswith(f"{side}/")}
        for side in ("inputs", "outputs")
    )
    gates: list[Gate] = []
    for backend in installed_backends() if backends is None else backends:
        engine = engine_from_onnx(graph, backend, threads, precision, cache=False)
        found = engine.run(inputs)
        compared = [(name, wanted, found[name], expected[name]) for name, wanted in parity.items()]
        compared += [(view.name, view.parity, view.of(found), view.of(expected)) for view in more]
        for name, wanted, got, right in compared:
            value = wanted.scale * greatest_difference(got, right)
            measure = wanted.unit, wanted.value, value, wanted.tolerance
            gates.append(Gate(stage, name, backend, precision, *measure))
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
