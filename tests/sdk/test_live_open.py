"""Live input as it is opened: files, cameras, streams over a real connection, GStreamer."""

import io
import shutil
import socket
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from command_line import write_video
from numpy.typing import NDArray

from pchmr.live import open_live
from pchmr_engines.errors import InputError

MS = 1_000_000
PICTURE: NDArray[np.uint8] = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    pictures = [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(5)]
    return write_video(tmp_path / "walk.mp4", pictures, fps=100)


def test_every_frame_of_a_file(video: Path) -> None:
    with open_live(video, every_frame=True) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert (source.latest, source.dropped, source.size, source.fps) == (False, 0, (64, 48), 100)
    for frame in frames:
        assert frame.captured_ns <= frame.received_ns
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [10 * MS] * 4


def test_a_file_that_begins_again_is_the_same(video: Path) -> None:
    with open_live(video, every_frame=True, loop=True) as source:
        frames = [frame for frame, _ in zip(source, range(15), strict=False)]
    assert [frame.t_ns // MS for frame in frames] == list(range(0, 150, 10))
    for first, second, third in zip(frames[:5], frames[5:10], frames[10:], strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.image, third.image)


def test_the_newest_frame_wins(video: Path) -> None:
    """After the first, nobody asks before the file has ended: all but the last are dropped."""
    with open_live(video) as source:
        taken = [next(source)]
        source._thread.join(30)
        taken += source
    assert taken[-1].index == 4
    assert len(taken) <= 2
    assert len(taken) + source.dropped == 5


def test_nothing_is_read_before_it_is_asked_for(video: Path) -> None:
    source = open_live(video)
    assert not source._thread.is_alive()
    source.close()
    assert list(source) == []


def test_photos_are_no_cameras(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "me.png"), PICTURE)
    for path, kind in ((tmp_path / "me.png", "photo"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=f"is a {kind}; expected a camera.*pchmr run"):
            open_live(path)


def test_a_camera_of_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unplugged after two frames, away at the first attempt, then there again."""

    class Capture:
        opened = 0

        def __init__(self, device: int | str) -> None:
            Capture.opened += 1
            self.left = (3, 0, 10**6)[Capture.opened - 1]  # the first is spent on opening

        def grab(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
            return True, PICTURE

        def read(self) -> tuple[bool, NDArray[np.uint8]]:
            return self.grab(), PICTURE

        def get(self, prop: int) -> float:
            return 30.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr("pchmr.live.capture.DELAYS_S", (0.0,))
    with open_live(0, every_frame=True) as source:
        frames = [frame for frame, _ in zip(source, range(4), strict=False)]
    assert (source.kind, source.live) == ("camera", True)
    assert [frame.cut for frame in frames] == [False, False, True, False]
    assert source.notes == ["camera stopped after 2 frames", "camera was lost and came back"]


def as_stream(value: int) -> bytes:
    """30 grey pictures as an MPEG stream."""
    data = io.BytesIO()
    with av.open(data, "w", format="mpegts") as target:
        stream = target.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.full((48, 64, 3), value, np.uint8)
        for _ in range(30):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        target.mux(stream.encode(None))
    return data.getvalue()


def test_a_stream_that_is_cut_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real connection: the server hangs up after 30 frames, and then sends 30 others."""
    monkeypatch.setattr("pchmr.live.capture.DELAYS_S", (0.05,))

    def serve() -> None:
        for value in (60, 200):
            connection, _ = server.accept()
            with connection:
                connection.sendall(as_stream(value))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with open_live(f"tcp://127.0.0.1:{server.getsockname()[1]}", every_frame=True) as source:
            frames = [frame for frame, _ in zip(source, range(55), strict=False)]
        thread.join(60)
    assert (source.kind, source.live, source.size) == ("stream", True, (64, 48))
    (cut,) = (frame.index for frame in frames if frame.cut)
    assert 25 <= cut <= 30
    assert [frame.index for frame in frames] == list(range(55))
    assert all(abs(frame.image.mean() - 60) < 5 for frame in frames[:cut])
    assert all(abs(frame.image.mean() - 200) < 5 for frame in frames[cut:])
    assert (np.diff([frame.t_ns for frame in frames]) > 0).all()
    assert source.notes == ["stream was lost and came back"]


# GStreamer

gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="not tested: GStreamer (gst-launch-1.0 missing)"
)


@gstreamer
@pytest.mark.parametrize("width", [64, 66, 67])
def test_a_gstreamer_pipeline(width: int) -> None:
    caps = f"video/x-raw,width={width},height=48,framerate=30/1"
    with open_live(f"videotestsrc pattern=red is-live=true ! {caps} ! appsink drop=1") as source:
        assert (source.kind, source.live, source.fps) == ("stream", True, 30.0)
        frame = next(source)
        assert frame.image.shape == (48, width, 3)
        np.testing.assert_allclose(frame.image[:, :64].mean((0, 1)), (0, 0, 255), atol=3)
        assert next(source).index > frame.index


@gstreamer
def test_a_gstreamer_pipeline_with_a_mistake() -> None:
    with pytest.raises(InputError, match=r'gives no picture .*no element "nosuchsource"'):
        open_live("nosuchsource ! fakesink")


def test_a_gstreamer_pipeline_with_an_open_quotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(InputError, match="has an open quotation: close it"):
        open_live('videotestsrc pattern="ball ! videoconvert')


def test_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"gst-launch-1\.0 is not here: install gstreamer"):
        open_live("v4l2src ! videoconvert")
