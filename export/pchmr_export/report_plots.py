"""The report's pictures: errors as histograms, mm on the mesh as colours, latency as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pchmr.overlay import Renderer, compose_panels

from .budgets import Floats
from .latency import StageTime
from .mesh_budget import Composed

INK, GREY = "#3c3834", "#c9c4bd"
SHADES = 24  # of the mesh's colours
VIEWS = {"camera": 0.0, "side": 90.0, "back": 180.0}
COLOURS = colormaps["magma"]
PANEL = 420  # pixels
Errors = Mapping[tuple[str, str], tuple[str, Floats, float]]
"""(graph and backend, output) -> unit, differences, and what `pchmr verify` allows."""


def plot_errors(path: Path, stage: str, errors: Errors) -> None:
    """Histograms: a row a graph and backend, a column an output, which has one scale."""
    rows, columns = (list(dict.fromkeys(key[i] for key in errors)) for i in (0, 1))
    figure = Figure(figsize=(4.2 * len(columns), 0.4 + 2.2 * len(rows)), layout="constrained")
    figure.suptitle(f"{stage}: difference from the framework", color=INK)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for column, output in enumerate(columns):
        found = [errors[row, output] for row in rows]
        floor = 1e-4 * min(allowed for _, _, allowed in found)
        largest = max(max(np.abs(values).max(initial=0), allowed) for _, values, allowed in found)
        edges = np.geomspace(floor, 2 * largest, 60)
        for axes, title, (unit, values, allowed) in zip(grid[:, column], rows, found, strict=True):
            seen = np.clip(np.abs(values).ravel(), floor, None)
            axes.hist(seen, edges, weights=np.full(seen.shape, 100 / seen.size), color="#7a5c8e")
            axes.axvline(allowed, color="#c1553b", linewidth=1.2)
            axes.set_xscale("log")
            axes.set_title(f"{output}, {title}", fontsize=9, color=INK)
            axes.set_xlabel(f"{unit or 'number'}; verify allows {allowed:.3g}", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("% of the numbers", fontsize=8)
    FigureCanvasAgg(figure).print_png(path)


def plot_latency(path: Path, times: Sequence[StageTime]) -> None:
    """A group of bars a stage, on a logarithmic scale: before the export grey, engines behind."""
    stages = list(dict.fromkeys(time.stage for time in times))
    labels = list(dict.fromkeys(time.label for time in times))
    tints = [GREY, *(COLOURS(x) for x in np.linspace(0.25, 0.85, max(len(labels) - 1, 1)))]
    tint = dict(zip(sorted(labels, key=lambda label: label != "torch"), tints, strict=False))
    figure = Figure(figsize=(2.2 + 1.7 * len(stages), 3.4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(labels)
    found = {(time.stage, time.label): time.ms for time in times}
    for column, label in enumerate(labels):
        here = [(x, found[name, label]) for x, name in enumerate(stages) if (name, label) in found]
        places = [x + (column - (len(labels) - 1) / 2) * width for x, _ in here]
        bars = axes.bar(places, [ms for _, ms in here], width, label=label, color=tint[label])
        axes.bar_label(bars, fmt="%.3g", fontsize=6, rotation=90, padding=2)
    axes.set_yscale("log")
    axes.margins(y=0.25)
    axes.set_xticks(range(len(stages)), stages, fontsize=8)
    axes.set_ylabel("ms a run, one row, median")
    axes.legend(fontsize=7, frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(path)


def plot_mesh(path: Path, faces: NDArray[np.int32], mesh: Composed) -> None:
    """The mesh from three sides, coloured by mm, with its scale on the right."""
    largest = float(max(np.quantile(mesh.mm, 0.99), 1e-6))
    parts, tints = coloured_parts(mesh.vertices, faces, mesh.mm / largest)
    renderer = Renderer(np.arange(parts.shape[1]).reshape(-1, 3), (PANEL, PANEL))
    middle = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
    height = 1.15 * float(np.ptp(mesh.vertices[:, 1]))
    panels = [
        renderer.render_view(parts, yaw_deg=yaw, center=middle, colors=tints, height_m=height)
        for yaw in VIEWS.values()
    ]
    spent = mesh.spent
    title = f"{spent.stage.split(': ')[-1]} in {spent.precision}: mean {spent.mean:.2g} mm a vertex"
    picture = compose_panels([*panels, _scale(largest)], list(VIEWS))
    band = np.full((34, picture.shape[1], 3), 240, np.uint8)
    place, font = (8, 23), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(band, title, place, font, 0.55, (52, 56, 60), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.vstack([band, picture]))


def coloured_parts(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], values: Floats
) -> tuple[NDArray[np.float32], list[tuple[int, int, int]]]:
    """One mesh a shade, (SHADES, 3 F + 12, 3), and its colour, BGR: the renderer has one a mesh.

    values: (V,), 0..1. What a shade does not colour is NaN, which the renderer leaves out. From the
    faces' volume the renderer tells the outside, which a patch of skin does not have: each has a
    large tetrahedron, wound as the body is, far above the picture.
    """
    corners = vertices[faces].astype(np.float64)
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    shade = np.clip(values[faces].mean(1) * SHADES, 0, SHADES - 1).astype(int)
    own = (shade == np.arange(SHADES)[:, None])[..., None, None]
    far = np.broadcast_to(FAR if volume > 0 else FAR[:, ::-1], (SHADES, 4, 3, 3))
    parts = np.concatenate([np.where(own, corners, np.nan), far], 1)
    tints = [_colour((i + 0.5) / SHADES) for i in range(SHADES)]
    return parts.reshape(SHADES, -1, 3).astype(np.float32), tints


_CORNERS = 100.0 * np.vstack([np.zeros(3), np.eye(3)]) - (0.0, 1100.0, 0.0)
FAR = _CORNERS[[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]]
"""(4, 3, 3): a tetrahedron 1 km above, its volume positive."""


def _colour(value: float) -> tuple[int, int, int]:
    red, green, blue, _ = COLOURS(0.12 + 0.85 * value)
    return round(255 * blue), round(255 * green), round(255 * red)


def _scale(largest: float) -> NDArray[np.uint8]:
    """The colours from 0, below, to `largest` mm."""
    image = np.full((PANEL, 120, 3), 240, np.uint8)
    top, bottom = 60, PANEL - 40
    for row in range(top, bottom):
        image[row, 20:50] = _colour((bottom - row) / (bottom - top))
    for value, row in ((largest, top), (largest / 2, (top + bottom) // 2), (0.0, bottom)):
        place, font = (56, row + 5), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, f"{value:.2g} mm", place, font, 0.45, (52, 56, 60), 1, cv2.LINE_AA)
    return image
