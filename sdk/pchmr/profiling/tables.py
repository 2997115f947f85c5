"""A run's figures on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_summary(summary: dict[str, Any], title: str) -> None:
    """Headline, a row a part, and what is not in the rows."""
    headline = summary["camera_to_mesh_ms"]
    console = Console()
    console.print(f"[bold]{title}[/]", highlight=False)
    console.print(
        "[bold]camera to mesh {p50} ms p50, {p95} p95, {p99} p99, {max} at most[/]".format(
            **headline
        )
        + f"; {summary['frames']} frames, {summary['frames_with_people']} with a person, "
        f"{summary['dropped']} dropped, {summary['fps']} a second"
    )
    console.print(f"camera to mesh is {summary['includes']}. Not in it: {summary['excludes']}")
    lag = summary["smoothing_lag_ms"]["p50"]
    if lag is not None:
        console.print(f"smoothing lags {lag:.0f} ms more: {summary['smoothing_lag_includes']}")
    table = Table(box=None, pad_edge=False)
    for column in ("part", "ms p50", "p95", "p99", "max", "share", "calls", "MMACs"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    for part in summary["parts"]:
        ms, macs = part["ms"], part["megamacs"]
        table.add_row(
            f"{part['kind']} {part['name']}".strip(),
            *(_ms(ms[name]) for name in ("p50", "p95", "p99", "max")),
            "" if part["share"] is None else f"{100 * part['share']:.1f}%",
            f"{part['calls_a_frame']:.2f}",
            "" if macs is None else f"{macs:.1f}",
        )
    console.print(table)
    own, memory = summary["own_overhead_ms"], summary["memory_mb"]
    console.print(
        f"own overhead ({summary['own_overhead_includes']}): p50 {own['p50']} ms, p95 {own['p95']}"
    )
    console.print(
        f"{summary['megamacs_a_frame']} million multiply-adds a frame "
        f"({summary['megamacs_include']}); MMACs: of one call, for one person"
    )
    gpu = "no GPU" if memory["gpu"] is None else f"{memory['gpu']} MB on the GPU"
    console.print(
        f"resident memory {memory['before']} MB after warm-up, {memory['after']} MB at the end, "
        f"peak {memory['peak']} MB; {gpu}"
    )
    shown = {part["kind"] for part in summary["parts"]} | {"upload", "sync"}
    for kind, text in summary["parts_include"].items():
        if kind in shown:
            console.print(f"[dim]{kind}: {text}[/]", highlight=False)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def show_ratios(comparison: dict[str, Any]) -> None:
    """B over A, with intervals."""
    console = Console()
    console.print(
        f"[bold]B {comparison['b']} over A {comparison['a']}[/]: {comparison['frames']} frames, "
        f"each through both in turn, both loaded anew {comparison['rounds']} times",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "A ms", "B ms", "B / A", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in comparison["ratios"].items():
        for figure, ratio in figures.items():
            a, b = (comparison[f"{name}_ms"][which][figure] for which in ("a", "b"))
            between = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
            row = (f"{a:.2f}", f"{b:.2f}", f"{ratio['ratio']:.3f}", between)
            table.add_row(f"{name.replace('_', ' ')} {figure}", *row)
    console.print(table)
    for name, text in comparison["includes"].items():
        console.print(f"[dim]{name.replace('_', ' ')}: {text}[/]", highlight=False)
