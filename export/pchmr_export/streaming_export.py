"""Temporal networks as stages that run on a live stream: their state goes in and comes out by name.

stage = export_streaming(network, spec, Path("stages/lifter.fp32.onnx"))
stage.settings                     # into the manifest: look_ahead, rate_hz, state
sequence_gates("lifter", stage, network, backends)      # a whole clip against the dilated network

| network | input | outputs | state a person |
|---|---|---|---|
| VideoPose3D | keypoints (B, J, 2), normalised | joints (B, J', 3) m | 1 MB at 243 frames |
| VIBE | features (B, 2048) | rotmats, betas, cam | memory (B, 2, 1024) |
| HMMR | features (B, 20, 2048) | rotmats (B, 8, 24, 3, 3), betas, cam | none: a window |

HMMR's group norm takes its statistics over a window, so it has no frame-by-frame form; its graph
gives the middle 8 frames of 20, which see six to either side, as its authors run it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pchmr.prepost.sequences import receptive_pad
from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.engine import BATCH, Engine, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Parity
from pchmr_engines.verify import Gate, greatest_difference
from pchmr_training.networks import KeypointInput, NetworkSpec
from pchmr_training.networks.hmmr_tf import HMMR
from pchmr_training.networks.hmr_tf import split_theta
from pchmr_training.networks.seeding import seeded_input
from pchmr_training.networks.vibe import VIBE
from pchmr_training.networks.videopose3d import VideoPose3D
from pchmr_training.smpl import rotvec_to_rotmat
from pchmr_training.streaming_vibe import StreamingVIBE, VibeState
from pchmr_training.streaming_videopose3d import StreamingVideoPose3D, VideoPose3DState

from .examples import Arrays, parity_arrays
from .gates import check_power, installed_backends, output_parity
from .onnx_graph import StageFile, export_graph
from .stage_forms import MESH_OUTPUTS

RATE_HZ = 50.0
"""Human3.6M's frames a second, at which VideoPose3D was trained."""

WINDOW, KEEP = 20, (6, 14)
"""HMMR's window, and the frames of it that see enough to either side."""


@dataclass(frozen=True)
class StreamingStage:
    """An exported stage. settings: for the manifest. data: its parity arrays, the rows of which
    are people in the middle of their streams. parity: the gates of `data`, values still 0."""

    file: StageFile
    settings: Mapping[str, Any]
    data: Arrays
    parity: Mapping[str, Parity]


def export_streaming(network: nn.Module, spec: NetworkSpec, path: Path) -> StreamingStage:
    """Write the streaming form of a network, or its window form, as ONNX.

    Every state input is (B, ...), zeros before a person's first frame; `settings["state"]` names
    the output that it is fed from next time.

    Raises: InputError for a network that has neither form.
    """
    form = streaming_form(network, spec)
    inputs = form.inputs()
    torch_inputs = form.examples(f"export:{spec.name}")
    file = export_graph(form, inputs, form.outputs, path)
    with torch.inference_mode():
        results = form(*torch_inputs)
    given = {spec.name: x.numpy() for spec, x in zip(inputs, torch_inputs, strict=True)}
    expected = {name: x.numpy() for name, x in zip(form.outputs, results, strict=True)}
    data = parity_arrays(given, expected)
    parity = {name: output_parity(name, data[f"outputs/{name}"]) for name in form.outputs}
    check_power(spec.name, parity, data)
    return StreamingStage(file, form.settings, data, parity)


class _VideoPose3DStep(nn.Module):
    """keypoints, frames, ring_0 ... -> joints, frames_next, ring_0_next ..."""

    def __init__(self, network: VideoPose3D, joints: int) -> None:
        super().__init__()
        self.step, self._joints = StreamingVideoPose3D(network), joints
        self._state = ("frames", *(f"ring_{layer}" for layer in range(len(self.step.ages))))
        self.outputs = ("joints", *(f"{name}_next" for name in self._state))
        self.settings = {
            "look_ahead": self.step.look_ahead,
            "rate_hz": RATE_HZ,
            "state": {name: f"{name}_next" for name in self._state},
        }

    def inputs(self) -> tuple[TensorSpec, ...]:
        state = self.step.initial_state(1)
        rings = (
            TensorSpec(name, (BATCH, *ring.shape[1:]), "float32")
            for name, ring in zip(self._state[1:], state.rings, strict=True)
        )
        keypoints = TensorSpec("keypoints", (BATCH, self._joints, 2), "float32")
        return keypoints, TensorSpec("frames", (BATCH,), "int64"), *rings

    def examples(self, seed: str) -> tuple[Tensor, ...]:
        """Two people of different age, both within their first frames' edge padding or after."""
        state = self.step.initial_state(2)
        clip = torch.from_numpy(seeded_input(seed, (12, 2, self._joints, 2), "uniform"))
        with torch.inference_mode():
            for time, frame in enumerate(clip[:-1]):
                rows = torch.arange(2 if time % 2 else 1)
                self.step.step_(frame[rows], state, rows)
        return clip[-1].clone(), state.frames, *state.rings

    def forward(self, keypoints: Tensor, frames: Tensor, *rings: Tensor) -> tuple[Tensor, ...]:
        pose, state = self.step(keypoints, VideoPose3DState(frames, rings))
        return pose, state.frames, *state.rings


class _VibeStep(nn.Module):
    """features, memory -> rotmats, betas, cam, memory_next."""

    outputs = (*MESH_OUTPUTS, "memory_next")
    settings: Mapping[str, Any] = {
        "look_ahead": 0,
        "rate_hz": None,
        "state": {"memory": "memory_next"},
    }

    def __init__(self, network: VIBE) -> None:
        super().__init__()
        self.step = StreamingVIBE(network)

    def inputs(self) -> tuple[TensorSpec, ...]:
        memory = self.step.initial_state(1).memory
        return (
            TensorSpec("features", (BATCH, 2048), "float32"),
            TensorSpec("memory", (BATCH, *memory.shape[1:]), "float32"),
        )

    def examples(self, seed: str) -> tuple[Tensor, ...]:
        """Two people after one and three frames."""
        state = self.step.initial_state(2)
        clip = torch.from_numpy(seeded_input(seed, (4, 2, 2048), "normal"))
        with torch.inference_mode():
            for time, frame in enumerate(clip[:-1]):
                rows = torch.arange(1 if time < 2 else 2)
                self.step.step_(frame[rows], state, rows)
        return clip[-1].clone(), state.memory

    def forward(self, features: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        result, state = self.step(features, VibeState(memory))
        return *result, state.memory


class _HmmrWindow(nn.Module):
    """features of a window -> rotmats, betas, cam of its kept frames."""

    outputs = MESH_OUTPUTS
    settings: Mapping[str, Any] = {"window": WINDOW, "keep": list(KEEP), "rate_hz": None}

    def __init__(self, network: HMMR) -> None:
        super().__init__()
        self.network = network

    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("features", (BATCH, WINDOW, 2048), "float32"),)

    def examples(self, seed: str) -> tuple[Tensor, ...]:
        return (torch.from_numpy(seeded_input(seed, (2, WINDOW, 2048), "normal")),)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        strip = self.network.movie_strip(features)[:, KEEP[0] : KEEP[1]]
        start = self.network.mean_param.expand(*strip.shape[:-1], -1)
        theta = self.network.get_submodule("single_view_ief.3D_module")(strip, start)[-1]
        cam, pose, betas = split_theta(theta)
        return rotvec_to_rotmat(pose.unflatten(-1, (24, 3))), betas, cam


def streaming_form(
    network: nn.Module, spec: NetworkSpec
) -> "_VideoPose3DStep | _VibeStep | _HmmrWindow":
    """The module of a temporal network's graph, state in and out. Raises: InputError."""
    if isinstance(network, VideoPose3D) and isinstance(spec.input, KeypointInput):
        return _VideoPose3DStep(network, spec.input.shape[2]).eval()
    if isinstance(network, VIBE):
        return _VibeStep(network).eval()
    if isinstance(network, HMMR):
        return _HmmrWindow(network).eval()
    raise InputError(
        f"{spec.name} takes single frames and has no streaming form: export it as it is"
    )


def sequence_gates(
    name: str,
    stage: StreamingStage,
    network: nn.Module,
    backends: Sequence[str] | None = None,
    frames: int = 30,
) -> tuple[Gate, ...]:
    """A clip, frame by frame on each backend, against the network's own form on the whole clip.

    For VideoPose3D that is the dilated form with the clip's edges repeated; a window is held
    against the same frames of the network on that window. The last frames come by feeding the last
    one on, as the runtime flushes.
    """
    given, *_ = stage.file.inputs
    window = stage.settings.get("window", 1)
    shape = (frames, *given.shape[2 if window > 1 else 1 :])
    kind = "uniform" if given.name == "keypoints" else "normal"
    clip = seeded_input(f"sequence:{name}", shape, kind)  # type: ignore[arg-type]
    expected = _whole_clip(network, torch.from_numpy(clip))
    gates = []
    for backend in installed_backends() if backends is None else backends:
        engine = engine_from_onnx(stage.file.path, backend, cache=False)
        found = _play(engine, stage, clip)
        for output, right in expected.items():
            parity = stage.parity[output]
            value = parity.scale * greatest_difference(found[output], right)
            measure = parity.unit, 0.0, value, parity.tolerance
            gates.append(Gate(name, f"{output} of a clip", backend, engine.precision, *measure))
    return tuple(gates)


def _whole_clip(network: nn.Module, clip: Tensor) -> Arrays:
    """What the network makes of all frames (T, ...) at once, by the stage's output names."""
    with torch.inference_mode():
        if isinstance(network, VideoPose3D):
            before, after = receptive_pad(network.receptive_field, network.causal)
            frames = torch.arange(-before, len(clip) + after).clamp(0, len(clip) - 1)
            if network.strided:
                windows = clip[frames].unfold(0, before + 1 + after, 1).movedim(-1, 1)
                return {"joints": network(windows)[:, 0].numpy()}
            return {"joints": network(clip[frames][None])[0].numpy()}
        if isinstance(network, VIBE):
            return {
                name: value[0].numpy()
                for name, value in zip(MESH_OUTPUTS, network(clip[None]), strict=True)
            }
        assert isinstance(network, HMMR)
        cam, pose, betas = split_theta(network(clip[None, :WINDOW]).omega[0])
        values = rotvec_to_rotmat(pose.unflatten(-1, (24, 3))), betas, cam
        kept = (value[KEEP[0] : KEEP[1]].numpy() for value in values)
        return dict(zip(MESH_OUTPUTS, kept, strict=True))


def _play(engine: Engine, stage: StreamingStage, clip: NDArray[Any]) -> Arrays:
    """The results (T, ...) of a clip that is fed frame by frame, the last one on to the end."""
    name = stage.file.inputs[0].name
    if "window" in stage.settings:
        return {key: value[0] for key, value in engine.run({name: clip[None, :WINDOW]}).items()}
    state = {spec.name: np.zeros(spec.sized(1), spec.dtype) for spec in stage.file.inputs[1:]}
    look_ahead, following = stage.settings["look_ahead"], stage.settings["state"]
    results = []
    for frame in (*clip, *(clip[-1:].repeat(look_ahead, 0))):
        result = engine.run({name: frame[None], **state})
        state = {key: result.pop(next_key) for key, next_key in following.items()}
        results.append(result)
    return {
        key: np.concatenate([result[key] for result in results[look_ahead:]]) for key in results[0]
    }
