"""The crop rules by name, as networks and bundles state them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from ..crops import Box
from .cpn import crop_cpn
from .crops import Crop, Size, center_and_size, check_image, upright_affine, warp
from .hmr import crop_hmr
from .hmr2 import crop_hmr2
from .hrnet import crop_hrnet
from .normalise import ImageConvention, normalise
from .posenet import crop_posenet
from .spin import crop_spin

CropRule = Callable[[NDArray[np.uint8], Box, Size], Crop]


def crop_vibe(image: NDArray[np.uint8], box: Box, size: Size = (224, 224)) -> Crop:
    """VIBE's crop for its features: 1.1 times the longer side, as its demo does. By its text only:
    no output of the original was at hand."""
    check_image(image)
    center, extent = center_and_size(box)
    return warp(image, upright_affine(center, 1.1 * max(extent), size), size)


CROPS: Mapping[str, CropRule] = MappingProxyType(
    {
        "cpn": crop_cpn,
        "hmr2": crop_hmr2,
        "hmr_tf": crop_hmr,
        "hrnet": crop_hrnet,
        "posenet": crop_posenet,
        "spin": crop_spin,
        "vibe": crop_vibe,
    }
)
"""Name -> (image (H, W, 3) uint8 BGR, tight box (x0, y0, x1, y1) px, (height, width)) -> crop."""


def crop_person(image: NDArray[np.uint8], box: Box, rule: str, size: Size) -> Crop:
    """A person's crop by a rule of `CROPS`.

    Raises: InputError for an unknown rule, a box without area, an image that is not uint8 BGR.
    """
    if rule not in CROPS:
        raise InputError(f"no crop rule is called {rule!r}; known: {', '.join(CROPS)}")
    return CROPS[rule](image, box, size)


def network_input(
    image: NDArray[np.uint8], box: Box, convention: ImageConvention
) -> tuple[NDArray[np.float32], Crop]:
    """What a network takes of one person, a batch of one, and the crop to go back by.

    image: (H, W, 3) uint8 BGR. convention: size, crop rule and normalisation of the network.
    """
    crop = crop_person(image, box, convention.crop, convention.size)
    values = normalise(
        crop.pixels,
        convention.mean,
        convention.std,
        convention.value_range,
        convention.colour,
        convention.layout,
    )
    return values[None], crop
