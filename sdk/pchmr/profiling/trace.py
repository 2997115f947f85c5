"""Spans as Chrome's trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..whole import whole_file
from .recorder import Span

OVERLAPPING = ("capture", "queue")
"""Kinds that run while other frames are worked on: asynchronous events, on lines of their own."""


def write_trace(path: Path, spans: Sequence[Span]) -> None:
    """Microseconds from the first span, one process, a line a thread.

    Raises:
        InputError: the place cannot be written to.
    """
    first = min((span.begin_ns for span in spans), default=0)
    # Identifiers of threads have 64 bits, which not every viewer takes.
    lines = {thread: n for n, thread in enumerate(dict.fromkeys(s.thread for s in spans), 1)}
    events: list[dict[str, Any]] = []
    for line in lines.values():
        name = "pipeline" if line == 1 else f"branch {line - 1}"
        named = {"ph": "M", "name": "thread_name", "args": {"name": name}}
        events.append({**named, "pid": 1, "tid": line})
    for span in spans:
        event: dict[str, Any] = {
            "name": span.kind if span.kind == span.name else f"{span.kind} {span.name}",
            "cat": span.kind,
            "ts": (span.begin_ns - first) / 1e3,
            "pid": 1,
            "tid": lines[span.thread],
            "args": {"frame": span.frame},
        }
        if span.kind in OVERLAPPING:
            end = {"ts": (span.end_ns - first) / 1e3, "ph": "e"}
            identity = {"id": span.frame}
            events += [{**event, **identity, "ph": "b"}, {**event, **identity, **end}]
        else:
            events.append({**event, "ph": "X", "dur": (span.end_ns - span.begin_ns) / 1e3})
    with whole_file(path) as part:
        part.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
