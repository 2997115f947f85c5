"""Streaming forms as ONNX stages: a clip frame by frame gives what the whole clip gives."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from pchmr_engines import engine_from_onnx
from pchmr_engines.errors import InputError
from pchmr_export.gates import check, measured, run_gates
from pchmr_export.streaming_export import StreamingStage, export_streaming, sequence_gates
from pchmr_training.networks import get_network
from pchmr_training.networks.fixtures import seeded_network

Exported = Callable[[str], tuple[torch.nn.Module, StreamingStage]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network and its streaming form, exported on the first call."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("streaming")

    @lru_cache(2)
    def exported(name: str) -> tuple[torch.nn.Module, StreamingStage]:
        spec = get_network(name)
        network, _ = seeded_network(spec)
        return network, export_streaming(network, spec, folder / f"{name}.fp32.onnx")

    return exported


@pytest.mark.parametrize("name", ["videopose3d_h36m_9", "videopose3d_traj_243"])
def test_a_clip_frame_by_frame_is_the_whole_clip(name: str, exported: Exported) -> None:
    """The gates of a stage hold the other networks; the last of these is none."""
    network, stage = exported(name)
    check(sequence_gates(name, stage, network))
    rows = run_gates(name, stage.file.path, stage.parity, stage.data)
    parity = measured(stage.parity, check(rows))
    assert parity.keys() == {spec.name for spec in stage.file.outputs}
    assert all(spec.batched for spec in (*stage.file.inputs, *stage.file.outputs))


def test_settings_say_what_the_runtime_needs(exported: Exported) -> None:
    _, stage = exported("videopose3d_h36m_9")
    state = {"frames": "frames_next", "ring_0": "ring_0_next", "ring_1": "ring_1_next"}
    assert stage.settings == {"look_ahead": 4, "rate_hz": 50.0, "state": state}
    assert [spec.name for spec in stage.file.inputs] == ["keypoints", *state]
    assert [spec.name for spec in stage.file.outputs] == ["joints", *state.values()]


def test_rows_do_not_depend_on_the_batch(exported: Exported) -> None:
    """A person's row of the state is theirs alone, whoever else is in the batch."""
    _, stage = exported("videopose3d_h36m_9")
    engine = engine_from_onnx(stage.file.path, "onnxruntime", threads=1)
    for order in ([1], [0, 1, 1]):
        feed = {spec.name: stage.data[f"inputs/{spec.name}"][order] for spec in stage.file.inputs}
        for name, value in engine.run(feed).items():
            np.testing.assert_allclose(value, stage.data[f"outputs/{name}"][order], atol=1e-4)


def test_a_state_that_is_not_carried_on_fails_the_gate(exported: Exported) -> None:
    network, stage = exported("videopose3d_h36m_9")
    (first, *rest) = (spec.name for spec in stage.file.inputs[1:])
    swapped = {**stage.settings["state"], rest[0]: "ring_0_next"}
    assert first == "frames"
    stage = replace(stage, settings={**stage.settings, "state": swapped, "look_ahead": 3})
    gates = sequence_gates("lifter", stage, network, ["onnxruntime"], frames=8)
    assert not any(gate.passed for gate in gates)


def test_what_needs_no_streaming_form(tmp_path: Path) -> None:
    spec = get_network("semgcn_plain")
    with pytest.raises(InputError, match="semgcn_plain takes single frames and has no"):
        export_streaming(spec.build(), spec, tmp_path / "x.onnx")
