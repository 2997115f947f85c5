"""A pipeline held the wrong way says so."""

from collections.abc import Callable
from threading import Event

import numpy as np
import pytest

from pchmr import Pipeline
from pchmr_engines.errors import InputError

IMAGE = np.full((48, 64, 3), 127, np.uint8)


def test_a_second_thread_is_refused(
    load_open: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, leave = Event(), Event()

    def find(image: np.ndarray) -> list:
        inside.set()
        assert leave.wait(20)
        return []

    with load_open("mesh-only") as pipe:
        monkeypatch.setattr(pipe, "_find", find)
        people = pipe.submit(IMAGE)
        assert inside.wait(20)
        with pytest.raises(InputError, match=r"another thread is in this pipeline; .*`submit`"):
            pipe(IMAGE)
        leave.set()
        assert people.result() == []
        assert pipe(IMAGE) == []


def test_after_an_error_the_pipeline_goes_on(load_open: Callable[..., Pipeline]) -> None:
    with load_open("mesh-only") as pipe:
        with pytest.raises(InputError, match="frame is NoneType"):
            pipe(None)
        assert pipe(IMAGE) == []


def test_a_name_where_a_bundle_is_expected() -> None:
    with pytest.raises(InputError, match=r"bundle is 'open'; .*: use Pipeline\.load"):
        Pipeline("open")
