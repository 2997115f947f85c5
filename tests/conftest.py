"""Fixtures every room shares. An asset that cannot be fetched fails its tests, with the reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr import assets as pinned
from pchmr_engines.bundle import Bundle

CPU = pytest.param("cpu", id="cpu")
CUDA = pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)
devices = [CPU, CUDA]


@pytest.fixture(scope="session")
def assets() -> Callable[[str], Path]:
    """`assets(name)`: the path of a pinned file, fetched into the user's cache or PCHMR_CACHE."""
    return pinned.fetch


@pytest.fixture(scope="session")
def open_bundle() -> Bundle:
    """The bundle `open`, built into the cache (half a minute) where it is not there yet."""
    return Bundle.load("open")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def demo_frames(assets: Callable[[str], Path]) -> list[NDArray[np.uint8]]:
    """Every 46th frame of the demo video: 5 x (994, 1768, 3) BGR, a woman walking outdoors."""
    import av

    with av.open(str(assets("demo_video"))) as video:
        return [
            frame.to_ndarray(format="bgr24")
            for number, frame in enumerate(video.decode(video=0))
            if number % 46 == 23
        ]


@pytest.fixture(scope="session")
def astronaut(assets: Callable[[str], Path]) -> NDArray[np.uint8]:
    """(512, 512, 3) BGR: Eileen Collins, the upper half of a body."""
    import cv2

    image = cv2.imread(str(assets("astronaut")))
    assert image is not None
    return image


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes: a file's tests share one, and so do all that export stages."""
    for item in items:
        exports = "work" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("stages" if exports else item.path.name))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        cupy = pytest.importorskip("cupy", reason="not tested: the CUDA device (no cupy)")
        if not cupy.cuda.is_available():
            pytest.skip("not tested: the CUDA device (no GPU here)")
