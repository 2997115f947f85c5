"""Input of any kind as one iterator of frames, decoded ahead in a thread of its own."""

import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from pchmr_engines.errors import InputError

from .closing import Closing
from .gstreamer import GStreamerReader
from .photos import is_photo
from .readers import (
    DEFAULT_FPS,
    CameraReader,
    Frame,
    PhotoReader,
    Reader,
    VideoReader,
    natural_key,
)

_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1")


class Source(Closing, Iterator[Frame]):
    """Frames of one input, in order, once. Use as a context manager, or call `close`.

    kind: "photo", "folder", "video", "stream" or "camera"; fps: nominal frames a second;
    size: (width, height) of the first frame; count: frames expected, None if unknown.
    """

    def __init__(
        self, reader: Reader, latest: bool = False, ahead: int = 3, start: bool = True
    ) -> None:
        """latest: when `ahead` frames wait, drop the oldest (for live input) and not the pace.
        start: read at once, and not only when the first frame is asked for."""
        self.kind, self.fps, self.size, self.count = (
            reader.kind,
            reader.fps,
            reader.size,
            reader.count,
        )
        self.live, self.latest = reader.live, latest
        self.dropped = 0
        self._reader, self._ahead = reader, ahead
        self._waiting: deque[Frame] = deque()
        self._change = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._decode, name="pchmr-decode", daemon=True)
        if start:
            self._thread.start()

    @property
    def warnings(self) -> list[str]:
        """What was converted, skipped, missed or dropped so far."""
        late = [f"{self.dropped} frames dropped to keep up"] if self.dropped else []
        return self.notes + late

    @property
    def notes(self) -> list[str]:
        """The warnings of the input itself; `dropped` counts what the consumer was too late for."""
        return self._reader.warnings

    @property
    def incomplete(self) -> str:
        """Why the input ended before its end, as a file that is cut short; empty if it did not."""
        return self._reader.incomplete

    @property
    def skipped(self) -> int:
        """Photos of the folder, or packets of the video, that could not be decoded so far."""
        return self._reader.skipped

    @property
    def trouble(self) -> str:
        """What the input waits for now, as a lost camera; empty while frames come."""
        return self._reader.trouble

    def __next__(self) -> Frame:
        with self._change:
            if not (self._thread.ident or self._closed):
                self._thread.start()
            while not (self._waiting or self._ended or self._closed):
                self._change.wait(1.0)  # a wait without limit cannot be interrupted on Windows
            if self._waiting and not self._closed:
                self._change.notify_all()
                return self._waiting.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
        raise StopIteration

    def close(self) -> None:
        """Stop decoding and release the input; iteration ends."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
        self._reader.stop()
        if self._thread.ident:
            self._thread.join(2.0)  # a stalled stream lets go at its own timeout
        else:
            self._reader.close()

    def _decode(self) -> None:
        try:
            with closing(self._reader) as reader:
                for frame in reader:
                    if not self._put(frame):
                        break
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        now = time.perf_counter_ns()
        frame = replace(frame, captured_ns=frame.captured_ns or now, received_ns=now)
        with self._change:
            while len(self._waiting) >= self._ahead and not (self.latest or self._closed):
                self._change.wait()
            if len(self._waiting) >= self._ahead:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(frame)
            self._change.notify_all()
            return not self._closed


def open_source(
    spec: str | int | os.PathLike[str],
    *,
    fps: float = DEFAULT_FPS,
    latest: bool | None = None,
    ahead: int = 3,
    threads: int = 1,
) -> Source:
    """Open a photo, a video, a folder of photos, a stream URL or a camera.

    spec: path, URL (rtsp://, http://, ...), camera index, device path or GStreamer pipeline
        ("v4l2src ! videoconvert"); what a file is, is read from its content.
    fps: of a folder's photos; other kinds know their own.
    latest: drop the oldest waiting frame when the consumer is late; default: for live input only.
    ahead: frames decoded ahead at most; threads: of the video decoder.
    Raises:
        InputError: nothing can be read there; the message says what came and what to do.
    """
    reader = open_reader(spec, fps, threads)
    return Source(reader, reader.live if latest is None else latest, ahead)


def open_reader(
    spec: str | int | os.PathLike[str], fps: float = DEFAULT_FPS, threads: int = 1
) -> Reader:
    """The reader of one input, opened, without a thread. Arguments and errors of `open_source`."""
    text = os.fspath(spec) if not isinstance(spec, int) else str(spec)
    if not text:
        raise InputError(
            "the input's name is empty; expected a photo, video, folder of photos, stream URL or "
            "camera index: name one (. is this folder)"
        )
    camera = re.fullmatch(r"(?:/dev/video)?(\d+)", text)
    if camera and not Path(text).is_file():
        return CameraReader(int(camera[1]))
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        return VideoReader(text, "stream", threads)
    if " ! " in text:
        return GStreamerReader(text, threads)
    path = Path(os.path.expanduser(text))
    if not os.path.exists(path):  # a name that is too long is no error here
        raise InputError(
            f"{text}: no such file; expected a photo, video, folder of photos, stream URL "
            "(rtsp://, http://) or camera index: check the path"
        )
    if stat.S_ISCHR(path.stat().st_mode):
        return CameraReader(text)
    if path.is_dir():
        return _open_folder(path, fps)
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise InputError(f"{text}: {error.strerror}; expected a readable file") from error
    if not head:
        raise InputError(f"{text} is empty (0 bytes); expected a photo or video: copy it again")
    if is_photo(path):
        return PhotoReader([path], "photo", fps)
    if head[4:12] in _HEIC:  # FFmpeg gives a phone's photo in tiles, a stream each
        raise InputError(f"{text} is a HEIC photo; expected JPEG, PNG or WebP: convert it to JPEG")
    if not any(byte < 9 for byte in head):  # FFmpeg would draw text as a video of a terminal
        start = head[:40].decode("utf-8", "replace").strip().splitlines()[0]
        raise InputError(
            f"{text} is text that begins with {start!r}; expected a photo or video "
            "(a web page saved instead of the file? download the file itself)"
        )
    return VideoReader(str(path), "video", threads)


def _open_folder(folder: Path, fps: float) -> Reader:
    names = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".jp2", ".ppm")
    skipped = (".heic", ".heif")  # and said so
    files = [path for path in folder.iterdir() if path.suffix.lower() in names + skipped]
    if not files:
        raise InputError(
            f"{folder} holds no photo ({', '.join(names)}); expected a folder of photos: "
            "name a video by its file"
        )
    return PhotoReader(sorted(files, key=natural_key), "folder", fps)
