"""What a long command says on stderr: a line that moves on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Tell(Protocol):
    """Called as a step begins or goes on. detail: what of it is being done; done: 0..1."""

    def __call__(self, step: str, detail: str = "", done: float | None = None) -> None: ...


@contextmanager
def progress() -> Iterator[Tell]:
    """On a terminal one line that moves and goes; elsewhere a line a step, with the seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    start, last = time.perf_counter(), ""

    def line(step: str, detail: str = "", done: float | None = None) -> None:
        nonlocal last
        if step != last:
            console.print(f"{time.perf_counter() - start:6.1f} s  {step}")
        last = step

    if not console.is_terminal:
        yield line
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)

    def move(step: str, detail: str = "", done: float | None = None) -> None:
        bar.start()  # as late as this: what comes before may move a line of its own
        total = None if done is None else 1.0
        text = f"{step}: {detail}" if detail else step
        bar.update(task, description=text, total=total, completed=done or 0.0)

    try:
        yield move
    finally:
        bar.stop()
