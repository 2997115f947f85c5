"""A stage in a lower precision, within its budget on real rows.

A graph that spends too much keeps its last layers in float32, then its last eight; after that the
stage keeps to float32 altogether.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.backends.openvino import has_bf16
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import InputError, PchmrError
from pchmr_engines.manifest import Precision, Stage
from pchmr_engines.store import path_inside

from .budgets import Arrays, Spent, differences, spent
from .gates import installed_backends
from .half import depth, last_products, rounding, write_half
from .onnx_graph import save_graph
from .quantise import write_fp8, write_int8

LOWER: tuple[Precision, ...] = ("fp16", "bf16", "int8", "fp8")
LEVELS = (0, 2, 8)
"""How many of the last layers stay float32, tried in this order."""
ROWS = 16
"""Of a stage's recorded inputs, evenly spread: to calibrate on, and others to judge by."""
JUDGES: Mapping[str, tuple[str, ...]] = {
    "fp32": ("onnxruntime", "openvino"),
    "fp16": ("onnxruntime",),
    "bf16": ("openvino",),
    "int8": ("onnxruntime", "openvino"),
    "fp8": ("onnxruntime",),
}
"""Backends that compute in a precision on a CPU, or round as it does."""


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
    def engine(self) -> Engine:
        """The one that computes as the precision says; the last of those that judged it."""
        return list(self.engines.values())[-1]

    @property
    def note(self) -> str:
        """For the manifest and the report."""
        inside = f"; {self.kept} products in float32, the last {self.level} layers"
        return f"judged on real crops{inside if self.kept else ''}"


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


def judges(path: Path, precision: str, threads: int | None, scratch: Path) -> dict[str, Engine]:
    """Engines of a graph that compute as its precision says, by backend.

    scratch: a folder for a copy of the graph, where ONNX Runtime would compute fp16 in float32.
    Raises: InputError where nothing on this machine does; EngineError.
    """
    wanted = check_judged(precision)
    if precision in ("fp16", "fp8"):
        copy = scratch / f"{path.stem}.rounding.onnx"
        save_graph(rounding(ir.load(path)), copy)
        path = copy
    return {name: engine_from_onnx(path, name, threads, precision, cache=False) for name in wanted}


def check_judged(precision: str) -> list[str]:
    """The backends that `judges` a precision here. Raises: InputError where none does."""
    able = [name for name in JUDGES[precision] if name in installed_backends()]
    if not able or (precision == "bf16" and not has_bf16()):
        raise InputError(
            f"{precision} cannot be judged here: it takes {' or '.join(JUDGES[precision])}"
            f"{' on a CPU with bf16' if precision == 'bf16' else ''}; leave it out, or export on "
            "another machine"
        )
    return able


def graph_file(stage: str, precision: str) -> str:
    """What the graph of a stage is called."""
    return f"{stage}.{precision}.onnx"


def lower_stage(
    bundle: Bundle,
    stage: Stage,
    precision: Precision,
    rows: tuple[Arrays, Arrays],
    folder: Path,
    levels: Sequence[int] = LEVELS,
) -> Lowered:
    """The graph that holds its budget with the fewest layers in float32; alone in `folder` then.

    rows: to calibrate on, and to judge by. Raises: BudgetExceeded where none does, and there is no
    graph.
    """
    source = path_inside(bundle.root, stage.graph("fp32", ".onnx").file)
    expected = engine_from_onnx(source, "onnxruntime", 1, cache=False).run(rows[1])
    path = folder / graph_file(stage.name, precision)
    figures: tuple[Spent, ...] = ()
    tried = 0
    for level in levels:
        if level >= depth(ir.load(source)):
            break  # nothing would be left of the precision
        kept = write_graph(source, path, precision, rows[0], level)
        with tempfile.TemporaryDirectory() as scratch:
            engines = judges(path, precision, 1, Path(scratch))
            figures = ()
            for backend, engine in engines.items():
                off = differences(stage, engine.run(rows[1]), expected)
                figures += spent(stage.name, backend, precision, off)
        if all(figure.passed for figure in figures):
            return Lowered(stage, precision, path, level, kept, figures, engines)
        tried = level
    path.unlink(missing_ok=True)
    if not figures:
        raise BudgetExceeded(f"stage {stage.name!r} has no more layers to keep in float32", ())
    worst = max(figures, key=lambda figure: figure.share)
    inside = f", with its last {tried} layers in float32" if tried else ""
    raise BudgetExceeded(
        f"stage {stage.name!r} in {precision} on {worst.backend}: {worst.quantity} is "
        f"{worst.mean:.3g} {worst.unit} off float32 in the mean{inside}; allowed are "
        f"{worst.budget:.3g}: the stage stays float32",
        figures,
    )


def spread(rows: Arrays, count: int = ROWS) -> Arrays:
    """At most `count` rows, evenly spread."""
    return {
        name: values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]
        for name, values in rows.items()
    }
