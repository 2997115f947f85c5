"""A picture of a run: a frame's parts, and camera to mesh frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pchmr_engines.errors import InputError, MissingDependency

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


def write_plot(path: Path, measured: Measured, summary: dict[str, Any], title: str) -> None:
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
    bars.set_xscale("log")
    bars.set_xlim(left=1e-3)
    bars.xaxis.set_major_formatter("{x:g}")
    bars.set_xlabel("ms in frames where it ran (logarithmic): p50, line to p95")
    bars.set_title(title, fontsize=10)
    bars.grid(axis="x", alpha=0.3)
    line.plot(measured.camera_to_mesh_ms, linewidth=0.8, color="#3d6fb6")
    figures = summary["camera_to_mesh_ms"]
    for name in ("p50", "p95"):
        line.axhline(figures[name], color="black", linewidth=0.6, linestyle=":")
        line.annotate(f"{name} {figures[name]:.1f} ms", (0, figures[name]), fontsize=8, va="bottom")
    line.set_xlabel("frame")
    line.set_ylabel("camera to mesh, ms")
    line.set_ylim(bottom=0)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): name a .png, .svg or .pdf"
        ) from error
