"""Graphs of lower precision, each within its budget on real rows, and the composition within its.

result = lower_bundle(bundle, {"landmarks": ("int8", "fp16")}, folder)
result.stages          # the bundle's own, with the graphs that held; result.files: those graphs
result.refused         # what did not hold, and which stage spent the budget

A graph that spends too much keeps its last layers in float32, then its last eight; after that the
stage keeps to float32 altogether.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import InputError, PchmrError
from pchmr_engines.manifest import Graph, Parity, Precision, Stage
from pchmr_engines.store import path_inside
from pchmr_engines.verify import greatest_difference

from .budgets import Arrays, Floats, Spent, differences, spent, summed_up
from .gates import installed_backends
from .half import depth, last_products, rounding, write_half
from .onnx_graph import save_graph
from .quantise import write_fp8, write_int8
from .rehearsal import Course, Frames, covering, real_frames, recorded_inputs, rehearsed, run_people

LOWER: tuple[Precision, ...] = ("fp16", "bf16", "int8", "fp8")
LEVELS = (0, 2, 8)
"""How many of the last layers stay float32, tried in this order."""
ROWS = 16
"""Of a stage's recorded inputs, evenly spread: to calibrate on, and others to judge by."""
SLACK = 2.0
"""A manifest's tolerance, in differences measured at export: another machine rounds otherwise."""
JUDGES: Mapping[str, tuple[str, ...]] = {
    "fp16": ("onnxruntime",),
    "bf16": ("openvino",),
    "int8": ("onnxruntime", "openvino"),
    "fp8": ("onnxruntime",),
}
"""Backends that compute in a precision on a CPU, or round as it does."""

Progress = Callable[[str], None]


class BudgetExceeded(PchmrError):
    """A lower precision costs more than allowed. spent: all that was measured."""

    def __init__(self, message: str, spent: tuple[Spent, ...]) -> None:
        super().__init__(message)
        self.spent = spent


@dataclass(frozen=True)
class Lowered:
    """A stage in one precision. level: last layers that stayed float32. engines: by backend."""

    stage: Stage
    precision: Precision
    path: Path
    level: int
    kept: int
    spent: tuple[Spent, ...]
    engines: Mapping[str, Engine]

    @property
    def worst(self) -> Spent:
        return max(self.spent, key=share)

    @property
    def note(self) -> str:
        """For the manifest and the report."""
        inside = f"; {self.kept} products in float32, the last {self.level} layers"
        return f"{self.precision} on real crops{inside if self.kept else ''}"


Made = dict[tuple[str, Precision], Lowered]


@dataclass(frozen=True)
class LoweredBundle:
    """stages: of the bundle, with the graphs that held, in the order asked for. files: those.

    spent: every figure of what was kept, compositions included. refused: what was not, or had to
    keep layers for the sake of the mesh, a line each.
    """

    stages: tuple[Stage, ...]
    files: Mapping[str, Path]
    spent: tuple[Spent, ...]
    refused: tuple[str, ...]


def write_graph(
    source: Path,
    target: Path,
    precision: str,
    rows: Arrays,
    level: int = 0,
    quantiser: str = "nncf",
) -> int:
    """A stage's fp32 graph in a lower precision; how many products stayed float32.

    rows: real inputs, (N, ...) each; fp16 and bf16 need none. level: last layers to keep.
    Raises: InputError for a precision that is not known; MissingDependency.
    """
    if precision not in LOWER:
        raise InputError(f"precision {precision!r}: expected one of {', '.join(LOWER)}")
    keep = last_products(ir.load(source), level)
    if precision in ("fp16", "bf16"):
        write_half(source, target, precision, keep)
    elif precision == "int8":
        write_int8(source, target, rows, keep, quantiser)
    else:
        write_fp8(source, target, rows, keep)
    return len(keep)


def judges(path: Path, precision: str, threads: int | None = None) -> dict[str, Engine]:
    """Engines of a lowered graph that round as its precision says.

    fp16, fp8: a copy of the graph beside it, which ONNX Runtime cannot compute in float32.
    Raises: InputError where nothing on this machine does; EngineError.
    """
    wanted = [name for name in JUDGES[precision] if name in installed_backends()]
    if not wanted:
        raise InputError(
            f"{precision} cannot be judged here: it takes {' or '.join(JUDGES[precision])}"
        )
    if precision in ("fp16", "fp8"):
        path = _rounding_copy(path)
    return {name: engine_from_onnx(path, name, threads, precision, cache=False) for name in wanted}


def _rounding_copy(path: Path) -> Path:
    target = path.with_suffix(".rounding.onnx")
    save_graph(rounding(ir.load(path)), target)
    return target


def lower_stage(
    bundle: Bundle,
    stage: Stage,
    precision: Precision,
    rows: tuple[Arrays, Arrays],
    folder: Path,
    levels: Sequence[int] = LEVELS,
    quantiser: str = "nncf",
) -> Lowered:
    """The graph that holds its budget with the fewest layers in float32.

    rows: to calibrate on, and to judge by. Raises: BudgetExceeded where none does.
    """
    source = path_inside(bundle.root, stage.graph("fp32", ".onnx").file)
    expected = engine_from_onnx(source, "onnxruntime", 1, cache=False).run(rows[1])
    path = folder / f"{stage.name}.{precision}.onnx"
    figures: tuple[Spent, ...] = ()
    tried = 0
    for level in levels:
        if level >= depth(ir.load(source)):
            break  # nothing would be left of the precision
        kept = write_graph(source, path, precision, rows[0], level, quantiser)
        engines = judges(path, precision, 1)
        figures = ()
        for backend, engine in engines.items():
            off = differences(stage, engine.run(rows[1]), expected)
            figures += spent(stage.name, backend, precision, off)
        if all(figure.passed for figure in figures):
            return Lowered(stage, precision, path, level, kept, figures, engines)
        tried = level
    worst = max(figures, key=share)
    inside = f", with its last {tried} layers in float32" if tried else ""
    raise BudgetExceeded(
        f"stage {stage.name!r} in {precision} on {worst.backend}: {worst.quantity} is "
        f"{worst.mean:.3g} {worst.unit} off float32 in the mean{inside}; allowed are "
        f"{worst.budget:.3g}: the stage stays float32",
        figures,
    )


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
    figures: list[Spent] = []
    for precision in LOWER:
        progress(f"composition in {precision}")
        figures += _hold_together(bundle, made, precision, judge_by, refused, lower)
    stages = tuple(
        _with_graphs(bundle, stage, wanted.get(stage.name, ()), made)
        for stage in bundle.manifest.stages
    )
    files = {f"stages/{one.path.name}": one.path for one in made.values()}
    kept = [figure for one in made.values() for figure in one.spent]
    return LoweredBundle(stages, files, (*kept, *figures), tuple(refused))


def spread(rows: Arrays, count: int = ROWS) -> Arrays:
    """At most `count` rows, evenly spread."""
    return {
        name: values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]
        for name, values in rows.items()
    }


def _hold_together(
    bundle: Bundle,
    made: Made,
    precision: Precision,
    clips: Sequence[Frames],
    refused: list[str],
    lower: Callable[[str, Precision, Sequence[int]], Lowered | None],
) -> tuple[Spent, ...]:
    """The figures of the mesh with all stages of a precision together.

    While it is over its budget, the stage that spends most gets more layers in float32, and is
    taken out of `made` where it has no more to give.
    """
    while lowered := {name: one for (name, its), one in made.items() if its == precision}:
        figures = composed(bundle, lowered, precision, clips)
        if all(figure.passed for figure in figures):
            return figures
        alone = {
            name: max(composed(bundle, {name: one}, precision, clips), key=share)
            for name, one in lowered.items()
        }
        name, worst = max(alone.items(), key=lambda item: item[1].share)
        total = max(figures, key=share)
        levels = [level for level in LEVELS if level > lowered[name].level]
        again = lower(name, precision, levels) if levels else None
        kept = f"keeps its last {again.level} layers in" if again else "stays"
        refused.append(
            f"{total.stage} in {precision}: the mesh is {total.mean:.3g} mm a vertex off float32 "
            f"in the mean; allowed are {total.budget:.3g}. Stage {name!r} spends most of it, "
            f"{worst.mean:.3g} mm alone, and {kept} float32"
        )
        if again:
            made[name, precision] = again
        else:
            del made[name, precision]
    return ()


def share(figure: Spent) -> float:
    """Of the budget."""
    return figure.share


def composed(
    bundle: Bundle, lowered: Mapping[str, Lowered], precision: Precision, clips: Sequence[Frames]
) -> tuple[Spent, ...]:
    """Mean mm per vertex about the root, for each topology, with the stages lowered together.

    Both look at the same crops: what a detector costs shows in its own unit alone.
    """
    made = []
    engines = {name: list(one.engines.values())[-1] for name, one in lowered.items()}
    backend = "+".join(sorted({engine.backend for engine in engines.values()}))
    for topology in covering(bundle):
        course: Course = []
        expected = run_people(rehearsed(bundle), clips, topology, course)
        found = run_people(rehearsed(bundle, engines=engines), clips, topology, course)
        off = mesh_differences(found, expected)
        name = f"composition: {topology}"
        made.append(summed_up(name, "mesh", backend, precision, "mm", off))
    return tuple(made)


def mesh_differences(found: Sequence[Sequence], expected: Sequence[Sequence]) -> Floats:
    """mm of every vertex about the root, of each frame's first person; NaN where one is lost."""
    rows = []
    for got, right in zip(found, expected, strict=True):
        if not right:
            continue
        wanted = right[0].vertices - right[0].joints[0]
        same = got[0].vertices - got[0].joints[0] if got else np.full_like(wanted, np.nan)
        rows.append(1000 * np.linalg.norm(same.astype(np.float64) - wanted, axis=-1))
    if not rows:
        raise InputError("the bundle finds nobody in the frames it is judged by: give others")
    return np.stack(rows)


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
