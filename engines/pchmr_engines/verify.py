"""Repeat a bundle's accuracy gates on this machine, from the stored outputs of the framework."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backends import backend_named
from .bundle import Bundle
from .engine import Array
from .errors import BundleError
from .manifest import Graph, Stage


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
    bundle: Bundle,
    backend: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> tuple[Gate, ...]:
    """The gates of every stage, run on `backend`.

    precision: of the stages that have a graph of it; None takes the first that the backend runs.
    Raises: BundleError when the bundle stores nothing to hold against, or not what the gates need.
    """
    suffix = ".onnx" if backend == "auto" else backend_named(backend).graph
    gates = tuple(
        gate
        for stage in bundle.manifest.stages
        if (graph := stage.find_graph(precision, suffix)) and graph.parity
        for gate in verify_stage(bundle, stage, graph, backend, threads)
    )
    if not gates:
        graphs = " ".join(filter(None, (precision, suffix, "graphs")))
        raise BundleError(
            f"bundle {bundle.manifest.name!r} stores no outputs of {graphs} to verify against: "
            "export it again with them"
        )
    return gates


def verify_stage(
    bundle: Bundle,
    stage: Stage,
    graph: Graph,
    backend: str = "auto",
    threads: int | None = None,
) -> tuple[Gate, ...]:
    """The gates of one graph of a stage."""
    data = bundle.parity_data(stage.name)
    needed = {f"inputs/{spec.name}" for spec in stage.inputs}
    needed |= {f"outputs/{name}" for name in graph.parity}
    if missing := sorted(needed - data.keys()):
        raise BundleError(f"stage {stage.name!r}: its parity file lacks {missing}: export it again")
    engine = bundle.engine(stage.name, backend, threads, graph.precision)
    found = engine.run({spec.name: data[f"inputs/{spec.name}"] for spec in stage.inputs})
    on_host = {name: as_numpy(array) for name, array in found.items()}
    return tuple(
        Gate(
            stage.name,
            name,
            engine.backend,
            graph.precision,
            parity.unit,
            parity.value,
            parity.scale * greatest_difference(on_host[name], data[f"outputs/{name}"]),
            parity.tolerance,
        )
        for name, parity in graph.parity.items()
    )


def as_numpy(array: Array) -> np.ndarray:
    """A NumPy or CuPy array in the host's memory."""
    return array.get() if hasattr(array, "get") else array


def greatest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """max |found - expected|, NaN where either has one. Raises: BundleError when shapes differ."""
    if found.shape != expected.shape:
        raise BundleError(
            f"an output has shape {found.shape}; the parity file has {expected.shape}: "
            "export the bundle again"
        )
    return float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64)), initial=0))
