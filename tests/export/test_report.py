"""The report of an export."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pchmr_engines.bundle import Bundle
from pchmr_engines.verify import Gate
from pchmr_export.budgets import Spent, summed_up
from pchmr_export.latency import StageTime, interleaved
from pchmr_export.lowering import LoweredBundle
from pchmr_export.mesh_budget import Composed, mesh_differences
from pchmr_export.report import write_report
from pchmr_export.report_plots import SHADES, coloured_parts, plot_mesh

GATE = Gate("lifter", "joints", "openvino", "fp32", "mm", 0.0, 0.002, 0.1)
FIGURE = Spent("lifter", "joints", "onnxruntime", "fp16", "mm", 0.2, 0.4, 0.9, 1.0)
TIMES = (
    StageTime("lifter", "torch", 0.3, 0.4),
    StageTime("lifter", "onnxruntime fp32", 0.1, 0.2),
)


@pytest.fixture
def bundle(open_bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(open_bundle.root, tmp_path / "bundle")
    return Bundle.load(tmp_path / "bundle")


@pytest.fixture
def lifter(bundle: Bundle) -> Bundle:
    """The bundle as if it had one stage only, for its pictures take seconds a stage."""
    return Bundle(bundle.root, replace(bundle.manifest, stages=(bundle.stage("lifter"),)))


def test_report_names_everything_and_the_bundle_stays_one(lifter: Bundle) -> None:
    bundle = lifter
    faces = bundle.body()["f"].astype(np.int32)
    vertices = np.random.default_rng(0).normal(size=(faces.max() + 1, 3)).astype(np.float32)
    mm = np.linspace(0, 10, len(vertices))
    composition = Composed(
        summed_up("composition: serial", "mesh", "x", "int8", "mm", mm), vertices, mm
    )
    refused = ("stage 'landmarks' in int8 stays float32",)
    lowered = LoweredBundle(bundle.manifest.stages, {}, (FIGURE,), (composition,), refused)
    bad = replace(GATE, output="landmarks", value=0.2)
    path = write_report(bundle, [GATE, bad], lowered, TIMES)
    text = path.read_text()
    assert "2 gates, 1 failed.\n- lifter: landmarks on openvino\n" in text
    assert "| lifter | joints | onnxruntime | fp16 | 0.2 | 0.4 | 0.9 | 1 | mm |" in text
    assert f"- {refused[0]}" in text
    facts = json.loads((path.parent / "report.json").read_text())
    assert facts["gates"][0]["passed"]
    assert [row["stage"] for row in facts["budgets"]] == ["lifter", "composition: serial"]
    stages = [f"errors_{stage.name}.png" for stage in bundle.manifest.stages]
    for name in (*stages, "mesh_serial_int8.png", "latency.png"):
        assert f"]({name})" in text
        image = cv2.imread(str(path.parent / name))
        assert image is not None
        assert image.std() > 5, name
    Bundle.load(bundle.root)  # a report is no part of it
    assert "1 gates, none failed" in write_report(bundle, [GATE], None, TIMES).read_text()
    assert not (path.parent / "mesh_serial_int8.png").exists()


def test_every_face_has_one_shade() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    parts, tints = coloured_parts(vertices, faces, np.array([0.0, 0.1, 0.5, 1.0]))
    assert parts.shape == (SHADES, 3 * (4 + 4), 3)
    assert len(set(tints)) == SHADES
    drawn = np.isfinite(parts[:, : 3 * 4].reshape(SHADES, 4, 9)).all(-1)
    assert drawn.sum(0).tolist() == [1] * 4
    shades = drawn.argmax(0)
    assert shades[3] == shades.max()


def test_shading_does_not_depend_on_the_patch(tmp_path: Path) -> None:
    """A patch of skin has no volume that told its outside: its light would turn inside out."""
    count = 24  # a ring before the camera, its inner side hollow
    around, along = np.meshgrid(*[np.arange(count) * 2 * np.pi / count] * 2, indexing="ij")
    radius = 0.6 + 0.3 * np.cos(along)
    ring = np.stack(
        [radius * np.cos(around), radius * np.sin(around), 0.3 * np.sin(along)], -1
    ).reshape(-1, 3)
    vertices = ring.astype(np.float32)
    grid = np.arange(count**2).reshape(count, count)
    corners = [
        np.roll(grid, shift, (0, 1)).ravel() for shift in ((0, 0), (-1, 0), (-1, -1), (0, -1))
    ]
    one, two, three, four = corners
    faces = np.vstack([np.c_[one, two, three], np.c_[one, three, four]]).astype(np.int32)
    inner = np.cos(along).ravel() < 0
    pictures = []
    for values in (np.ones(count**2), np.where(inner, 0.95, 1.0)):
        figure = summed_up("composition: x", "mesh", "x", "int8", "mm", values)
        plot_mesh(tmp_path / "mesh.png", faces, Composed(figure, vertices, values))
        pictures.append(cv2.imread(str(tmp_path / "mesh.png")).astype(int)[40:])
    assert np.abs(pictures[0] - pictures[1]).max() < 60


def test_runs_take_turns() -> None:
    order: list[str] = []
    found = interleaved({name: lambda n=name: order.append(n) for name in "ab"}, seconds=0)
    assert order[:6] == ["a", "b"] * 3
    assert len(found["a"]) == len(found["b"]) >= 7


def test_a_lost_person_is_over_every_budget() -> None:
    class Someone:
        def __init__(self, shift: float) -> None:
            self.joints = np.zeros((2, 3)) + shift
            self.vertices = np.zeros((5, 3)) + shift

    there = [[Someone(0.0)], [Someone(0.0)]]
    moved = mesh_differences([[Someone(3.0)], [Someone(-1.0)]], there)  # type: ignore[list-item]
    np.testing.assert_allclose(moved, 0, atol=1e-9)  # about the root
    lost = mesh_differences([[Someone(0.0)], []], there)  # type: ignore[list-item]
    assert not summed_up("x", "mesh", "x", "fp16", "mm", lost).passed
