"""A picture of a run: a frame's parts, and camera to mesh frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pchmr_engines.errors import InputError, MissingDependency

from ..whole import whole_file
from .measure import Measured

COLOURS = {
    "capture": "#8c8c8c",
    "queue": "#c7c7c7",
    "preprocess": "#6aa84f",
    "engine": "#3d6fb6",
    "kernel": "#d9822b",
    "sync": "#a64d79",
    "postprocess": "#93c47d",
    "other": "#e0c060",
    "draw": "#b7a1d9",
}


def write_plot(path: Path, measured: Measured, summary: dict[str, Any]) -> None:
    """Bars of p50 with a line to p95, and every frame's camera to mesh. Suffix: png, svg, pdf.

    Raises:
        MissingDependency: without matplotlib.
        InputError: a suffix or a place that cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "plot", "drawing a plot") from error
    parts = summary["parts"][::-1]
    figure = Figure(figsize=(9, 3.2 + 0.24 * len(parts)), layout="constrained")
    FigureCanvasAgg(figure)
    bars, line = figure.subplots(2, 1, height_ratios=[0.24 * len(parts) + 0.6, 2])
    labels = [f"{part['kind']} {part['name']}".strip() for part in parts]
    p50 = [part["ms"]["p50"] for part in parts]
    p95 = [part["ms"]["p95"] for part in parts]
    bars.barh(labels, p50, color=[COLOURS[part["kind"]] for part in parts])
    bars.hlines(labels, p50, p95, color="black", linewidth=1)
    for label, low, high in zip(labels, p50, p95, strict=True):
        figures = f" {low:.3g}  ({high:.3g})"
        bars.annotate(figures, (max(low, high), label), fontsize=8, va="center")
    bars.set_xlim(0, 1.15 * max(p95))
    bars.margins(y=0.02)
    bars.set_xlabel("ms in frames where it ran: p50, line to p95 (in brackets)")
    headline = summary["camera_to_mesh_ms"]
    bars.set_title(
        f"{summary['bundle']}, {summary['topology']}: camera to mesh {headline['p50']:.1f} ms p50, "
        f"{headline['p95']:.1f} p95, {headline['p99']:.1f} p99",
        fontsize=10,
    )
    for side in ("top", "right"):
        bars.spines[side].set_visible(False)
        line.spines[side].set_visible(False)
    line.plot(measured.camera_to_mesh_ms, linewidth=0.8, color="#3d6fb6")
    end = len(measured.camera_to_mesh_ms)
    for name in ("p50", "p95"):
        line.axhline(headline[name], color="black", linewidth=0.6, linestyle=":")
        line.annotate(f" {name}", (end, headline[name]), fontsize=8, va="center")
    line.margins(x=0.01)
    line.set_xlabel("frame")
    line.set_ylabel("camera to mesh, ms")
    line.set_ylim(bottom=0)
    try:
        with whole_file(path) as part:
            figure.savefig(part, format=path.suffix[1:], dpi=130)
    except ValueError as error:
        raise InputError(f"{path} cannot be drawn ({error}): name a .png, .svg or .pdf") from error
