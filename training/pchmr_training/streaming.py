"""Temporal networks on a live stream: one frame in, one frame out, several people at once.

    stream = PeopleStream(streaming_form(network), people=4)
    result = stream.step([0, 2], inputs)       # the next frame of the people in slots 0 and 2
    result.slots, result.frames, result.values["pose"]
    rest = stream.flush(2)                     # the person left: the frames still owed

Frames of a slot must follow one another at the rate the network was trained at (VideoPose3D: 50 a
second); resample a track first. What can stream:

| network | state a person | look-ahead |
|---|---|---|
| VideoPose3D, 243 frames | 244 columns of 1024 | 121 frames; 0 if causal |
| VIBE | 2 x 1024 | 0 |
| HMMR | none can be | - |

HMMR's group norm takes mean and variance over all frames of a clip. A new frame changes every
frame's result, so there is nothing to carry on, and a clip of another length gives other meshes:
run it on windows of 20 frames, of which it keeps the middle 8, and wait for those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pchmr_engines.errors import InputError

from .networks.hmmr_tf import HMMR
from .networks.vibe import VIBE
from .networks.videopose3d import VideoPose3D
from .streaming_vibe import StreamingVIBE
from .streaming_videopose3d import StreamingVideoPose3D


class StreamingNetwork(Protocol):
    """A network whose memory of each person is a row of every tensor of its state.

    Its `forward(inputs, state) -> (result, state)` is a pure function, for export.
    """

    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def look_ahead(self) -> int: ...
    def initial_state(self, people: int) -> Any: ...
    def step_(self, inputs: Tensor, state: Any, rows: Tensor) -> dict[str, Tensor]: ...
    def tail(self, state: Any, row: int) -> dict[str, Tensor]: ...
    def reset_(self, state: Any, row: int) -> None: ...


def streaming_form(network: nn.Module) -> StreamingNetwork:
    """The streaming form of a network, on its weights.

    Raises: InputError for a network that has none, and why.
    """
    if isinstance(network, VideoPose3D):
        return StreamingVideoPose3D(network)
    if isinstance(network, VIBE):
        return StreamingVIBE(network)
    if isinstance(network, HMMR):
        raise InputError(
            "HMMR cannot run frame by frame: its group norm takes statistics over all frames of a "
            "clip. Run it on windows of 20 frames and keep the middle 8"
        )
    raise InputError(
        f"{type(network).__name__} has no streaming form; VideoPose3D and VIBE have one, and what "
        "takes single frames needs none"
    )


@dataclass(frozen=True)
class StreamResult:
    """Rows that are now complete. slots, frames: (N,) whose, and which of their frames since the
    last reset. values: output name -> (N, ...)."""

    slots: tuple[int, ...]
    frames: tuple[int, ...]
    values: Mapping[str, Tensor]


class PeopleStream:
    """People in slots 0..people - 1, each with frames of their own. Not thread-safe."""

    def __init__(self, network: StreamingNetwork, people: int) -> None:
        self.network = network
        self.look_ahead = network.look_ahead
        self._state = network.initial_state(people)
        self._frames = [0] * people

    @torch.no_grad()
    def step(self, slots: Sequence[int], inputs: Tensor) -> StreamResult:
        """The next frame (N, ...) of the people in `slots`; gives the frames `look_ahead` ago.

        A row is left out while its person's frame 0 is still waiting for later ones.

        Raises: InputError for a slot that does not exist or comes twice, or other rows than slots.
        """
        self._check(slots)
        if len(inputs) != len(slots):
            raise InputError(
                f"{len(inputs)} rows of input for {len(slots)} slots; expected a row each"
            )
        rows = torch.tensor(slots, dtype=torch.int64, device=inputs.device)
        values = self.network.step_(inputs, self._state, rows)
        frames = []
        for slot in slots:
            frames.append(self._frames[slot] - self.look_ahead)
            self._frames[slot] += 1
        ready = [row for row, frame in enumerate(frames) if frame >= 0]
        return StreamResult(
            tuple(slots[row] for row in ready),
            tuple(frames[row] for row in ready),
            {name: value[ready] for name, value in values.items()},
        )

    @torch.no_grad()
    def flush(self, slot: int) -> StreamResult:
        """The frames still owed to a person, as if their last one went on; then forgets them."""
        self._check([slot])
        values = self.network.tail(self._state, slot)
        end = self._frames[slot]
        frames = tuple(range(max(0, end - self.look_ahead), end))
        self.reset(slot)
        return StreamResult((slot,) * len(frames), frames, values)

    def reset(self, slot: int) -> None:
        """Forget a person: the slot's next frame is frame 0 of somebody else."""
        self._check([slot])
        self.network.reset_(self._state, slot)
        self._frames[slot] = 0

    def _check(self, slots: Sequence[int]) -> None:
        if len(set(slots)) < len(slots) or not set(slots) <= set(range(len(self._frames))):
            raise InputError(
                f"slots {list(slots)}; expected each once, of 0..{len(self._frames) - 1}"
            )
