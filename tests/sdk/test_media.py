"""Videos, streams and cameras, sound and damaged, and the thread that decodes them."""

import random
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pictures_made_up import (
    BLUE,
    GREEN,
    RED,
    SIZE,
    WHITE,
    corners,
    make_video,
    photo_with_exif,
    quadrants,
)
from waiting import wait_until

from pchmr.media import open_source, write_photo
from pchmr.readers import Frame, Reader, VideoReader
from pchmr.sources import Source
from pchmr_engines.errors import InputError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "walk.mp4")


def test_video(video: Path) -> None:
    with open_source(str(video)) as source:
        frames = list(source)
    assert (source.kind, source.fps, source.size, source.count) == ("video", 25.0, SIZE, 12)
    assert (source.warnings, source.skipped, source.dropped) == ([], 0, 0)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.t_ns for frame in frames] == [index * 40_000_000 for index in range(12)]
    assert frames[0].image.dtype == np.uint8
    np.testing.assert_allclose(corners(frames[-1].image), [RED, GREEN, BLUE, WHITE], atol=12)


@pytest.mark.parametrize("range_name", ["tv", "pc"])
def test_video_colours_by_its_own_range(tmp_path: Path, range_name: str) -> None:
    """Mid grey stays mid grey whether the file says limited or full range."""
    path = tmp_path / "grey.mp4"
    full = range_name == "pc"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.color_range = 2 if full else 1
        planes = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
        planes[: SIZE[1]] = 60
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    with open_source(path) as source:
        (frame,) = source
    expected = 60 if full else (60 - 16) * 255 / 219
    np.testing.assert_allclose(frame.image.mean(), expected, atol=1.5)


def test_video_of_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [500, 540, 700, 710, 1200]
    path = make_video(tmp_path / "vfr.mkv", 5, ticks)
    with open_source(path) as source:
        assert [frame.t_ns // 10**6 for frame in source] == [0, 40, 200, 210, 700]


def test_video_that_states_an_absurd_rate(tmp_path: Path) -> None:
    path = make_video(tmp_path / "ticks.mkv", 5, [0, 1, 2, 3, 4], rate=1000)
    with open_source(path) as source:
        assert source.fps == 30.0
        assert [frame.t_ns // 10**6 for frame in source] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        pytest.param((0, 1, -1, 0), [BLUE, RED, WHITE, GREEN], id="a quarter clockwise"),
        pytest.param((0, -1, 1, 0), [GREEN, WHITE, RED, BLUE], id="a quarter the other way"),
        pytest.param((-1, 0, 0, -1), [WHITE, BLUE, GREEN, RED], id="a half"),
        pytest.param((-1, 0, 0, 1), [GREEN, RED, WHITE, BLUE], id="mirrored, as a selfie"),
        pytest.param((1, 0, 0, -1), [BLUE, WHITE, RED, GREEN], id="upside down"),
        pytest.param((0, 1, 1, 0), [RED, BLUE, GREEN, WHITE], id="a quarter and mirrored"),
    ],
)
def test_video_turned_by_its_metadata(video: Path, turn, expected) -> None:
    """The phone's way of saying how it was held."""
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: flags, times, ids, layer, volume first
    a, b, c, d = (number << 16 for number in turn)
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(data)
    with open_source(video) as source:
        frame = next(source)
    width, height = SIZE if turn[0] else SIZE[::-1]
    assert source.size == (width, height)
    assert frame.image.shape == (height, width, 3)
    np.testing.assert_allclose(corners(frame.image), expected, atol=12)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        pytest.param(1, quadrants(), id="upright"),
        pytest.param(3, cv2.rotate(quadrants(), cv2.ROTATE_180), id="a half"),
        pytest.param(6, cv2.rotate(quadrants(), cv2.ROTATE_90_COUNTERCLOCKWISE), id="clockwise"),
        pytest.param(8, cv2.rotate(quadrants(), cv2.ROTATE_90_CLOCKWISE), id="the other way"),
    ],
)
def test_motion_jpeg_with_exif(orientation: int, stored: np.ndarray, tmp_path: Path) -> None:
    """As photo cameras record it."""
    photos, path = tmp_path / "photos.mjpeg", tmp_path / "walk.avi"
    photos.write_bytes(photo_with_exif(".jpg", stored, orientation) * 3)
    with av.open(str(photos), format="mjpeg") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            packet.stream = stream
            target.mux(packet)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == 3
    for frame in frames:
        np.testing.assert_allclose(corners(frame.image), [RED, GREEN, BLUE, WHITE], atol=12)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the files of the test's folder are served by HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_address_of_a_photo_is_no_stream(address: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.webp"):
        write_photo(tmp_path / name, quadrants())
        with pytest.raises(InputError, match=rf"{name} is a photo; .*: download it"):
            open_source(f"{address}/{name}")
    with pytest.raises(InputError, match=r"a\.jpg\?size=1 is a photo"):
        open_source(f"{address}/a.jpg?size=1")
    (tmp_path / "camera").write_bytes((tmp_path / "a.jpg").read_bytes() * 3)
    with open_source(f"{address}/camera") as source:
        assert len(list(source)) == 3
    make_video(tmp_path / "walk.mp4")
    with open_source(f"{address}/walk.mp4") as source:
        assert len(list(source)) == 12


def test_video_cut_short_yields_what_decodes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "cut.mp4", movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - (len(data) - data.index(b"mdat")) // 2])
    with open_source(path) as source:
        frames = list(source)
    assert 1 <= len(frames) < 12
    assert source.count == 12
    assert "cut short or damaged" in source.incomplete


def test_video_damaged_in_the_middle_keeps_the_rest(tmp_path: Path) -> None:
    path = make_video(tmp_path / "hit.mp4", movflags="faststart")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) >= 4
    assert source.warnings


def test_vp9_damaged_in_the_middle_keeps_the_rest(assets, tmp_path: Path) -> None:
    """Alone, a thread of FFmpeg's decoder took nothing more after this damage."""
    data = bytearray(assets("demo_video").read_bytes())
    start = data.index(b"mdat")
    for place in random.Random(2).choices(range(start, len(data)), k=60):
        data[place] ^= 0x55
    path = tmp_path / "hit.mp4"
    path.write_bytes(data)
    with open_source(path) as source:
        times = [frame.t_ns for frame in source]
    assert len(times) > 200  # of 230
    assert times == sorted(set(times))
    assert "damaged packet skipped" in source.warnings[0]
    assert not source.incomplete


def test_video_cut_before_its_index(video: Path) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(InputError, match=r"no index \(moov\) .* cut short"):
        open_source(video)


def test_video_that_breaks_off_before_a_frame(video: Path, monkeypatch) -> None:
    """As over HTTP, from a server that cannot go back to the pictures before the index."""

    def broken(reader: VideoReader):
        reader.incomplete = "could not be read further (Input/output error)"
        yield from ()

    monkeypatch.setattr(VideoReader, "_pictures", broken)
    with pytest.raises(InputError, match=r"decodes \(could not .*\); expected a video: .*download"):
        open_source(video)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); expected"),
        (b"<!DOCTYPE html>\n<html>", "text that begins with '<!DOCTYPE html>'; expected a photo"),
        (b"\0\1\2\3" * 100, "convert it to MP4|holds no index"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf", "is a HEIC photo; .*: convert it to JPEG"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "walk.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_source(path)


def test_file_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InputError, match="no video stream"):
        open_source(path)


def test_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name is empty; .*\(\. is this folder\)"):
        open_source("")
    with pytest.raises(InputError, match="no such file; expected a photo, video, folder"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="no such file"):
        open_source("x" * 300)
    with pytest.raises(InputError, match="camera 97 gives no picture"):
        open_source(97)
    with pytest.raises(InputError, match=r"rtsp://127\.0\.0\.1:9/x: .*check the address"):
        open_source("rtsp://127.0.0.1:9/x")


def test_camera(monkeypatch) -> None:
    class Capture:
        def __init__(self, device: int | str) -> None:
            self.left = 4

        def grab(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def retrieve(self):
            return True, quadrants()

        def read(self):
            return self.grab(), quadrants()

        def get(self, prop: int) -> float:
            return 15.0

        def release(self) -> None:
            self.left = 0

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    for spec in (0, "0", "/dev/video0", "/dev/null"):
        with open_source(spec, latest=False) as source:
            frames = list(source)
        assert (source.kind, source.live, source.fps, source.size) == ("camera", True, 15.0, SIZE)
        assert [frame.index for frame in frames] == [0, 1, 2]
        assert frames[0].t_ns <= frames[1].t_ns <= frames[2].t_ns
        assert all(0 < frame.captured_ns <= frame.received_ns for frame in frames)
        assert source.warnings == ["camera stopped after 3 frames"]


# The decoding thread


class Numbered(Reader):
    kind, size = "test", SIZE

    def __init__(self, count: int, error: Exception | None = None) -> None:
        super().__init__()
        self.count, self.error, self.read, self.closed = count, error, 0, False

    def __iter__(self):
        for index in range(self.count):
            self.read = index + 1
            yield Frame(index, 0, quadrants())
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


def test_decodes_ahead_by_no_more_than_asked() -> None:
    reader = Numbered(100)
    with Source(reader, ahead=3) as source:
        wait_until(lambda: reader.read == 4)  # three wait, the fourth is in the reader's hand
        time.sleep(0.05)
        assert reader.read == 4
        assert [frame.index for frame in source] == list(range(100))
        assert source.dropped == 0
    assert reader.closed


def test_latest_drops_the_oldest_and_counts() -> None:
    reader = Numbered(50)
    with Source(reader, latest=True, ahead=3) as source:
        wait_until(lambda: reader.closed)
        assert [frame.index for frame in source] == [47, 48, 49]
        assert source.dropped == 47
        assert source.warnings == ["47 frames dropped to keep up"]


def test_an_error_in_the_thread_reaches_the_consumer_after_the_frames_done() -> None:
    source = Source(Numbered(2, error=RuntimeError("broke")))
    assert [next(source).index, next(source).index] == [0, 1]
    with pytest.raises(RuntimeError, match="broke"):
        next(source)
    assert list(source) == []


def test_an_error_while_the_input_is_released_reaches_the_consumer(monkeypatch) -> None:
    monkeypatch.setattr(Numbered, "close", lambda reader: 1 / 0)
    source = Source(Numbered(1))
    assert next(source).index == 0
    with pytest.raises(ZeroDivisionError):
        next(source)


def test_close_in_mid_video_ends_thread_and_iteration(video: Path) -> None:
    source = open_source(video, ahead=1)
    next(source)
    source.close()
    assert list(source) == []
    assert not source._thread.is_alive()
