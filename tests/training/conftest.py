"""Fixtures of the training room's tests."""

import numpy as np
import pytest
import torch
from seeded_body import person

from pchmr.bodies import Body, body_from_arrays
from pchmr_training.smpl import SmplLayer


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def body() -> Body:
    return body_from_arrays({**person(), "posedirs": np.zeros((300, 3, 0))})


@pytest.fixture(scope="session")
def layer(body: Body) -> SmplLayer:
    return SmplLayer(body, torch.float64)
