"""Repeat a bundle's accuracy gates on this machine, from the stored outputs of the framework."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bundle import Bundle
from .errors import BundleError
from .manifest import Stage


@dataclass(frozen=True)
class Gate:
    """One output held against the framework's. value, tolerance: greatest |difference|, in `unit`.

    exported: the value measured when the bundle was made.
    """

    stage: str
    output: str
    backend: str
    precision: str
    unit: str
    exported: float
    value: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.value <= self.tolerance  # False for NaN


def verify_bundle(
    bundle: Bundle, backend: str = "auto", threads: int | None = None
) -> tuple[Gate, ...]:
    """The gates of every stage's first graph, run on `backend`.

    Raises: BundleError when the bundle stores nothing to hold against, or not what the gates need.
    """
    gates = tuple(
        gate
        for stage in bundle.manifest.stages
        if stage.graph().parity
        for gate in verify_stage(bundle, stage, backend, threads)
    )
    if not gates:
        raise BundleError(
            f"bundle {bundle.manifest.name!r} stores no outputs to verify against: export it again"
        )
    return gates


def verify_stage(
    bundle: Bundle,
    stage: Stage,
    backend: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> tuple[Gate, ...]:
    """The gates of one stage's graph; precision None takes its first."""
    graph = stage.graph(precision)
    data = bundle.parity_data(stage.name)
    needed = {f"inputs/{spec.name}" for spec in stage.inputs}
    needed |= {f"outputs/{name}" for name in graph.parity}
    if missing := sorted(needed - data.keys()):
        raise BundleError(f"stage {stage.name!r}: its parity file lacks {missing}: export it again")
    engine = bundle.engine(stage.name, backend, threads, graph.precision)
    found = engine.run({spec.name: data[f"inputs/{spec.name}"] for spec in stage.inputs})
    return tuple(
        Gate(
            stage.name,
            name,
            engine.backend,
            graph.precision,
            parity.unit,
            parity.value,
            parity.scale * greatest_difference(found[name], data[f"outputs/{name}"]),
            parity.tolerance,
        )
        for name, parity in graph.parity.items()
    )


def greatest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """max |found - expected|, NaN where either has one. Raises: BundleError when shapes differ."""
    if found.shape != expected.shape:
        raise BundleError(
            f"an output has shape {found.shape}; the parity file has {expected.shape}: "
            "export the bundle again"
        )
    return float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64)), initial=0))
