"""What lower precision costs and saves: every stage of open and open-plus, on this CPU.

    python benchmarks/precision.py [-o out/precision.json] [--bundle open-plus]

A stage and precision: the graph as it is, then with its last 2 and 8 layers in float32 while it is
over its budget; errors against float32 on frames of the demo video and of Pose2Sim's person that it
was not calibrated on; the mesh with this stage alone lowered, mm a vertex about the root, on the
crops of the float32 run; and the time of a run against float32 on the same backend, the two taking
turns, one thread. `followed` is the same in float32, OpenVINO against ONNX Runtime, where each
follows people by its own landmarks: what tracking makes of a difference of 1e-3 px.

fp16 and fp8 are judged by rounding as they do; no CPU here computes in them, so they have no times.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pchmr.latency import machine
from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_export.mesh_budget import composed, mesh_differences
from pchmr_export.precision import LEVELS, LOWER, BudgetExceeded, Lowered, lower_stage, spread
from pchmr_export.rehearsal import (
    clips_to_calibrate_on,
    clips_to_judge_by,
    recorded_inputs,
    rehearsed,
    run_people,
)

TIMED = {"bf16": ("openvino",), "int8": ("openvino", "onnxruntime")}
SECONDS = 3.0  # of timing a pair


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", action="append", choices=("open", "open-plus"))
    parser.add_argument("--precision", action="append", choices=LOWER)
    parser.add_argument("--frames", type=int, default=12, help="of each of the two clips")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    facts = {"machine": machine(), "load": round(os.getloadavg()[0], 1)}
    report: dict[str, Any] = {**facts, "frames": options.frames, "bundles": {}}
    for name in options.bundle or ("open", "open-plus"):
        bundle = Bundle.load(name)
        judge_by = clips_to_judge_by(options.frames)
        rows = measure(bundle, options.precision or LOWER, judge_by)
        report["bundles"][name] = {"followed_mm": followed(bundle, judge_by), "rows": rows}
        show(name, rows)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1) + "\n")


def followed(bundle: Bundle, clips: Any) -> float:
    runs = [
        run_people(rehearsed(bundle, backend=backend), clips, "parallel")
        for backend in ("openvino", "onnxruntime")
    ]
    return round(float(mesh_differences(*runs).mean()), 3)


def measure(bundle: Bundle, precisions: Sequence[str], judge_by: Any) -> list[dict[str, Any]]:
    given = [recorded_inputs(bundle, clips) for clips in (clips_to_calibrate_on(), judge_by)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        held: dict[str, dict[str, Lowered]] = {precision: {} for precision in precisions}
        for precision in precisions:
            for name in bundle.stages:
                pair = spread(given[0][name]), spread(given[1][name])
                found, one = attempts(bundle, name, precision, pair, Path(folder))
                rows += found
                if one is None:
                    continue
                held[precision][name] = one
                alone = composed(bundle, {name: one.engine}, precision, judge_by)
                rows[-1]["mesh_mm"] = {m.spent.stage: round(m.spent.mean, 3) for m in alone}
                rows[-1]["times"] = times(bundle, one, pair[1])
                print(json.dumps(rows[-1]), flush=True)
            engines = {name: one.engine for name, one in held[precision].items()}
            together = composed(bundle, engines, precision, judge_by) if engines else ()
            rows += [asdict(mesh.spent) | {"passed": mesh.spent.passed} for mesh in together]
    return rows


def attempts(
    bundle: Bundle, name: str, precision: str, rows: Any, folder: Path
) -> tuple[list[dict[str, Any]], Lowered | None]:
    """A row for every number of layers kept that was tried; the graph that held, if any."""
    made: list[dict[str, Any]] = []
    for level in LEVELS:
        row: dict[str, Any] = {"stage": name, "precision": precision, "float32_layers": level}
        try:
            one = lower_stage(bundle, bundle.stage(name), precision, rows, folder, (level,))  # type: ignore[arg-type]
        except BudgetExceeded as error:
            if not error.spent:
                break  # no layer would be left
            made.append(row | {"held": False, "errors": errors(error.spent)})
            continue
        kept = {"held": True, "float32_products": one.kept, "errors": errors(one.spent)}
        return [*made, row | kept], one
    return made, None


def errors(spent: Any) -> dict[str, dict[str, str]]:
    """Backend -> quantity -> mean, 95th percentile and budget."""
    table: dict[str, dict[str, str]] = {}
    for figure in spent:
        text = f"{figure.mean:.3g} ({figure.p95:.3g}) of {figure.budget:g} {figure.unit}"
        table.setdefault(figure.backend, {})[figure.quantity] = text
    return table


def times(bundle: Bundle, one: Lowered, rows: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Backend -> median ms in float32 and lowered, and their ratio, at batch 1."""
    source = bundle.root / one.stage.graph("fp32", ".onnx").file
    feed = {name: values[:1] for name, values in rows.items()}
    found = {}
    for backend in TIMED.get(one.precision, ()):
        pair = (
            engine_from_onnx(source, backend, 1),
            engine_from_onnx(one.path, backend, 1, one.precision),
        )
        plain, lower = (np.array(ms) for ms in interleaved(pair, feed))
        found[backend] = {
            "fp32_ms": round(float(np.median(plain)), 3),
            "ms": round(float(np.median(lower)), 3),
            "ratio": round(float(np.median(lower / plain)), 3),
        }
    return found


def interleaved(engines: Sequence[Engine], feed: Mapping[str, Any]) -> list[list[float]]:
    contexts = []
    for engine in engines:
        context = engine.context(1)
        context.freeze()
        for name, values in feed.items():
            np.copyto(context.buffers[name], values)
        contexts.append(context)
    samples: list[list[float]] = [[] for _ in engines]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(samples[0]) < 7:
        for context, kept in zip(contexts, samples, strict=True):
            begin = time.perf_counter()
            context.enqueue()
            kept.append(1e3 * (time.perf_counter() - begin))
    return samples


def show(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("stage", "precision", "float32 layers", "held", "errors", "mesh mm", "time ratio")
    for row in rows:
        if "errors" not in row:
            figures = f"{row['mean']:.3g} ({row['p95']:.3g}) of {row['budget']:g} mm"
            table.add_row(row["stage"], row["precision"], "", str(row["passed"]), "", figures, "")
            continue
        worst = [f"{backend}: {found}" for backend, found in row["errors"].items()]
        mesh = ", ".join(f"{value:g}" for value in row.get("mesh_mm", {}).values())
        ratio = ", ".join(f"{b} {t['ratio']:g}" for b, t in row.get("times", {}).items())
        level, held = str(row["float32_layers"]), str(row["held"])
        table.add_row(row["stage"], row["precision"], level, held, "\n".join(worst), mesh, ratio)
    Console(width=160).print(f"\n{name}", table)


if __name__ == "__main__":
    main()
