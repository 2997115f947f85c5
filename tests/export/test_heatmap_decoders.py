"""Decoders of 2D networks as torch operators: what the runtime's own give."""

import cv2
import numpy as np
import pytest
import torch

from pchmr.prepost import Crop
from pchmr.stages.pose2d import DECODERS
from pchmr_export.heatmap_decoders import TORCH_DECODERS

CROP = Crop(np.zeros((0, 0, 3), np.uint8), np.eye(2, 3))


def heat_maps() -> np.ndarray:
    """(4, 17, 64, 48): hills, a person with peaks on the edge, one upside down; empty maps."""
    noise = np.random.default_rng(0).normal(size=(4, 17, 64, 48))
    maps = np.array([[cv2.GaussianBlur(m, (0, 0), 2) for m in person] for person in noise])
    maps[1, 0], maps[1, 1] = 0, -1
    maps[2, :, 1:] = 0
    maps[3] *= -1
    return 2000 * maps.astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["hrnet", "cpn"])
def test_heat_maps(name: str, dtype: torch.dtype) -> None:
    maps = heat_maps()
    found = TORCH_DECODERS[name](torch.from_numpy(maps).to(dtype))
    expected = np.stack([DECODERS[name](person, CROP) for person in maps])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)
    assert np.ptp(expected[0, :, 0]) > 50


def test_every_decoder_of_the_runtime_is_known() -> None:
    assert TORCH_DECODERS.keys() == DECODERS.keys()
    points = torch.rand(2, 17, 3)
    torch.testing.assert_close(TORCH_DECODERS["keypoints"](points), points)
