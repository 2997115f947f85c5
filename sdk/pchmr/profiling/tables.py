"""A run's figures on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show_summary(summary: dict[str, Any]) -> None:
    """Headline, a row a part, and what each kind of part includes."""
    console = Console(highlight=False)
    console.print(
        f"[bold]{summary['bundle']}, {summary['topology']}[/]: {summary['frames']} frames, "
        f"{summary['frames_with_people']} with a person, {summary['dropped']} dropped, "
        f"{summary['fps']:.1f} a second"
    )
    columns = ("p50", "p95", "p99", "max")
    table = Table(box=None, pad_edge=False)
    table.add_column("ms", no_wrap=True)
    for column in (*columns, "share", "calls", "MMACs"):
        table.add_column(column, justify="right", no_wrap=True)
    headline = summary["camera_to_mesh_ms"]
    table.add_row("camera to mesh", *(_ms(headline[name]) for name in columns), style="bold")
    for part in summary["parts"]:
        ms, macs = part["ms"], part["megamacs"]
        table.add_row(
            f"  {part['kind']} {part['name']}".rstrip(),
            *(_ms(ms[name]) for name in columns),
            "" if part["share"] is None else f"{100 * part['share']:.1f}%",
            f"{part['calls_a_frame']:.2f}",
            "" if macs is None else f"{macs:.1f}",
        )
    apart = {"own overhead": "own_overhead_ms", "smoothing lag": "smoothing_lag_ms"}
    for label, name in apart.items():
        if summary[name]["p50"] is not None:
            table.add_row(label, *(_ms(summary[name][column]) for column in columns))
    console.print(table)
    memory = summary["memory_mb"]
    gpu = "no GPU" if memory["gpu"] is None else f"{memory['gpu']} MB on the GPU"
    console.print(
        f"memory: {memory['before']} MB after warm-up, {memory['after']} at the end, "
        f"peak {memory['peak']}; {gpu}\n"
        f"multiply-adds: {summary['megamacs_a_frame']} million a frame, one person\n"
    )
    notes = {
        "camera to mesh": f"{summary['includes']}; not in it: {summary['excludes']}",
        **{
            kind: text
            for kind, text in summary["parts_include"].items()
            if any(part["kind"] == kind for part in summary["parts"])
        },
        "own overhead": summary["own_overhead_includes"],
        "smoothing lag": summary["smoothing_lag_includes"],
        "share, calls": "of the pipeline's time; a frame. MMACs: of one call",
        "left out": summary["parts_left_out"],
    }
    _show_notes(console, notes)


def _show_notes(console: Console, notes: Mapping[str, str]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, style="dim")
    for name, text in notes.items():
        table.add_row(name, text)
    console.print(table)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def show_ratios(comparison: dict[str, Any]) -> None:
    """B over A, with intervals."""
    console, rounds = Console(highlight=False), comparison["rounds"]
    anew = f", loaded anew {rounds} times" if rounds > 1 else ""
    console.print(
        f"[bold]B: {comparison['b']}[/] over [bold]A: {comparison['a']}[/]\n"
        f"{comparison['frames']} frames, each through both in turn{anew}"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "A ms", "B ms", "B / A", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in comparison["ratios"].items():
        for figure, ratio in figures.items():
            both = (comparison[f"{name}_ms"][which].get(figure) for which in ("a", "b"))
            ms = ("" if each is None else f"{each:.2f}" for each in both)
            between = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
            row = (*ms, f"{ratio['ratio']:.3f}", between)
            table.add_row(f"{name.replace('_', ' ')} {figure}", *row)
    console.print(table)
    console.print()
    includes = {name.replace("_", " "): text for name, text in comparison["includes"].items()}
    _show_notes(console, includes)
