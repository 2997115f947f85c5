"""A pipeline held the wrong way says so."""

from collections.abc import Callable
from inspect import signature
from threading import Event

import numpy as np
import pytest

from pchmr import Pipeline
from pchmr.checks import checked_frame, checked_threads
from pchmr_engines.bundle import Bundle
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


def test_a_frame_after_the_end(load_open: Callable[..., Pipeline]) -> None:
    pipe = load_open("mesh-only")
    pipe.close()
    with pytest.raises(InputError, match="the pipeline is closed"):
        pipe.submit(IMAGE)


def test_options_out_of_range_or_of_another_type(
    load_open: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="max_people is 65; expected 1 to 64"):
        load_open(max_people=65)
    with pytest.raises(InputError, match=r"camera is a dict; expected a Camera: Camera\(fx"):
        load_open(camera={"fx": 500.0})
    monkeypatch.setattr("pchmr.checks.usable_cpus", lambda: 3)
    with pytest.warns(UserWarning, match="threads is 99, and this process may use 3 CPUs: 3 it is"):
        assert checked_threads(99) == 3
    assert (checked_threads(None), checked_threads(2)) == (3, 2)


def test_a_frame_is_copied_once_or_not_at_all() -> None:
    """Turned, mirrored, or RGB read as BGR: the copy is not left to every crop."""
    frame = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    for turned in (frame[::-1], frame[:, ::-1], frame[..., ::-1], frame.swapaxes(0, 1)):
        checked = checked_frame(turned)
        np.testing.assert_array_equal(checked, turned)
        assert checked.flags.c_contiguous
    for part in (frame, frame[8:40, 16:48], frame[::2]):
        assert checked_frame(part) is part


def test_load_takes_every_option_and_hands_it_on(
    open_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = signature(Pipeline).parameters
    options = {name: each for name, each in own.items() if each.kind is each.KEYWORD_ONLY}
    taken = dict(signature(Pipeline.load).parameters)
    assert {name: taken.get(name) for name in options} == options
    assert taken.keys() - options.keys() == {"bundle", "topology", "trust"}
    given = {name: object() for name in options}
    seen: dict[str, object] = {}
    monkeypatch.setattr(Pipeline, "__init__", lambda self, *_, **found: seen.update(found))
    Pipeline.load(open_bundle, **given)
    assert seen == given
