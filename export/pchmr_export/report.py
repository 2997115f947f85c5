"""`report/` in a bundle's folder: every gate and budget, what was kept or refused, plots, times.

write_report(exported.bundle, exported.gates, lowered)

It is no part of the bundle: nothing reads it, and `bundle.json` does not list it.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pchmr.bodies import body_from_arrays
from pchmr.latency import machine
from pchmr_engines.bundle import Bundle
from pchmr_engines.manifest import Graph, Stage
from pchmr_engines.store import folder_beside, path_inside, replace_folder
from pchmr_engines.verify import Gate

from .budgets import Floats, Spent
from .latency import StageTime, stage_times
from .lowering import LoweredBundle
from .precision import judges
from .room import room

FOLDER = "report"
LARGEST = 2**25  # bytes


def write_report(
    bundle: Bundle,
    gates: Iterable[Gate],
    lowered: LoweredBundle | None = None,
    times: Sequence[StageTime] | None = None,
    modules: Mapping[str, Callable[[], nn.Module]] | None = None,
) -> Path:
    """`report.md`, `report.json` and plots in the bundle's folder `report`; gives `report.md`.

    gates: of stages and compositions, as they were met. times: measured here where None, with
    `modules` (as `Exported` has them) as what was before. An older report is replaced in one step.
    """
    from .report_plots import plot_errors, plot_latency, plot_mesh

    gates = tuple(gates)
    times = stage_times(bundle, modules) if times is None else times
    figures = lowered.figures if lowered else ()
    refused = lowered.refused if lowered else ()
    target = bundle.root / FOLDER
    pictures: dict[str, str] = {}
    what = f"the report of {bundle.root}, which is whole,"
    with room(what, LARGEST, target), folder_beside(target) as folder:
        for stage in bundle.manifest.stages:
            if errors := dict(stage_errors(bundle, stage)):
                pictures[f"errors_{stage.name}.png"] = f"{stage.name}: differences on parity rows"
                plot_errors(folder / f"errors_{stage.name}.png", stage.name, errors)
        meshes = lowered.composed if lowered else ()
        faces = body_from_arrays(bundle.body()).faces if meshes else np.zeros((0, 3), np.int32)
        for mesh in meshes:
            name = f"mesh_{mesh.spent.stage.split(': ')[-1]}_{mesh.spent.precision}.png"
            pictures[name] = f"{mesh.spent.stage} in {mesh.spent.precision}: mm a vertex"
            plot_mesh(folder / name, faces, mesh)
        if times:
            pictures["latency.png"] = "time of a run, one row"
            plot_latency(folder / "latency.png", times)
        facts = {
            "bundle": bundle.manifest.name,
            "machine": machine(),
            **outcome(gates, lowered),
            "times_ms": [asdict(time) for time in times],
        }
        (folder / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        text = "\n".join(_markdown(bundle, gates, figures, refused, times, pictures))
        (folder / "report.md").write_text(text + "\n", encoding="utf-8")
        replace_folder(folder, target)
    return target / "report.md"


def outcome(gates: Iterable[Gate], lowered: LoweredBundle | None = None) -> dict[str, Any]:
    """Gates, budgets and what was refused, for JSON."""
    figures = lowered.figures if lowered else ()
    return {
        "gates": [asdict(gate) | {"passed": gate.passed} for gate in gates],
        "budgets": [asdict(figure) | {"passed": figure.passed} for figure in figures],
        "refused": list(lowered.refused) if lowered else [],
    }


def stage_errors(
    bundle: Bundle, stage: Stage
) -> Iterator[tuple[tuple[str, str], tuple[str, Floats, float]]]:
    """Differences from the framework on the parity rows, as `plot_errors` takes them.

    Every output with a gate, but for the state of a stream, in every graph, on every backend that
    computes so here.
    """
    state = set(stage.settings.get("state", {}).values())
    data = bundle.parity_data(stage.name)
    inputs = {spec.name: data[f"inputs/{spec.name}"] for spec in stage.inputs if data}
    for graph in stage.graphs:
        if not graph.parity or graph.suffix != ".onnx":
            continue
        path = path_inside(bundle.root, graph.file)
        with tempfile.TemporaryDirectory() as scratch:
            for backend, engine in judges(path, graph.precision, 1, Path(scratch)).items():
                found = engine.run(inputs)
                for name in (n for n in graph.parity if n not in state):
                    parity = graph.parity[name]
                    off = np.abs(found[name].astype(np.float64) - data[f"outputs/{name}"])
                    key = f"{graph.precision}, {backend}", name
                    yield key, (parity.unit, parity.scale * off, parity.tolerance)


def _markdown(
    bundle: Bundle,
    gates: Sequence[Gate],
    figures: Sequence[Spent],
    refused: Sequence[str],
    times: Sequence[StageTime],
    pictures: Mapping[str, str],
) -> Iterator[str]:
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    yield f"# {bundle.manifest.name}\n\n{facts}\n"
    failed = [f"{gate.stage}: {gate.output} on {gate.backend}" for gate in gates if not gate.passed]
    yield f"{len(gates)} gates, {len(failed) or 'none'} failed."
    yield from (f"- {name}" for name in failed)
    yield from _stages(bundle)
    yield "\n## Gates: framework against engines, greatest difference\n"
    yield from _table(
        ("stage", "output", "backend", "precision", "found", "allowed", "unit"),
        (
            (g.stage, g.output, g.backend, g.precision, _g(g.value), _g(g.tolerance), g.unit)
            for g in gates
        ),
    )
    if figures:
        yield "\n## Budgets: lower precision against float32, real rows\n"
        yield from _table(
            ("stage", "quantity", "backend", "precision", "mean", "p95", "worst", "budget", "unit"),
            (
                (
                    *(f.stage, f.quantity, f.backend, f.precision),
                    *map(_g, (f.mean, f.p95, f.worst, f.budget)),
                    f.unit,
                )
                for f in figures
            ),
        )
    if refused:
        yield "\n## Kept in float32, and why\n"
        yield from (f"- {line}" for line in refused)
    yield from _times(times)
    yield "\n## Pictures\n"
    for file, title in pictures.items():
        yield f"{title}\n\n![{title}]({file})\n"


def _stages(bundle: Bundle) -> Iterator[str]:
    stages = bundle.manifest.stages
    yield "\n## Stages\n"
    yield from _table(
        ("stage", "role", "takes", "gives", "multiply-adds, 10^6", "parameters, 10^6", "licence"),
        (
            (
                *(stage.name, stage.role),
                *("; ".join(map(str, specs)) for specs in (stage.inputs, stage.outputs)),
                *(_millions(stage.macs), _millions(stage.params)),
                stage.provenance.licence,
            )
            for stage in stages
        ),
    )
    yield "\n## Graphs, the first one of a stage runs by default\n"
    yield from _table(
        ("stage", "precision", "file", "MB", "note"),
        (
            (stage.name, g.precision, g.file, _megabytes(bundle.root, g), "; ".join(g.notes))
            for stage in stages
            for g in stage.graphs
        ),
    )


def _times(times: Sequence[StageTime]) -> Iterator[str]:
    if not times:
        return
    yield "\n## Time of a run, one row, one thread\n"
    before = {t.stage: t.ms for t in times if t.label == "torch"}
    share = {t: f"{t.ms / before[t.stage]:.2f}" for t in times if t.stage in before}
    rows = ((t.stage, t.label, _g(t.ms), _g(t.p95), share.get(t, "")) for t in times)
    yield from _table(("stage", "engine", "median ms", "p95 ms", "of torch"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _g(value: float) -> str:
    return f"{value:.3g}"


def _megabytes(root: Path, graph: Graph) -> str:
    return f"{sum((root / name).stat().st_size for name in graph.files) / 1e6:.1f}"


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f}"
