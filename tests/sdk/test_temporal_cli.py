"""Temporal bundles through the command line, on footage where people come, go and are lost.

Their networks are late by frames and give what they would give at once without: every row of a run
must be that of the same bundle without delay, frame by frame.
"""

from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Outcome, count_frames, read_npz, write_video
from crop_stages import pose2d
from numpy.typing import NDArray
from temporal_graphs import GENERATOR_LATE, LIFTER_LATE, encoder, generator, lifter
from test_pipeline_crops import with_people

from pchmr import Person, Pipeline
from pchmr.cuts import CutDetector
from pchmr.live import Figures, LiveSession, Result, Topologies, open_live
from pchmr.media import open_source
from pchmr_engines.bundle import Bundle

Command = Callable[..., Outcome]
Expect = Callable[[str], list[list[Person]]]
FIELDS = ("vertices", "joints", "target_joints", "keypoints_2d", "bbox")
OPTIONS = (
    "--people",
    2,
    "--detector-stride",
    5,
    "--no-smooth",
    "--backend",
    "onnxruntime",
    "--threads",
    1,
)
CUT = 51  # the frame of the clip that shows another scene

pytestmark = pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")


@pytest.fixture(scope="module")
def clip(
    assets: Callable[[str], Path],
    astronaut: NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """63 frames: a man, hidden for five, and a woman; later, who leaves; another scene."""
    size, frames = (884, 497), []
    with open_source(assets("demo_video")) as source:
        for frame in source:
            if 45 <= frame.index < 75 or 194 <= frame.index < 215:
                frames.append(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
    for frame in frames[6:11]:
        frame[10:260, 200:430] = 128
    other = cv2.resize(astronaut, (497, 497))
    frames += [np.hstack([other, np.zeros((497, 387, 3), np.uint8)])] * 12
    return write_video(tmp_path_factory.mktemp("clip") / "people.mp4", frames)


@pytest.fixture(scope="module")
def bundles(open_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """`plain`, and `late`: its generator by three frames, its lifter by two."""
    made = {}
    for name, by in (("plain", (0, 0)), ("late", (GENERATOR_LATE, LIFTER_LATE))):
        folder = tmp_path_factory.mktemp(name)
        stages = encoder(), generator(by[0]), pose2d(), lifter(by[1])
        made[name] = with_people(folder, open_bundle, *stages)
    return made


@pytest.fixture(scope="module")
def expect(bundles: dict[str, Bundle], clip: Path, load_open: Callable[..., Pipeline]) -> Expect:
    """`expect(topology)`: the people of each frame, without delay."""

    @cache
    def run(topology: str) -> list[list[Person]]:
        cuts, found = CutDetector(), []
        pipe = load_open(topology, bundle=bundles["plain"], max_people=2, detector_stride=5)
        with open_source(clip) as source:
            for frame in source:
                if cuts(frame.image):
                    pipe.reset()
                found.append(pipe(frame.image, frame.t_ns))
        return found

    return run


@pytest.fixture
def late(bundles: dict[str, Bundle], command: Command, tmp_path: Path) -> Command:
    """`late(verb, ...)`: a command with the bundle that is late, into the test's folder."""

    def run(*asked: object) -> Outcome:
        done = command(*asked, "-o", tmp_path, "--bundle", bundles["late"].root, *OPTIONS)
        assert done.code == 0, done.err
        return done

    return run


def check_rows(stored: dict[str, NDArray], expected: list[list[Person]]) -> None:
    rows = [(frame, person) for frame, people in enumerate(expected) for person in people]
    assert stored["frames"] == len(expected)
    assert stored["frame"].tolist() == [frame for frame, _ in rows]
    assert stored["track_id"].tolist() == [person.track_id for _, person in rows]
    assert stored["t_ns"].tolist() == [person.t_ns for _, person in rows]
    for name in FIELDS:
        wanted = np.stack([getattr(person, name) for _, person in rows])
        np.testing.assert_allclose(stored[name], wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_footage_is_what_it_is_for(expect: Expect) -> None:
    people = [{person.track_id for person in frame} for frame in expect("serial")]
    (one,) = people[8]
    assert len(people[5]) == 2
    assert people[5] > {one}  # the man is hidden and lost, the woman stays
    assert len(people[20]) == 2
    assert people[20] & people[5] == {one}  # he is back: another track
    assert people[44] < people[31]  # somebody left
    assert people[CUT]
    assert not people[CUT] & people[CUT - 1]


@pytest.mark.parametrize("topology", ["serial", pytest.param("parallel", marks=pytest.mark.slow)])
def test_a_run(topology: str, clip: Path, expect: Expect, late: Command, tmp_path: Path) -> None:
    late("run", clip, "--topology", topology)
    check_rows(read_npz(tmp_path / "people.npz"), expect(topology))
    assert count_frames(tmp_path / "people.mp4") == len(expect(topology)) == 63


def test_live_with_every_frame(clip: Path, expect: Expect, late: Command, tmp_path: Path) -> None:
    """The camera's frames are those of the file, its times too; what is owed comes at the end."""
    done = late("webcam", clip, "--no-draw", "--every-frame", "--topology", "serial")
    assert done.out.startswith("63 frames, ")
    check_rows(read_npz(tmp_path / "people.npz"), expect("serial"))
    assert count_frames(tmp_path / "people.mp4") == 63


def test_a_run_that_stops_early_owes_nothing(
    clip: Path, expect: Expect, late: Command, tmp_path: Path
) -> None:
    late("run", clip, "--topology", "serial", "--frames", 4)
    check_rows(read_npz(tmp_path / "people.npz"), expect("serial")[:4])


def test_the_demo(
    clip: Path, expect: Expect, late: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both topologies are drawn on the frames that their people are in, however late these are."""
    with open_source(clip) as source:
        images = [frame.image for frame in islice(source, 9)]
    short = write_video(tmp_path / "short.mp4", images)
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: short)
    late("demo")
    stored = read_npz(tmp_path / "meshes.npz")
    expected = [frame for frame, people in enumerate(expect("serial")[:9]) for _ in people]
    assert stored["serial_frame"].tolist() == stored["parallel_frame"].tolist() == expected
    assert count_frames(tmp_path / "demo.mp4") == 9


def test_another_topology_in_the_middle(
    bundles: dict[str, Bundle], clip: Path, expect: Expect
) -> None:
    """Nobody and no frame is lost between the delays of two topologies, and everybody keeps their
    id; the lifter's window begins anew, the generator's mesh is as late but the same."""
    options = {"max_people": 2, "detector_stride": 5, "backend": "onnxruntime", "threads": 1}
    log: list[Result] = []
    with (
        open_live(clip, every_frame=True) as source,
        Topologies(bundles["late"], "serial", **options) as topologies,
        LiveSession(source, topologies, frames=45) as session,
    ):
        topologies.ask("parallel")  # loaded, and back again: each is there at once from now on
        topologies._loading.join(60)
        topologies.ask("serial")

        def put(result: Result) -> None:
            log.append(result)
            if len(log) in (20, 33):
                topologies.ask("parallel" if len(log) == 20 else "serial")

        session.results.put = put
        session.run(Figures())
    assert [result.frame.index for result in log] == list(range(45))
    changes = [i for i in range(1, 45) if log[i].topology != log[i - 1].topology]
    assert len(changes) == 2
    for result, people in zip(log, expect("serial"), strict=False):
        assert [x.track_id for x in result.people] == [x.track_id for x in people]
        for one, other in zip(result.people, people, strict=True):
            same = {"rtol": 1e-4, "atol": 1e-4}
            np.testing.assert_allclose(one.keypoints_2d, other.keypoints_2d, **same)
            if result.frame.index not in near(changes):
                np.testing.assert_allclose(one.generator_vertices, other.generator_vertices, **same)


def near(changes: list[int]) -> set[int]:
    """Frames whose networks had another's frames, or zeros, in their memory."""
    return {change + i for change in changes for i in range(-GENERATOR_LATE, GENERATOR_LATE)}
