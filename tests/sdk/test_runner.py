"""Where a run writes, and what is there when it ends, for every kind of source."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command_line import count_frames, read_npz, write_video
from numpy.typing import NDArray
from people_made_up import FACES, make_person

from pchmr.camera import Camera
from pchmr.media import Frame, Source, open_source, write_photo
from pchmr.people import Person
from pchmr.readers import Reader
from pchmr.runner import Outputs, run_source
from pchmr_engines.errors import InputError

SIZE = (64, 48)  # width, height


class FakePipeline:
    """Finds one made-up person in every frame whose middle is not black, `look_ahead` later."""

    body = SimpleNamespace(faces=FACES)
    bundle = None

    def __init__(self, look_ahead: int = 0) -> None:
        self.look_ahead, self.frames, self.resets = look_ahead, 0, 0
        self._late: list[list[Person]] = []

    def __call__(self, image: NDArray[np.uint8], t_ns: int | None = None) -> list[Person]:
        people = []
        if image[image.shape[0] // 2, image.shape[1] // 2].any():
            person = make_person(self.frames, camera=Camera.from_size(*SIZE))
            vertices = person.vertices * np.float32(0.3) + (0, 0, 3)
            people = [replace(person, vertices=vertices)]
        self.frames += 1
        self._late.append(people)
        return self._late.pop(0) if self.owed > self.look_ahead else []

    @property
    def owed(self) -> int:
        return len(self._late)

    def flush(self) -> list[list[Person]]:
        late, self._late = self._late, []
        return late

    def reset(self) -> None:
        self.resets += 1


class FakeReader(Reader):
    """Grey frames; raises `error` after them."""

    size, fps = SIZE, 25.0

    def __init__(self, kind: str, frames: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.kind, self.live, self.count = kind, kind in ("stream", "camera"), None
        self._frames, self._error = frames, error

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._frames):
            yield Frame(index, index * 40_000_000, picture())
        if self._error is not None:
            raise self._error


def picture(value: int = 120) -> NDArray[np.uint8]:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos: nobody is on the second."""
    for name, value in (("a.jpg", 120), ("b.png", 0), ("c.webp", 120)):
        write_photo(tmp_path / "photos" / name, picture(value))
    return tmp_path / "photos"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five frames: nobody is in the third."""
    return write_video(tmp_path / "walk.mp4", [picture(0 if i == 2 else 120) for i in range(5)])


def outputs_of(given: Path, out: Path, json: bool = False) -> Outputs:
    with open_source(given) as source:
        return Outputs.beside(out, source, str(given), json)


# Names


def test_outputs_in_a_folder_are_called_after_the_input(photos: Path, video: Path) -> None:
    out = Path("results.v2")
    assert outputs_of(photos / "a.jpg", out) == Outputs(out / "a.png", out / "a.npz")
    assert outputs_of(video, out, True) == Outputs(
        out / "walk.mp4", out / "walk.npz", out / "walk.json"
    )
    assert outputs_of(photos, out) == Outputs(out / "overlay", out / "photos.npz")


@pytest.mark.parametrize("kind", ["stream", "camera"])
def test_outputs_of_live_input(kind: str) -> None:
    source = Source(FakeReader(kind, 1))
    assert Outputs.beside(Path("out"), source, "rtsp://host/live", False) == Outputs(
        Path("out/live.mp4"), Path("out/live.npz")
    )


def test_the_folder_one_is_in_has_a_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert outputs_of(Path("."), Path("out")).results == Path("out/photos.npz")


def test_outputs_beside_a_named_file(photos: Path, video: Path) -> None:
    assert outputs_of(photos / "a.jpg", Path("x/y.JPG"), True) == Outputs(
        Path("x/y.JPG"), Path("x/y.npz"), Path("x/y.json")
    )
    assert outputs_of(video, Path("y.mov")).overlay == Path("y.mov")


def test_outputs_of_the_wrong_kind(photos: Path, video: Path) -> None:
    for given, out, said in (
        (photos / "a.jpg", "x.mp4", r"x\.mp4 for a photo; expected a folder or one of \['\.bmp', "),
        (video, "x.png", r"x\.png for a video; expected a folder or one of \['\.m4v', "),
        (video, "x.avi", r"x\.avi for a video; expected a folder or one of \['\.m4v', "),
        (video, "x.npz", r"x\.npz for a video"),
        (photos, "x.jpg", r"x\.jpg for a folder; expected a folder: change -o"),
    ):
        with pytest.raises(InputError, match=said):
            outputs_of(given, Path(out))


def test_a_folder_may_be_called_like_a_file(video: Path, tmp_path: Path) -> None:
    (tmp_path / "takes.mp4").mkdir()
    assert outputs_of(video, tmp_path / "takes.mp4").overlay == tmp_path / "takes.mp4" / "walk.mp4"


def test_the_input_is_never_replaced(photos: Path, video: Path, tmp_path: Path) -> None:
    for given, out in (
        (video, video),
        (video, video.parent),
        (photos / "b.png", photos),
        (photos / "b.png", photos / "b.png"),
    ):
        with pytest.raises(InputError, match="is the input: name another place with -o"):
            outputs_of(given, out)
    nested = tmp_path / "overlay"
    photos.rename(nested)
    with pytest.raises(InputError, match="is the input"):
        outputs_of(nested, tmp_path)


def test_results_of_another_input_are_never_replaced(photos: Path, tmp_path: Path) -> None:
    """Those of the same one are, of one that is called alike or nearly alike are not."""
    other = write_photo(tmp_path / "others" / "a.jpg", picture())
    bitmap = write_photo(photos / "a.bmp", picture())
    video = write_video(photos / "a.mp4", [picture()] * 2)
    out = tmp_path / "out"
    run(photos / "a.jpg", out)
    before = (out / "a.npz").read_bytes()
    for given in (other, bitmap, video):
        with pytest.raises(
            InputError, match=r"a\.npz holds the results of photos/a\.jpg: name ano"
        ):
            run(given, out)
    assert (out / "a.npz").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.npz", "a.png"]
    run(photos / "a.jpg", out)


# Runs


def run(
    given: Path, out: Path, look_ahead: int = 0, **options: object
) -> tuple[FakePipeline, Outputs, object]:
    pipeline = FakePipeline(look_ahead)
    with open_source(given) as source:
        outputs = Outputs.beside(out, source, str(given), True)
        return pipeline, outputs, run_source(source, pipeline, outputs, **options)


def test_a_photo(photos: Path, tmp_path: Path) -> None:
    pipeline, outputs, log = run(photos / "a.jpg", tmp_path / "out")
    image = cv2.imread(str(outputs.overlay))
    assert image.shape == (*SIZE[::-1], 3)
    assert (image != cv2.imread(str(photos / "a.jpg"))).any()
    assert len(read_npz(outputs.results)["vertices"]) == 1
    assert (pipeline.frames, log.frames, log.people) == (1, 1, 1)


def test_a_folder(photos: Path, tmp_path: Path) -> None:
    """Each photo stands alone: nobody is followed from one to the next."""
    pipeline, outputs, log = run(photos, tmp_path / "out")
    names = sorted(path.name for path in outputs.overlay.iterdir())
    assert names == ["a.jpg", "b.png", "c.webp"]
    assert not cv2.imread(str(outputs.overlay / "b.png")).any()
    assert read_npz(outputs.results)["frame"].tolist() == [0, 2]
    assert (pipeline.resets, log.frames_with_people) == (3, 2)


def test_photos_of_formats_that_can_only_be_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: name.endswith(".png"))
    _, outputs, _ = run(photos, tmp_path / "out")
    names = sorted(path.name for path in outputs.overlay.iterdir())
    assert names == ["a.jpg.png", "b.png", "c.webp.png"]


def test_a_video(video: Path, tmp_path: Path) -> None:
    pipeline, outputs, log = run(video, tmp_path / "out")
    assert count_frames(outputs.overlay) == 5
    stored = read_npz(outputs.results)
    assert stored["frame"].tolist() == [0, 1, 3, 4]
    assert stored["frames"] == 5
    assert (pipeline.resets, log.frames, log.frames_with_people) == (0, 5, 4)
    assert log.summary()["stages_ms"]["draw"]["p50"] > 0


@pytest.mark.parametrize("look_ahead", [1, 3, 40])
def test_late_people_are_drawn_and_stored_with_their_own_frame(
    look_ahead: int, video: Path, photos: Path, tmp_path: Path
) -> None:
    """Also where the frames are kept as JPEG meanwhile, and where each photo stands alone."""
    for given in (video, photos):
        drawn = []

        def draw(frame: Frame, people: list[Person], drawn: list = drawn) -> NDArray[np.uint8]:
            drawn.append((frame.index, bool(frame.image[24, 32].any()), len(people)))
            return frame.image

        _, outputs, log = run(given, tmp_path / "out", look_ahead, draw=draw)
        empty = 2 if given == video else 1
        frames = 5 if given == video else 3
        assert drawn == [(i, i != empty, int(i != empty)) for i in range(frames)]
        stored = read_npz(outputs.results)
        assert stored["frame"].tolist() == [i for i in range(frames) if i != empty]
        assert (log.frames, log.people) == (frames, frames - 1)


def test_an_interrupt_of_live_input_gives_what_is_owed(tmp_path: Path) -> None:
    source, outputs = source_of("camera", tmp_path, frames=9)
    with source:
        log = run_source(source, interrupt_after(4, look_ahead=2), outputs)
    assert log.frames == log.people == count_frames(outputs.overlay) == 4


def test_after_a_lost_connection_all_begins_anew(tmp_path: Path) -> None:
    class Reconnected(FakeReader):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield replace(frame, cut=frame.index == 3)

    pipeline = FakePipeline(look_ahead=2)
    with Source(Reconnected("camera", 6)) as source:
        log = run_source(source, pipeline, Outputs(tmp_path / "x.mp4", tmp_path / "x.npz"))
    assert (pipeline.resets, log.frames, log.people) == (1, 6, 6)
    assert read_npz(tmp_path / "x.npz")["frame"].tolist() == [*range(6)]


def test_a_limit(video: Path, tmp_path: Path) -> None:
    pipeline, outputs, _ = run(video, tmp_path / "out", limit=2)
    assert pipeline.frames == count_frames(outputs.overlay) == 2


def test_a_drawing_of_ones_own(photos: Path, tmp_path: Path) -> None:
    mine = picture(7)
    _, outputs, _ = run(photos / "a.jpg", tmp_path / "out", draw=lambda frame, people: mine)
    np.testing.assert_array_equal(cv2.imread(str(outputs.overlay)), mine)


def test_nobody_in_any_frame_is_an_error_after_all_is_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no person found in 1 frames.*nearer view.*b\.png"):
        run(photos / "b.png", tmp_path / "out")
    assert not cv2.imread(str(tmp_path / "out" / "b.png")).any()
    assert read_npz(tmp_path / "out" / "b.npz")["frames"] == 1


def source_of(kind: str, tmp_path: Path, **options: object) -> tuple[Source, Outputs]:
    source = Source(FakeReader(kind, **options))
    return source, Outputs(tmp_path / "x.mp4", tmp_path / "x.npz")


def interrupt_after(frames: int, look_ahead: int = 0) -> FakePipeline:
    class Interrupted(FakePipeline):
        def __call__(self, image: NDArray[np.uint8], t_ns: int | None = None) -> list[Person]:
            if self.frames == frames:
                raise KeyboardInterrupt
            return super().__call__(image, t_ns)

    return Interrupted(look_ahead)


@pytest.mark.parametrize("kind", ["stream", "camera"])
def test_an_interrupt_is_how_live_input_ends(kind: str, tmp_path: Path) -> None:
    source, outputs = source_of(kind, tmp_path, frames=9)
    with source:
        log = run_source(source, interrupt_after(4), outputs)
    assert log.frames == count_frames(outputs.overlay) == 4
    assert len(read_npz(outputs.results)["vertices"]) == 4


def test_an_interrupt_of_a_video_keeps_what_was_done(tmp_path: Path) -> None:
    source, outputs = source_of("video", tmp_path, frames=9)
    with source, pytest.raises(KeyboardInterrupt):
        run_source(source, interrupt_after(4), outputs)
    assert count_frames(outputs.overlay) == 4
    assert len(read_npz(outputs.results)["vertices"]) == 4


def test_a_bug_keeps_what_was_done(tmp_path: Path) -> None:
    source, outputs = source_of("video", tmp_path, frames=3, error=RuntimeError("a bug"))
    with source, pytest.raises(RuntimeError, match="a bug"):
        run_source(source, FakePipeline(), outputs)
    assert count_frames(outputs.overlay) == 3
    assert read_npz(outputs.results)["frames"] == 3


def test_a_place_that_cannot_be_written(video: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"taken/walk\.mp4 cannot be written"):
        run(video, tmp_path / "taken")
