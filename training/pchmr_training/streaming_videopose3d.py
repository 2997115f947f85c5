"""VideoPose3D frame by frame: a new frame costs one column a layer, not a window of 243 frames.

The dilated form recomputes, for every new frame, columns that it had computed for the frame before.
Here each layer remembers those of its inputs that later frames will look back at, in a ring, and
one step computes the newest column of every layer. The result is that of the dilated form on the
sequence with its edges repeated, as VideoPose3D pads it.
"""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .networks.videopose3d import VideoPose3D


class VideoPose3DState(NamedTuple):
    """frames: (P,) int64, seen since the last reset. rings: one a layer, (P, length, channels):
    the layer's inputs, that of frame t at t % length."""

    frames: Tensor
    rings: tuple[Tensor, ...]


class StreamingVideoPose3D(nn.Module):
    """The weights of a VideoPose3D, any of its forms, with norms folded in; see the file's head.

    look_ahead: frames that must follow before a frame's pose is known; 121 for 243 frames, 0 for a
    causal network. ages: how old the inputs are that each layer looks at, oldest first.
    """

    outputs = ("pose",)

    def __init__(self, network: VideoPose3D) -> None:
        super().__init__()
        self.causal, widths = network.causal, network.widths
        dilations = [prod(widths[:layer]) for layer in range(len(widths))]
        self.ages = [range((w - 1) * d, -1, -d) for w, d in zip(widths, dilations, strict=True)]
        self.look_ahead = 0 if network.causal else (network.receptive_field - 1) // 2
        convs, norms = network.layers_conv, network.layers_bn
        mix = [_folded(convs[i], norms[i]) for i in range(0, len(convs), 2)]
        mix.insert(0, _folded(network.expand_conv, network.expand_bn))
        self.mix = nn.ModuleList(mix)
        self.channels = [m.in_features // width for m, width in zip(mix, widths, strict=True)]
        self.point = nn.ModuleList(_folded(convs[i], norms[i]) for i in range(1, len(convs), 2))
        self.shrink = _folded(network.shrink)
        self.eval()

    def initial_state(self, people: int) -> VideoPose3DState:
        """The memory of people of whom nothing was seen."""
        weight = self.shrink.weight
        rings = [
            weight.new_zeros(people, ages[0] + 1, channels)
            for ages, channels in zip(self.ages, self.channels, strict=True)
        ]
        frames = torch.zeros(people, dtype=torch.int64, device=weight.device)
        return VideoPose3DState(frames, tuple(rings))

    def forward(
        self, keypoints: Tensor, state: VideoPose3DState
    ) -> tuple[Tensor, VideoPose3DState]:
        """The pose (B, J_out, 3) of the frame `look_ahead` ago, and the new state; a pure function.

        keypoints: (B, J_in, F) of the newest frame, state: of the same B people. The poses of a
        person's first `look_ahead` frames stand for no frame.
        """
        state = VideoPose3DState(state.frames.clone(), tuple(ring.clone() for ring in state.rings))
        rows = torch.arange(keypoints.shape[0], device=keypoints.device)
        return self.step_(keypoints, state, rows)["pose"], state

    def step_(self, keypoints: Tensor, state: VideoPose3DState, rows: Tensor) -> dict[str, Tensor]:
        """The same in place, for some people: rows (B,) of `state`, each at most once."""
        time = state.frames[rows]
        state.frames[rows] = time + 1
        x = keypoints.flatten(1)
        for layer, ring in enumerate(state.rings):
            length = ring.shape[1]
            ring[rows, time % length] = x
            # Before the first frame lies the first frame: the edge padding.
            ages = self.ages[layer]
            age = torch.arange(ages.start, ages.stop, ages.step, device=x.device)
            seen = (time[:, None] - age).clamp(min=0)
            x = self._column(layer, ring[rows[:, None], seen % length])
        return {"pose": self.shrink(x).unflatten(-1, (-1, 3))}

    def _column(self, layer: int, window: Tensor) -> Tensor:
        """(N, channels) of a layer, from the inputs (N, width, channels) it looks at."""
        y = torch.relu(self.mix[layer](window.flatten(1)))
        if layer == 0:
            return y
        stands_for = window.shape[1] - 1 if self.causal else window.shape[1] // 2
        return window[:, stands_for] + torch.relu(self.point[layer - 1](y))

    def tail(self, state: VideoPose3DState, row: int) -> dict[str, Tensor]:
        """Poses (T, J_out, 3) of a person's last frames, as if the very last one went on.

        T is `look_ahead`, or less where fewer frames were seen. All at once: the columns of one
        layer after those of the other, so the weights are read once. The state stays.
        """
        time = int(state.frames[row])
        x = state.rings[0].new_empty(0, state.rings[0].shape[2])
        if time:
            x = state.rings[0][row, (time - 1) % state.rings[0].shape[1]]
            x = x.expand(self.look_ahead, -1)
        for layer, ring in enumerate(state.rings):
            length = ring.shape[1]
            past = torch.arange(time - length + 1, time, device=x.device).clamp(min=0)
            known = torch.cat((ring[row, past % length], x))
            window = [known[length - 1 - age : len(known) - age] for age in self.ages[layer]]
            x = self._column(layer, torch.stack(window, 1))
        poses = self.shrink(x).unflatten(-1, (-1, 3))
        return {"pose": poses[max(0, self.look_ahead - time) :]}

    def reset_(self, state: VideoPose3DState, row: int) -> None:
        """Forget a person."""
        state.frames[row] = 0


def _folded(conv: nn.Module, norm: nn.Module | None = None) -> nn.Linear:
    """A convolution over `width` columns, then a norm, as one product with the columns in a row."""
    assert isinstance(conv, nn.Conv1d)
    weight = conv.weight.detach().double().transpose(1, 2).flatten(1)
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
    if norm is not None:
        assert isinstance(norm, nn.BatchNorm1d)
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        scale = norm.weight.detach().double() / torch.sqrt(variance.double() + norm.eps)
        bias = (bias - mean.double()) * scale + norm.bias.detach().double()
        weight = weight * scale[:, None]
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), dtype=conv.weight.dtype)
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(bias)
    return linear.requires_grad_(False)
