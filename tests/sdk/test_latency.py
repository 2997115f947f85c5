"""Figures of a run from hand-made frames."""

import numpy as np
import pytest
from people_made_up import make_person

from pchmr.latency import LatencyLog, machine, percentiles


def test_percentiles() -> None:
    assert percentiles([float(value) for value in range(101)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
    }
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_a_run_is_summed_up() -> None:
    log = LatencyLog()
    log.add([make_person(0), make_person(1)])  # one frame, two people: 20 ms, counted once
    log.add([])
    log.add([make_person(10)])
    log.add_apart("draw", 5.0)
    summary = log.summary()
    assert (summary["frames"], summary["frames_with_people"], summary["people"]) == (3, 2, 3)
    assert summary["camera_to_mesh_ms"]["p50"] == 25.0
    assert summary["stages_ms"].keys() == {"find", "body", "draw"}
    assert summary["stages_ms"]["draw"]["p99"] == 5.0
    assert summary["stages_ms"]["find"]["p50"] == 15.0
    assert summary["fps"] > 0
    assert "detection" in summary["includes"]
    assert "drawing" in summary["excludes"]


def test_a_run_without_people() -> None:
    log = LatencyLog()
    log.add([])
    assert log.summary()["camera_to_mesh_ms"] == {"p50": None, "p95": None, "p99": None}


def test_frames_a_second_are_frames_over_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LatencyLog(_begin=100.0)
    monkeypatch.setattr("pchmr.latency.perf_counter", lambda: 104.0)
    for _ in range(10):
        log.add([])
    assert log.summary()["fps"] == 2.5


def test_machine_names_what_was_measured_on() -> None:
    facts = machine()
    assert facts["numpy"] == np.__version__
    assert facts["cpus"] >= 1
    assert facts["cpu"]
    assert "flags" not in facts["cpu"]
