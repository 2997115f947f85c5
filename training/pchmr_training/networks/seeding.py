"""Weights and inputs that follow from their names alone: rule v1 of the parity kit.

With them two implementations of a network can be compared without any trained file.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


def generator(name: str) -> np.random.Generator:
    """The random numbers that belong to a name."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def seeded_tensor(key: str, shape: Shape) -> NDArray[np.float32] | NDArray[np.int64]:
    """The value of a state entry; `key` is the official one, TensorFlow's with slashes."""
    random, leaf = generator(key), key.replace("/", ".").rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in ("running_var", "moving_variance"):
        value = random.uniform(0.5, 1.5, shape)
    elif leaf in ("running_mean", "moving_mean", "beta") or leaf.startswith("bias"):
        value = 0.1 * random.standard_normal(shape)
    elif len(shape) < 2:
        value = random.uniform(0.25, 0.75, shape)
    else:
        value = random.standard_normal(shape) * math.sqrt(2 / _fan_in(leaf, shape))
    return np.asarray(value, np.float32)


def _fan_in(leaf: str, shape: Shape) -> int:
    if leaf == "weights":  # TensorFlow: outputs last
        return math.prod(shape[:-1])
    if leaf == "W" and len(shape) == 3:  # SemGCN: (2, inputs, outputs)
        return shape[1]
    return math.prod(shape[1:])


def seeded_state(
    shapes: Mapping[str, Shape], scale: Mapping[str, float] | None = None
) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Key -> value for key -> shape; `scale` multiplies single entries afterwards."""
    factors = scale or {}
    return {
        key: value * np.float32(factors[key]) if key in factors else value
        for key, value in ((key, seeded_tensor(key, shape)) for key, shape in shapes.items())
    }


def seeded_input(seed: str, shape: Shape, kind: str) -> NDArray[np.float32]:
    """A network's input: kind `image` (NCHW), `image_nhwc`, `uniform` in [-1, 1) or `normal`."""
    random = generator(seed)
    if kind == "image_nhwc":
        batch, height, width, channels = shape
        image = seeded_input(seed, (batch, channels, height, width), "image")
        return np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    if kind == "image":  # 8 x 8 blocks of colour, and noise
        *batch_channels, height, width = shape
        blocks = random.standard_normal((*batch_channels, 8, 8))
        rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
        value = blocks[..., rows[:, None], columns] + 0.5 * random.standard_normal(shape)
    elif kind == "uniform":
        value = random.uniform(-1, 1, shape)
    elif kind == "normal":
        value = random.standard_normal(shape)
    else:
        raise ValueError(f"input kind {kind!r}; known: image, image_nhwc, uniform, normal")
    return value.astype(np.float32)
