"""VIBE frame by frame: its recurrence runs forwards only, so a frame needs the memory alone."""

from typing import NamedTuple

from torch import Tensor, nn

from .networks.rotations import rot6d_to_rotmat
from .networks.spin_hmr import MeshParameters
from .networks.vibe import VIBE


class VibeState(NamedTuple):
    """memory: (P, 2, 1024) of the two recurrent layers; zeros before the first frame."""

    memory: Tensor


class StreamingVIBE(nn.Module):
    """A VIBE, one frame of features at a time; the same result as a clip from the last reset on.

    The authors' demo starts the memory anew every 450 frames, and a window of 16, as trained,
    anew for each: with more or less context the results differ. Reset where they should not.
    """

    outputs = MeshParameters._fields
    look_ahead = 0
    network: VIBE

    def __init__(self, network: VIBE) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def initial_state(self, people: int) -> VibeState:
        """The memory of people of whom nothing was seen."""
        gru = self.network.encoder.gru
        weight = next(gru.parameters())
        return VibeState(weight.new_zeros(people, gru.num_layers, gru.hidden_size))

    def forward(self, features: Tensor, state: VibeState) -> tuple[MeshParameters, VibeState]:
        """Mesh parameters (B, ...) of features (B, 2048), and the new state; a pure function."""
        memory = state.memory.transpose(0, 1).contiguous()
        encoded, memory = self.network.encoder(features[:, None], memory)
        pose, betas, cam = self.network.regressor.regress(encoded[:, 0])
        rotmat = rot6d_to_rotmat(pose.unflatten(-1, (24, 6)), floor=1e-6)
        return MeshParameters(rotmat, betas, cam), VibeState(memory.transpose(0, 1))

    def step_(self, features: Tensor, state: VibeState, rows: Tensor) -> dict[str, Tensor]:
        """The same in place, for some people: rows (B,) of `state`, each at most once."""
        result, new = self(features, VibeState(state.memory[rows]))
        state.memory[rows] = new.memory
        return result._asdict()

    def tail(self, state: VibeState, row: int) -> dict[str, Tensor]:
        """Nothing: every frame is complete when it is seen."""
        return dict.fromkeys(self.outputs, state.memory.new_empty(0))

    def reset_(self, state: VibeState, row: int) -> None:
        """Forget a person."""
        state.memory[row] = 0
