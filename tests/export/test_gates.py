"""A gate passes what torch computes, and fails whatever a slip of the export could make of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from seeded_stages import SeededStage, StageOf

from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Parity
from pchmr_engines.verify import Gate
from pchmr_export.examples import network_input
from pchmr_export.gates import (
    GateFailed,
    check,
    check_power,
    keypoint_views,
    measured,
    output_parity,
    run_gates,
)
from pchmr_export.image_input import ImageNormalisation
from pchmr_export.input_gate import input_gates
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.networks import ImageInput, get_network

Edit = Callable[[np.ndarray], np.ndarray]


def spoil(stage: SeededStage, folder: Path, **edits: Edit) -> Path:
    """The stage's graph with some of its tensors changed; `__` stands for a dot."""
    model = onnx.load(stage.path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, edit in edits.items():
        tensor = tensors[name.replace("__", ".")]
        value = edit(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    path = folder / "spoilt.fp32.onnx"
    onnx.save(model, path)
    return path


def run(stage: SeededStage, graph: Path) -> None:
    gates = run_gates(stage.role, graph, stage.graph.parity, stage.data, (), ["onnxruntime"])
    if stage.stage.crop:
        image = stage.data["inputs/image"]
        found = input_gates(stage.role, graph, image, network_input(stage.form, image))
        gates += tuple(gate for gate in found if gate.backend == "onnxruntime")
    check(gates)


def mean_of_another_network(offset: np.ndarray) -> np.ndarray:
    convention = get_network("hmr_tf").input
    assert isinstance(convention, ImageInput)
    return ImageNormalisation(convention).offset.numpy().reshape(offset.shape)


def next_mean(offset: np.ndarray) -> np.ndarray:
    """The mean of green, 0.456, where that of red, 0.485, belongs."""
    offset[0] = -0.456 / 0.229
    return offset


def mirrored(weights: np.ndarray) -> np.ndarray:
    """Left and right legs exchanged in the last layer of a lifter, (3 * joints, ...)."""
    order = np.arange(17)
    for left, right in get_skeleton("h36m17").flip:
        if get_skeleton("h36m17").joints[left].endswith(("hip", "knee", "ankle")):
            order[[left, right]] = right, left
    assert (order != np.arange(17)).sum() == 6
    return weights.reshape(17, 3, *weights.shape[1:])[order].reshape(weights.shape)


SLIPS: dict[str, tuple[str, dict[str, Edit]]] = {
    "swapped channels": ("spin_hmr", {"conv1__weight": lambda w: w[:, ::-1].copy()}),
    "wrong mean": ("spin_hmr", {"image__offset": mean_of_another_network}),
    "one channel's mean": ("spin_hmr", {"image__offset": next_mean}),
    "one channel's mean, of a network that hardly shows it": (
        "posenet_r50_18j",
        {"image__offset": next_mean},
    ),
    "pixels of 0..1": ("spin_hmr", {"image__slope": lambda slope: slope / 255}),
    "dropped layer": (
        "spin_hmr",
        {"layer3__4__conv3__weight": np.zeros_like, "layer3__4__bn3__bias": np.zeros_like},
    ),
    "mirrored legs": (
        "videopose3d_h36m_9",
        {"step__shrink__weight": mirrored, "step__shrink__bias": mirrored},
    ),
    "a norm forgotten": ("spin_hmr", {"layer4__2__bn2__bias": np.zeros_like}),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_planted_fault_fails(slip: str, tmp_path: Path, stage_of: StageOf) -> None:
    name, edits = SLIPS[slip]
    stage = stage_of(name)
    line = rf"stage '{stage.role}' in fp32 on onnxruntime: [\w ]+ is [\d.e+]+ .* off .*allowed are"
    with pytest.raises(GateFailed, match=line) as caught:
        run(stage, spoil(stage, tmp_path, **edits))
    worst = max(gate.value / gate.tolerance for gate in caught.value.gates)
    assert worst > 2  # PoseNet's numbers go to a thousand, and a mean is two of them


def test_nan_fails(tmp_path: Path, stage_of: StageOf) -> None:
    stage = stage_of("videopose3d_h36m_9")
    with pytest.raises(GateFailed, match="joints is nan mm off"):
        run(stage, spoil(stage, tmp_path, step__shrink__bias=lambda bias: bias * np.nan))


@pytest.mark.parametrize(
    ("name", "unit", "scale"),
    [
        ("rotmats", "deg", np.rad2deg(1)),
        ("cam", "px", 112.0),
        ("joints", "mm", 1000.0),
        ("coord", "px", 4.0),
        ("heatmaps", "of the largest", 0.5),
    ],
)
def test_units_are_those_of_the_outputs(name: str, unit: str, scale: float) -> None:
    parity = output_parity(name, np.full(2, -2.0))
    assert (parity.unit, parity.scale) == (unit, scale)
    assert output_parity(name, np.zeros(2, np.int64)).unit == ""


def test_heat_maps_are_gated_in_pixels_too() -> None:
    maps = np.zeros((1, 17, 64, 48), np.float32)
    maps[:, :, 20, 10] = 1.0
    for decoder in ("hrnet", "cpn"):
        (view,) = keypoint_views(decoder)
        at, then = (view.of({"heatmaps": x}) for x in (maps, np.roll(maps, 1, axis=-1)))
        np.testing.assert_allclose(then - at, [[[4.0, 0.0]] * 17], atol=1e-9)
    assert keypoint_views("posenet") == ()


def test_a_manifest_keeps_the_worst_backend() -> None:
    wanted = {"pose": Parity("mm", 1000.0, 0.0, 0.05)}
    gates = [
        Gate("lifter", "pose", name, "fp32", "mm", 0.0, value, 0.05)
        for name, value in (("onnxruntime", 0.01), ("openvino", 0.03))
    ]
    assert measured(wanted, check(gates)) == {"pose": Parity("mm", 1000.0, 0.03, 0.05)}


def test_examples_that_no_fault_could_fail_are_refused() -> None:
    wanted = {"coord": Parity("px", 4.0, 0.0, 0.02)}
    flat = np.full((2, 18, 3), 31.5, np.float32)
    with pytest.raises(InputError, match=r"coord varies by 0 px over .*no fault could fail"):
        check_power("posenet", wanted, {"outputs/coord": flat})
    check_power("posenet", wanted, {"outputs/coord": flat + np.arange(2)[:, None, None]})
