"""A bundle in lower precisions: every stage within its budget, and the mesh of them all within its.

result = lower_bundle(bundle, {"landmarks": ("fp32", "int8"), "lifter": ("bf16", "fp32")}, work)
result.stages          # the bundle's own, with the graphs that held; result.files: those graphs
result.refused         # what did not hold, and which stage spent the budget

Every graph and every mesh is a step of the work folder, and is made once.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pchmr_engines.bundle import Bundle
from pchmr_engines.manifest import Graph, Parity, Precision, Stage
from pchmr_engines.store import npz_bytes, read_npz, sha256_of
from pchmr_engines.verify import greatest_difference

from .budgets import Arrays, Spent
from .mesh_budget import Composed, composed, worst
from .precision import (
    LEVELS,
    LOWER,
    BudgetExceeded,
    Lowered,
    check_judged,
    graph_file,
    judges,
    lower_stage,
    spread,
)
from .quantise import check_quantiser
from .rehearsal import Frames, clips_to_calibrate_on, clips_to_judge_by, recorded_inputs
from .work_folder import WorkFolder

SLACK = 2.0
"""A manifest's tolerance, in differences measured at export: another machine rounds otherwise."""
FOUND = "found.json"

Progress = Callable[[str], None]
"""Called with each step as it begins."""
Wanted = Mapping[str, Sequence[Precision]]
"""Stage -> its precisions, fp32 among them; the first one runs by default."""
Made = dict[tuple[str, Precision], Lowered]


@dataclass(frozen=True)
class LoweredBundle:
    """stages: of the bundle, with the graphs that held, in the order asked for. files: those.

    spent: every figure of the graphs that held. composed: of the meshes. refused: what did not
    hold, or had to keep layers for the sake of the mesh, a line each.
    """

    stages: tuple[Stage, ...]
    files: Mapping[str, Path]
    spent: tuple[Spent, ...]
    composed: tuple[Composed, ...]
    refused: tuple[str, ...]

    @property
    def figures(self) -> tuple[Spent, ...]:
        """Of the graphs, then of the meshes."""
        return *self.spent, *(mesh.spent for mesh in self.composed)


def lower_precisions(wanted: Wanted) -> tuple[Precision, ...]:
    """The precisions other than fp32.

    Raises: InputError for one that cannot be judged here; MissingDependency.
    """
    named = {precision for precisions in wanted.values() for precision in precisions}
    found = tuple(precision for precision in LOWER if precision in named)
    for precision in found:
        check_judged(precision)
    if "int8" in found:
        check_quantiser()
    return found


def lower_bundle(
    bundle: Bundle, wanted: Wanted, work: WorkFolder, progress: Progress = lambda step: None
) -> LoweredBundle:
    """Lower stages of a bundle of real weights.

    Raises: BundleError, EngineError, InputError; budgets that do not hold are in `refused`.
    """
    precisions = lower_precisions(wanted)
    made: Made = {}
    meshes: list[Composed] = []
    with tempfile.TemporaryDirectory() as scratch:
        steps = _Steps(bundle, work, Path(scratch))
        for precision in precisions:
            for name in (name for name, its in wanted.items() if precision in its):
                progress(f"{name} in {precision}")
                if one := steps.lower(name, precision):
                    made[name, precision] = one
            progress(f"composition in {precision}")
            meshes += _hold_together(steps, made, precision)
        stages = tuple(
            _with_graphs(bundle, stage, wanted.get(stage.name, ()), made)
            for stage in bundle.manifest.stages
        )
    files = {f"stages/{one.path.name}": one.path for one in made.values()}
    figures = tuple(figure for one in made.values() for figure in one.spent)
    return LoweredBundle(stages, files, figures, tuple(meshes), tuple(steps.refused))


class _Steps:
    """Graphs and meshes of a bundle, from the work folder where they were made before.

    refused: what did not hold, a line each, in the order in which it was tried.
    """

    def __init__(self, bundle: Bundle, work: WorkFolder, scratch: Path) -> None:
        self.bundle, self.work, self.scratch = bundle, work, scratch
        self.refused: list[str] = []

    @cached_property
    def judge_by(self) -> Sequence[Frames]:
        return clips_to_judge_by()

    @cached_property
    def rows(self) -> tuple[Mapping[str, Arrays], Mapping[str, Arrays]]:
        """Stage -> its inputs: to calibrate on, and to judge by."""
        return (
            recorded_inputs(self.bundle, clips_to_calibrate_on()),
            recorded_inputs(self.bundle, self.judge_by),
        )

    def lower(
        self, name: str, precision: Precision, levels: Sequence[int] = LEVELS
    ) -> Lowered | None:
        """A stage's graph that holds its budget, or None."""
        stage = self.bundle.stage(name)

        def make(folder: Path) -> None:
            pair = spread(self.rows[0][name]), spread(self.rows[1][name])
            try:
                one = lower_stage(self.bundle, stage, precision, pair, folder, levels)
                found = {"level": one.level, "kept": one.kept, "spent": _plain(one.spent)}
            except BudgetExceeded as error:
                found = {"refused": str(error)}
            (folder / FOUND).write_text(json.dumps(found), encoding="utf-8")

        facts = {"lowered": name, "precision": precision, "levels": list(levels)}
        folder = self.work.step({**facts, "bundle": self.bundle.manifest.sha256}, make)
        found = json.loads((folder / FOUND).read_text(encoding="utf-8"))
        if "refused" in found:
            self.refused.append(found["refused"])
            return None
        path = folder / graph_file(name, precision)
        figures = tuple(Spent(**figure) for figure in found["spent"])
        engines = judges(path, precision, 1, self.scratch)
        return Lowered(stage, precision, path, found["level"], found["kept"], figures, engines)

    def meshes(self, precision: Precision, lowered: Mapping[str, Lowered]) -> tuple[Composed, ...]:
        """What these stages together make of the mesh."""

        def make(folder: Path) -> None:
            engines = {name: one.engine for name, one in lowered.items()}
            made = composed(self.bundle, engines, precision, self.judge_by)
            arrays: dict[str, NDArray[Any]] = {}
            for i, mesh in enumerate(made):
                arrays |= {f"vertices_{i}": mesh.vertices, f"mm_{i}": mesh.mm}
            (folder / "meshes.npz").write_bytes(npz_bytes(arrays))
            text = json.dumps(_plain([mesh.spent for mesh in made]))
            (folder / FOUND).write_text(text, encoding="utf-8")

        graphs = {name: sha256_of(one.path) for name, one in lowered.items()}
        facts = {"mesh": precision, "graphs": graphs, "bundle": self.bundle.manifest.sha256}
        folder = self.work.step(facts, make)
        arrays = read_npz(folder / "meshes.npz")
        found = json.loads((folder / FOUND).read_text(encoding="utf-8"))
        return tuple(
            Composed(Spent(**spent), arrays[f"vertices_{i}"], arrays[f"mm_{i}"])
            for i, spent in enumerate(found)
        )


def _plain(figures: Sequence[Spent]) -> list[dict[str, str | float]]:
    return [asdict(figure) for figure in figures]


def _hold_together(steps: _Steps, made: Made, precision: Precision) -> tuple[Composed, ...]:
    """The mesh with all stages of a precision together.

    While it is over its budget, the stage that spends most gets more layers in float32, and is
    taken out of `made` where it has no more to give.
    """
    while lowered := {name: one for (name, its), one in made.items() if its == precision}:
        meshes = steps.meshes(precision, lowered)
        total = worst(meshes)
        if total.passed:
            return meshes
        alone = {name: worst(steps.meshes(precision, {name: one})) for name, one in lowered.items()}
        name, most = max(alone.items(), key=lambda item: item[1].share)
        levels = [level for level in LEVELS if level > lowered[name].level]
        again = steps.lower(name, precision, levels) if levels else None
        kept = f"keeps its last {again.level} layers in" if again else "stays"
        steps.refused.append(
            f"{total.stage} in {precision}: the mesh is {total.mean:.3g} mm a vertex off float32 "
            f"in the mean; allowed are {total.budget:.3g}. Stage {name!r} spends most of it, "
            f"{most.mean:.3g} mm alone, and {kept} float32"
        )
        if again:
            made[name, precision] = again
        else:
            del made[name, precision]
    return ()


def _with_graphs(
    bundle: Bundle, stage: Stage, precisions: Sequence[Precision], made: Made
) -> Stage:
    """The stage with its new graphs, in the order asked for, fp32 behind them unless named."""
    own = {graph.precision: graph for graph in stage.graphs}
    data = bundle.parity_data(stage.name)
    for precision in precisions:
        if (stage.name, precision) in made:
            own[precision] = _graph(made[stage.name, precision], data)
    order = [*precisions, *own]
    graphs = tuple(own[precision] for precision in dict.fromkeys(order) if precision in own)
    return replace(stage, graphs=graphs)


def _graph(lowered: Lowered, data: Arrays) -> Graph:
    """What a manifest says of it: the parity rows, held to twice what they are off here."""
    inputs = {spec.name: data[f"inputs/{spec.name}"] for spec in lowered.stage.inputs}
    found = [engine.run(inputs) for engine in lowered.engines.values()]
    parity = {}
    for name, wanted in lowered.stage.graph("fp32", ".onnx").parity.items():
        off = (greatest_difference(outputs[name], data[f"outputs/{name}"]) for outputs in found)
        value = wanted.scale * max(off)
        parity[name] = Parity(wanted.unit, wanted.scale, value, wanted.tolerance + SLACK * value)
    return Graph(
        lowered.precision,
        f"stages/{lowered.path.name}",
        parity=parity,
        notes=(lowered.note,),
    )
