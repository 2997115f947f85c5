"""What a network is: how it is built, what it takes, what it gives, and in which files it comes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageInput:
    """One crop: `(value - mean) / std`, where 0..255 of the pixels was brought to `value_range`.

    size: (height, width). mean, std: in the order of `colour`. crop: name of the crop rule.
    """

    size: tuple[int, int]
    crop: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    value_range: tuple[float, float] = (0.0, 1.0)
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 3, *self.size) if self.layout == "NCHW" else (1, *self.size, 3)


@dataclass(frozen=True)
class KeypointInput:
    """2D joints of one frame, or of the `frames` that one output frame depends on.

    normalise: name of the rule that takes pixels to the network's numbers.
    shape: of a batch of one; some networks take the joints flattened.
    """

    skeleton: str
    shape: tuple[int, ...]
    normalise: str = "screen"
    frames: int = 1


@dataclass(frozen=True)
class FeatureInput:
    """Image features (1, frames, width) of consecutive frames, from the network `encoder`."""

    encoder: str
    frames: int
    width: int = 2048

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.frames, self.width)


@dataclass(frozen=True)
class NetworkSpec:
    """A network as its authors released it; names are those of the parity kit.

    outputs: names of what `forward` returns, one or a tuple. skeleton: joint order of the output.
    unit: of the output. wrappers: entries of the official file that may hold the weights, best
    first. prefix: before every key in files that hold a larger model. ignore: beginnings of keys
    that belong to something else, such as the body model. tensorflow: keys are variable names,
    with slashes. form_of: name of the network that this one is another form of, with the same
    weights. gmacs: multiply-adds of one input of `input.shape`, billions, as measured on the
    original. probe: inputs to every output that a parity fixture knows.
    """

    name: str
    build: Callable[[], nn.Module]
    input: ImageInput | KeypointInput | FeatureInput
    outputs: tuple[str, ...]
    skeleton: str
    unit: str
    licence: str
    parameters: int
    gmacs: float | None = None
    wrappers: tuple[str, ...] = ("state_dict",)
    prefix: str = ""
    ignore: tuple[str, ...] = ()
    tensorflow: bool = False
    form_of: str | None = None
    probe: Callable[[Any, Tensor], dict[str, Tensor]] | None = None

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Key -> shape of every weight and buffer, as in the official file."""
        with torch.device("meta"):
            state = self.build().state_dict()
        return {self.official_key(key): tuple(value.shape) for key, value in state.items()}

    def official_key(self, key: str) -> str:
        return key.replace(".", "/") if self.tensorflow else key

    def module_key(self, key: str) -> str:
        return key.replace("/", ".") if self.tensorflow else key

    def with_weights(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network, ready to evaluate, on the very tensors of `state` (official key -> value).

        Raises: RuntimeError when keys or shapes are not those of `shapes`.
        """
        with torch.device("meta"):
            network = self.build()
        own = {self.module_key(key): value for key, value in state.items()}
        network.load_state_dict(own, assign=True)
        return network.eval()

    def run(self, network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        """Everything a parity fixture may ask for, by name."""
        if self.probe is not None:
            return self.probe(network, inputs)
        result = network(inputs)
        values = (result,) if isinstance(result, Tensor) else result
        return dict(zip(self.outputs, values, strict=True))


@contextmanager
def recorded(network: nn.Module, **paths: str) -> Iterator[dict[str, Any]]:
    """Within the block, what the submodules at `paths` last gave, by the names chosen for them."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: seen.update({name: output})

    hooks = [
        network.get_submodule(path).register_forward_hook(keep(name))
        for name, path in paths.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
