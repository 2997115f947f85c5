"""Pipelines beside each other: shared engines, a change of topology, futures, threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr import Pipeline
from pchmr.live import Topologies
from pchmr.media import open_source
from pchmr.people import Person
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import BundleError, InputError

Image = NDArray[np.uint8]
ONE_THREAD = {"backend": "onnxruntime", "threads": 1}


def vertices_of(results: list[list[Person]]) -> list[NDArray[np.float32]]:
    return [person.vertices for people in results for person in people]


@pytest.fixture
def topologies(open_bundle: Bundle) -> Topologies:
    return Topologies(open_bundle, "parallel", **ONE_THREAD)


def test_a_topology_is_loaded_when_it_is_asked_for(topologies: Topologies) -> None:
    with topologies:
        parallel = topologies.current
        topologies.ask("serial")
        topologies._loading.join(60)
        serial = topologies.current
        assert (parallel.topology, serial.topology) == ("parallel", "serial")
        assert serial.bundle is parallel.bundle
        topologies.ask("parallel")
        assert topologies.current is parallel
        topologies.ask("serial")
        assert topologies.current is serial
        assert topologies.loading == ""


def test_the_old_topology_runs_while_the_new_one_is_loaded(
    topologies: Topologies, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    load = Pipeline.load

    def slow(*arguments: object, **options: object) -> Pipeline:
        assert go.wait(60)
        return load(*arguments, **options)

    with topologies:
        monkeypatch.setattr(Pipeline, "load", slow)
        topologies.ask("serial")
        topologies.ask("template")  # one at a time
        assert (topologies.current.topology, topologies.loading) == ("parallel", "serial")
        go.set()
        topologies._loading.join(60)
        assert (topologies.current.topology, topologies.loading) == ("serial", "")


def test_engines_are_shared(topologies: Topologies, monkeypatch: pytest.MonkeyPatch) -> None:
    """serial has no network that parallel has not: no engine is made for it."""
    with topologies:
        monkeypatch.setattr(Bundle, "engine", lambda *_, **__: pytest.fail("an engine was made"))
        topologies.ask("serial")
        topologies._loading.join(60)
        assert topologies.current.topology == "serial"


def test_a_topology_that_cannot_be_loaded(topologies: Topologies) -> None:
    """The old one stays, and the reason is told until something else is asked for."""
    with topologies:
        topologies.ask("sideways")
        topologies._loading.join(60)
        assert (topologies.current.topology, topologies.loading) == ("parallel", "")
        assert topologies.trouble.startswith("sideways cannot be loaded: topology 'sideways'")
        topologies.ask("serial")
        topologies._loading.join(60)
        assert (topologies.current.topology, topologies.trouble) == ("serial", "")


def test_a_bug_while_loading_is_shown_and_the_old_topology_stays(
    topologies: Topologies, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda error: shown.append(error.exc_value))
    with topologies:
        with monkeypatch.context() as broken:
            broken.setattr(Pipeline, "load", lambda *_, **__: 1 / 0)
            topologies.ask("serial")
            topologies._loading.join(60)
        assert [type(error) for error in shown] == [ZeroDivisionError]
        assert (topologies.current.topology, topologies.loading) == ("parallel", "")
        assert topologies.trouble == "serial cannot be loaded: division by zero"


def test_a_trusted_bundle_stays_trusted(open_bundle: Bundle) -> None:
    with Topologies(replace(open_bundle, trust=True), "mesh-only", **ONE_THREAD) as topologies:
        assert topologies.current.bundle.trust


def test_an_unknown_bundle() -> None:
    with pytest.raises(BundleError, match="nowhere does not exist"):
        Topologies("nowhere")


def test_another_topology_goes_on_with_the_same_people(
    assets: Callable[[str], Path], load_open: Callable[..., Pipeline]
) -> None:
    """Ids stay, there and back; the generator's mesh is the one of a serial pipeline all along, and
    the target turns from one topology's to the other's, where it would jump."""
    with open_source(assets("demo_video")) as source:
        images = [frame.image for frame, _ in zip(source, range(20), strict=False)]
    options = {"max_people": 2, "smooth": True}
    with (
        load_open("serial", **options) as alone,
        load_open("parallel", **options) as parallel,
        load_open("serial", **options) as serial,
        load_open("serial", **options) as anew,
    ):
        expected = [alone(image) for image in images]
        before = [parallel(image) for image in images[:9]][-1]
        first = anew(images[9])
        serial.take_over(parallel)
        after = [serial(image) for image in images[9:16]]
        parallel.take_over(serial)
        back = [parallel(image) for image in images[16:]]
    ids = {person.track_id for people in (*after, *back) for person in people}
    assert ids == {person.track_id for person in before} == {0}
    assert serial.detector_runs == parallel.detector_runs == alone.detector_runs
    assert back[-1][0].frame == 19
    for people, others in zip(expected[9:], (*after, *back), strict=True):
        for one, other in zip(people, others, strict=True):
            np.testing.assert_array_equal(one.generator_vertices, other.generator_vertices)
    jump, smoothed = (
        np.linalg.norm(_posed(now[0]) - _posed(before[0]), axis=1).mean()
        for now in (first, after[0])
    )
    assert smoothed < 0.6 * jump


def _posed(person: Person) -> NDArray[np.float32]:
    """Target joints about their root."""
    return person.target_joints - person.target_joints[0]


def test_pipelines_in_threads_give_what_they_give_alone(
    walk: list[Image], open_bundle: Bundle
) -> None:
    """Two at a time, sharing their engines, each with a topology of its own."""
    with Topologies(open_bundle, "parallel", **ONE_THREAD) as topologies:
        topologies.ask("serial")
        topologies._loading.join(60)
        pipelines = list(topologies._pipelines.values())
        alone = [vertices_of([pipeline(image) for image in walk]) for pipeline in pipelines]
        for pipeline in pipelines:
            pipeline.reset()
        with ThreadPoolExecutor(2) as pool:
            together = list(
                pool.map(
                    lambda pipeline: vertices_of([pipeline(image) for image in walk]), pipelines
                )
            )
    assert len(alone[0]) > 3
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(np.array(alone[0]) - np.array(alone[1])).max() > 1e-3


def test_submit_gives_futures(walk: list[Image], load_open: Callable[..., Pipeline]) -> None:
    """In the order of submission, from several threads too; an error is that frame's alone."""
    with load_open() as called, load_open() as submitted:
        expected = vertices_of([called(image) for image in walk])
        futures = [submitted.submit(image) for image in walk[:3]]
        wrong = submitted.submit(None)
        futures += [submitted.submit(image) for image in walk[3:]]
        np.testing.assert_array_equal(vertices_of([f.result(60) for f in futures]), expected)
        with pytest.raises(InputError, match="frame is NoneType"):
            wrong.result(60)


def test_closing_waits_for_what_was_submitted(
    walk: list[Image], load_open: Callable[..., Pipeline]
) -> None:
    pipeline = load_open()
    futures = [pipeline.submit(image) for image in walk[:2]]
    pipeline.close()
    assert all(future.done() for future in futures)
    with pytest.raises(InputError, match="closed"):
        pipeline.submit(walk[0])
