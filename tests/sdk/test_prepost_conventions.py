"""Every network that takes an image states a crop rule and a normalisation the runtime has."""

import numpy as np
import pytest

from pchmr.prepost import CROPS, network_input

pytest.importorskip("torch", reason="not tested: the networks' own conventions (no torch)")
from pchmr_training.networks import NETWORKS, ImageInput

IMAGES = sorted(name for name, spec in NETWORKS.items() if isinstance(spec.input, ImageInput))


@pytest.mark.parametrize("name", IMAGES)
def test_the_input_of_a_network_is_made_from_its_description(name: str) -> None:
    convention = NETWORKS[name].input
    assert isinstance(convention, ImageInput)
    assert convention.crop in CROPS
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    values, crop = network_input(image, (120.5, 30.5, 260.5, 280.5), convention)
    assert values.shape == convention.shape
    assert values.dtype == np.float32
    assert crop.pixels.shape == (*convention.size, 3)
    black = (convention.value_range[0] - np.array(convention.mean)) / convention.std
    white = (convention.value_range[1] - np.array(convention.mean)) / convention.std
    assert values.min() >= black.min() - 1e-4
    assert values.max() <= white.max() + 1e-2
