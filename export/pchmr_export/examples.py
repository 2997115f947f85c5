"""What a stage is tried on, and what the framework gives for it: the arrays of its parity file."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pchmr.media import open_source
from pchmr.prepost import normalise
from pchmr.prepost.synthetic import synthetic_image
from pchmr_training.networks.seeding import seeded_input

from .blazepose import read_parity
from .stage_forms import StageForm

Arrays = dict[str, NDArray[Any]]


def form_examples(stage: str, form: StageForm) -> Arrays:
    """Two rows of everything a form takes: a crop of the demo video and a picture made up, or
    made-up joints or features."""
    seed = f"export:{stage}"
    if form.image is not None:
        return {"image": image_examples(seed, form.image.size)}
    return {
        spec.name: seeded_input(
            f"{seed}:{spec.name}",
            spec.sized(2),
            "uniform" if spec.name == "keypoints" else "normal",
        )
        for spec in form.inputs
    }


def image_examples(seed: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(2, H, W, 3) RGB: a crop of the demo video and a picture made up from `seed`."""
    return np.stack([_real_crop(size), synthetic_image(seed, size)])


def _real_crop(size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: a woman walking, in the middle of the crop; see `read_parity` for its author.

    Needs no download: it lies with the parity data of BlazePose.
    """
    square = read_parity("full")["inputs/image"][0]
    side = square.shape[0]
    height, width = (round(side * extent / max(size)) for extent in size)
    top, left = (side - height) // 2, (side - width) // 2
    part = square[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def video_frames(video: Path, first: int, count: int) -> list[NDArray[np.uint8]]:
    """Consecutive frames, (H, W, 3) BGR, from `first`, which counts from 0."""
    with open_source(video) as source:
        return [frame.image for frame in islice(source, first, first + count)]


def network_input(form: StageForm, values: NDArray[Any]) -> NDArray[Any]:
    """An input as the network itself takes it.

    An image is normalised in NumPy, so that the graph's own way is held against another.
    """
    rule = form.image
    if rule is None:
        return values
    return normalise(values, rule.mean, rule.std, rule.value_range, rule.colour, rule.layout)


def torch_outputs(
    module: nn.Module, inputs: Iterable[NDArray[Any]], names: Sequence[str]
) -> Arrays:
    """What a module gives, by the names of its outputs."""
    with torch.inference_mode():
        result = module.eval()(*(torch.from_numpy(values) for values in inputs))
    outputs = (result,) if isinstance(result, torch.Tensor) else result
    return {name: out.numpy() for name, out in zip(names, outputs, strict=True)}


def parity_arrays(inputs: Arrays, outputs: Arrays) -> Arrays:
    """`inputs/<name>` and `outputs/<name>`: what a bundle keeps so as to repeat the gates."""
    named = {"inputs": inputs, "outputs": outputs}
    return {f"{side}/{key}": value for side, part in named.items() for key, value in part.items()}
