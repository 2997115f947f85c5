"""Streaming forms as ONNX stages: a clip frame by frame gives what the whole clip gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pchmr_engines import engine_from_onnx
from pchmr_engines.errors import InputError
from pchmr_export.gates import check, measured, run_gates
from pchmr_export.onnx_graph import CONTROL_FLOW, OPSET
from pchmr_export.streaming_export import StreamingStage, export_streaming, sequence_gates
from pchmr_training.networks import get_network
from pchmr_training.networks.fixtures import seeded_network

FAST = ("videopose3d_h36m_9", "videopose3d_causal_27")
SLOW = (
    *("videopose3d_h36m_243", "videopose3d_h36m_243_optimized1f", "videopose3d_coco_243"),
    *("videopose3d_humaneva15_27", "videopose3d_traj_243", "vibe", "hmmr_tf"),
)
LOOK_AHEAD = {"9": 4, "243": 121, "optimized1f": 121}


def exported(name: str, folder: Path) -> tuple[torch.nn.Module, StreamingStage]:
    torch.set_num_threads(1)
    spec = get_network(name)
    network, _ = seeded_network(spec)
    return network, export_streaming(network, spec, folder / f"{name}.fp32.onnx")


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_a_clip_frame_by_frame_gives_what_the_whole_clip_gives(name: str, tmp_path: Path) -> None:
    network, stage = exported(name, tmp_path)
    check(sequence_gates(name, stage, network, threads=1))
    rows = run_gates(name, stage.file.path, stage.parity, stage.data, seeded=True, threads=1)
    parity = measured(stage.parity, check(rows))
    assert parity.keys() == {spec.name for spec in stage.file.outputs}
    model = onnx.load(stage.file.path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not {node.op_type for node in model.graph.node} & CONTROL_FLOW
    assert all(spec.batched for spec in (*stage.file.inputs, *stage.file.outputs))


def test_settings_say_what_the_runtime_needs(tmp_path: Path) -> None:
    _, stage = exported("videopose3d_h36m_9", tmp_path)
    state = {"frames": "frames_next", "ring_0": "ring_0_next", "ring_1": "ring_1_next"}
    assert stage.settings == {"look_ahead": 4, "rate_hz": 50.0, "state": state}
    assert [spec.name for spec in stage.file.inputs] == ["keypoints", *state]
    assert [spec.name for spec in stage.file.outputs] == ["joints", *state.values()]


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """A person's row of the state is theirs alone, whoever else is in the batch."""
    _, stage = exported("videopose3d_causal_27", tmp_path)
    engine = engine_from_onnx(stage.file.path, "onnxruntime", threads=1)
    for order in ([1], [0, 1, 1]):
        feed = {spec.name: stage.data[f"inputs/{spec.name}"][order] for spec in stage.file.inputs}
        for name, value in engine.run(feed).items():
            np.testing.assert_allclose(value, stage.data[f"outputs/{name}"][order], atol=1e-4)


def test_a_state_that_is_not_carried_on_fails_the_gate(tmp_path: Path) -> None:
    network, stage = exported("videopose3d_h36m_9", tmp_path)
    (first, *rest) = (spec.name for spec in stage.file.inputs[1:])
    swapped = {**stage.settings["state"], rest[0]: "ring_0_next"}
    assert first == "frames"
    object.__setattr__(stage, "settings", {**stage.settings, "state": swapped, "look_ahead": 3})
    gates = sequence_gates("lifter", stage, network, ["onnxruntime"], frames=8, threads=1)
    assert not any(gate.passed for gate in gates)


def test_what_needs_no_streaming_form(tmp_path: Path) -> None:
    spec = get_network("semgcn_plain")
    with pytest.raises(InputError, match=r"semgcn_plain takes single frames .*export_stage"):
        export_streaming(spec.build(), spec, tmp_path / "x.onnx")
