"""A bundle in lower precisions: every stage within its budget, and the mesh of them all within its.

result = lower_bundle(bundle, {"landmarks": ("int8", "fp16")}, folder)
result.stages          # the bundle's own, with the graphs that held; result.files: those graphs
result.refused         # what did not hold, and which stage spent the budget
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.manifest import Graph, Parity, Precision, Stage
from pchmr_engines.store import path_inside
from pchmr_engines.verify import greatest_difference

from .budgets import Arrays, Spent
from .mesh_budget import Composed, composed, worst
from .precision import LEVELS, LOWER, BudgetExceeded, Lowered, lower_stage, spread
from .rehearsal import Frames, real_frames, recorded_inputs

SLACK = 2.0
"""A manifest's tolerance, in differences measured at export: another machine rounds otherwise."""

Progress = Callable[[str], None]
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


def lower_bundle(
    bundle: Bundle,
    wanted: Mapping[str, Sequence[Precision]],
    folder: Path,
    calibrate_on: Sequence[Frames] | None = None,
    judge_by: Sequence[Frames] | None = None,
    quantiser: str = "nncf",
    progress: Progress = lambda step: None,
) -> LoweredBundle:
    """Lower stages of a bundle of real weights.

    wanted: stage -> precisions, "fp32" among them where it stands; the first runs by default.
    folder: for the graphs. calibrate_on, judge_by: clips of frames, different ones.
    Raises: BundleError, EngineError, InputError; budgets that do not hold are in `refused`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judge_by = judge_by or real_frames(first=100, count=12)
    progress("real rows")
    given = [recorded_inputs(bundle, clips) for clips in (calibrate_on or real_frames(), judge_by)]
    made: Made = {}
    refused: list[str] = []

    def lower(name: str, precision: Precision, levels: Sequence[int] = LEVELS) -> Lowered | None:
        rows = spread(given[0][name]), spread(given[1][name])
        stage = bundle.stage(name)
        try:
            return lower_stage(bundle, stage, precision, rows, folder, levels, quantiser)
        except BudgetExceeded as error:
            refused.append(str(error))
            return None

    for name, precisions in wanted.items():
        for precision in precisions:
            if precision != "fp32":
                progress(f"{name} in {precision}")
                if one := lower(name, precision):
                    made[name, precision] = one
    meshes: list[Composed] = []
    for precision in LOWER:
        if any(its == precision for _, its in made):
            progress(f"composition in {precision}")
        meshes += _hold_together(bundle, made, precision, judge_by, refused, lower)
    stages = tuple(
        _with_graphs(bundle, stage, wanted.get(stage.name, ()), made)
        for stage in bundle.manifest.stages
    )
    files = {f"stages/{one.path.name}": one.path for one in made.values()}
    figures = tuple(figure for one in made.values() for figure in one.spent)
    return LoweredBundle(stages, files, figures, tuple(meshes), tuple(refused))


def _hold_together(
    bundle: Bundle,
    made: Made,
    precision: Precision,
    clips: Sequence[Frames],
    refused: list[str],
    lower: Callable[[str, Precision, Sequence[int]], Lowered | None],
) -> tuple[Composed, ...]:
    """The mesh with all stages of a precision together.

    While it is over its budget, the stage that spends most gets more layers in float32, and is
    taken out of `made` where it has no more to give.
    """
    while lowered := {name: one for (name, its), one in made.items() if its == precision}:
        engines = {name: one.engine for name, one in lowered.items()}
        meshes = composed(bundle, engines, precision, clips)
        total = worst(meshes)
        if total.passed:
            return meshes
        alone = {
            name: worst(composed(bundle, {name: engine}, precision, clips))
            for name, engine in engines.items()
        }
        name, most = max(alone.items(), key=lambda item: item[1].share)
        levels = [level for level in LEVELS if level > lowered[name].level]
        again = lower(name, precision, levels) if levels else None
        kept = f"keeps its last {again.level} layers in" if again else "stays"
        refused.append(
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
    bundle: Bundle,
    stage: Stage,
    precisions: Sequence[Precision],
    made: Mapping[tuple[str, Precision], Lowered],
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


def add_graphs(bundle: Bundle, lowered: LoweredBundle) -> Bundle:
    """The bundle written anew, in its own place and in one step, with the graphs that held."""
    manifest = replace(bundle.manifest, stages=lowered.stages)
    files = {ref.file: path_inside(bundle.root, ref.file) for ref in bundle.manifest.files()}
    return write_bundle(bundle.root, manifest, {**files, **lowered.files})
