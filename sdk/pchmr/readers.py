"""One reader for each kind of input: photos, a video or stream, a camera.

A reader knows its `kind`, `fps`, `size` (width, height), `count` (None if unknown) and whether it
is `live`, yields frames once, and notes in `warnings` what it converted, skipped or missed, and in
`incomplete` why it ended before its end.
"""

import glob
import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import av.error
import cv2
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from pchmr_engines.errors import InputError

from .photos import Image, read_photo

DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """One picture of the input.

    index: 0, 1, ... as delivered by the input; t_ns: its time since the first, nanoseconds;
    image: (H, W, 3) uint8, BGR, upright; path: its file, for photos and folders.
    captured_ns, received_ns: `time.perf_counter_ns` when the camera's driver handed it over or its
    packet was read, and when it was decoded. cut: it does not follow the frame before, as after a
    lost connection.
    """

    index: int
    t_ns: int
    image: Image
    path: Path | None = None
    captured_ns: int = 0
    received_ns: int = 0
    cut: bool = False


class Reader:
    """What the readers share. Iterate once; `close` after, from the same thread."""

    kind: str
    live = False
    fps = DEFAULT_FPS
    size: tuple[int, int]
    count: int | None = None
    skipped = 0
    incomplete = ""
    trouble = ""
    """What it waits for now, as a lost camera; empty while frames come."""

    def __init__(self) -> None:
        self._notes: Counter[str] = Counter()

    @property
    def warnings(self) -> list[str]:
        """What was converted, skipped or missed so far, each with how often."""
        return [note if n == 1 else f"{note} ({n} times)" for note, n in self._notes.items()]

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def rewind(self) -> None:
        """Iterate once more, from the beginning. Raises: InputError where that cannot be."""
        raise InputError(f"a {self.kind} cannot begin again: leave out --loop")

    def stop(self) -> None:
        """Ask the iteration to end soon; may be called from any thread."""

    def close(self) -> None:
        """Release the file or device."""


class PhotoReader(Reader):
    """A photo, or the photos of a folder in natural order at `fps`; skips the unreadable."""

    def __init__(self, paths: Sequence[Path], kind: str, fps: float = DEFAULT_FPS) -> None:
        super().__init__()
        self.kind, self.fps, self.count = kind, fps, len(paths)
        self._frames = self._read(paths)
        first = next(self._frames, None)
        if first is None:
            reasons = "; ".join(self.warnings[:3])
            raise InputError(f"none of the {len(paths)} photos can be read: {reasons}")
        self.size = (first.image.shape[1], first.image.shape[0])
        self._frames = itertools.chain([first], self._frames)

    def _read(self, paths: Sequence[Path]) -> Iterator[Frame]:
        index = 0
        for path in paths:
            try:
                image, notes = read_photo(path)
            except InputError as error:
                if self.kind == "photo":
                    raise
                self.skipped += 1
                self._notes[f"skipped {error}"] += 1
                continue
            self._notes.update(notes)
            yield Frame(index, round(index * 1e9 / self.fps), image, path)
            index += 1

    def __iter__(self) -> Iterator[Frame]:
        return self._frames


class VideoReader(Reader):
    """The video of a file or URL, upright, in BGR; damage costs frames and is noted.

    location: a path or URL; threads: of the decoder (two cost 10% more CPU time a frame than one,
    and decoding has a thread of its own already); format: FFmpeg's name of it, where it must be
    said.
    """

    def __init__(
        self, location: str, kind: str, threads: int = 1, format: str | None = None
    ) -> None:
        super().__init__()
        self.kind, self._location = kind, location
        network = kind == "stream"
        rtsp = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
        options = rtsp if location.startswith("rtsp") else {}
        timeout = 10.0 if network else None
        try:
            self._container = av.open(location, format=format, options=options, timeout=timeout)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(_why_unreadable(location, error)) from error
        try:
            self._open_stream(network, threads)
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self, network: bool, threads: int) -> None:
        videos = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not videos:
            raise InputError(f"{self._location} holds no video stream; expected a video")
        self._stream = stream = videos[0]
        self._matrix: bytes | None = None  # how the pictures are turned, once one was seen
        stream.codec_context.thread_count = threads
        self._convert = VideoReformatter()
        rate = stream.average_rate or stream.guessed_rate
        # Streams of variable rate may state the ticks of their clock instead.
        self.fps = float(rate) if rate and 0.1 <= rate <= 480 else DEFAULT_FPS
        self._stated_s = (
            float(stream.duration * stream.time_base)
            if stream.duration and stream.time_base
            else (self._container.duration or 0) / av.time_base
        )
        self.live = network and not self._stated_s
        format = self._container.format.name  # of photos image2, png_pipe, jpeg_pipe, ...
        stills = format == "image2" or format.endswith("_pipe") or stream.frames == 1
        self._may_be_photo = network and stills
        self.count = stream.frames or round(self._stated_s * self.fps) or None
        self._begin()

    def _begin(self) -> None:
        """Decode the first frame, which takes as long as several others."""
        self._frames = self._decode()
        begun = list(itertools.islice(self._frames, 2 if self._may_be_photo else 1))
        if not begun:
            why = f" ({self.incomplete})" if self.incomplete else ""
            raise InputError(
                f"{self._location} holds no frame that decodes{why}; expected a video: "
                "record or download it again"
            )
        if self._may_be_photo and len(begun) == 1:
            raise InputError(
                f"{self._location} is a photo; expected a stream or video: download it, and name "
                "the file"
            )
        self.size = (begun[0].image.shape[1], begun[0].image.shape[0])
        self._frames = itertools.chain(begun, self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def rewind(self) -> None:
        """As a new reader would, without the 50 ms that opening takes."""
        try:
            self._container.seek(self._stream.start_time or 0, stream=self._stream)
        except av.error.FFmpegError as error:
            raise InputError(f"{self._location} cannot begin again ({error})") from error
        self.incomplete = ""
        self._begin()

    def _decode(self) -> Iterator[Frame]:
        index, t_ns, start_s = 0, 0, None
        for picture, captured_ns in self._pictures():
            if picture.time is not None:
                start_s = picture.time if start_s is None else start_s
                t_ns = max(t_ns, round((picture.time - start_s) * 1e9))
            elif index:
                t_ns += round(1e9 / self.fps)
            yield Frame(index, t_ns, self._to_bgr(picture), captured_ns=captured_ns)
            index += 1
        seconds = t_ns / 1e9 + 1 / self.fps
        # An edit list leaves out frames that are counted, a last frame may stand for seconds.
        counted = self._stream.frames
        missing_s = self._stated_s - seconds
        cut = missing_s * self.fps > 2 and counted - index > 2 if counted else missing_s > 1.0
        if index and cut:
            self.incomplete = (
                f"ends early, after {index} frames, {seconds:.1f} s of {self._stated_s:.1f} s: "
                "the file is cut short or damaged"
            )

    def _pictures(self) -> Iterator[tuple[VideoFrame, int]]:
        """Every frame that decodes, and when its packet was there; a damaged one is passed over."""
        packets = self._container.demux(self._stream)
        shown_s = again_s = -math.inf
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.incomplete = f"could not be read further ({error.strerror or error})"
                return
            captured_ns = time.perf_counter_ns()
            if packet is None:
                return
            try:
                pictures = packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, BlockingIOError) and self._go_on_with_two_threads(shown_s):
                    packets, again_s = self._container.demux(self._stream), shown_s
                    continue
                self.skipped += 1
                self._notes["damaged packet skipped"] += 1
                continue
            for picture in pictures:
                if picture.time is not None and picture.time <= again_s:
                    continue
                if picture.is_corrupt:
                    self._notes["frame decoded with errors"] += 1
                yield picture, captured_ns
                shown_s = shown_s if picture.time is None else picture.time

    def _go_on_with_two_threads(self, shown_s: float) -> bool:
        """Open a file anew, before shown_s, if one thread decoded it.

        One thread of FFmpeg's VP9 takes no packet after some damaged ones; two go on.
        """
        if self.kind != "video" or self._stream.codec_context.thread_count > 1:
            return False
        index = self._stream.index
        self._container.close()
        self._container = av.open(self._location)
        (self._stream,) = (s for s in self._container.streams.video if s.index == index)
        self._stream.codec_context.thread_count = 2
        if shown_s > 0 and self._stream.time_base:
            self._container.seek(int(shown_s / self._stream.time_base), stream=self._stream)
        return True

    def _to_bgr(self, picture: VideoFrame) -> Image:
        # Unscaled 8-bit 4:2:0 takes swscale's fast path with POINT and one thread.
        bgr = self._convert.reformat(
            picture, format="bgr24", interpolation=Interpolation.POINT, threads=1
        )
        image = np.asarray(bgr.to_ndarray(), np.uint8)
        if self._matrix is None:
            # Of the first picture: PyAV holds one whose side data were asked for in a cycle.
            self._matrix = _display_matrix(picture)
        return _upright(image, self._matrix) if self._matrix else image

    def close(self) -> None:
        self._container.close()


class CameraReader(Reader):
    """A camera by index or device path; frames carry the time at which they were received."""

    kind, live = "camera", True

    def __init__(self, device: int | str) -> None:
        super().__init__()
        self._capture = cv2.VideoCapture(device)
        opened, image = self._capture.read()
        if not opened:
            self._capture.release()
            here = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
            raise InputError(
                f"camera {device} gives no picture; expected a connected camera that no other "
                f"program holds (devices here: {here}): plug it in, or name another index"
            )
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS
        self.size = (image.shape[1], image.shape[0])

    def __iter__(self) -> Iterator[Frame]:
        start = time.perf_counter_ns()
        for index in itertools.count():
            grabbed = self._capture.grab()
            captured_ns = time.perf_counter_ns()
            decoded, image = self._capture.retrieve() if grabbed else (False, None)
            if not decoded:
                self._notes[f"camera stopped after {index} frames"] += 1
                return
            picture = np.asarray(image, np.uint8)
            yield Frame(index, captured_ns - start, picture, captured_ns=captured_ns)

    def close(self) -> None:
        self._capture.release()


def _display_matrix(picture: VideoFrame) -> bytes:
    """FFmpeg's, int32; empty for none."""
    try:
        matrix = cast("Mapping[str, bytes]", picture.side_data).get("DISPLAYMATRIX")
    except ValueError:  # beside it is what PyAV has no name for, as the EXIF of Motion JPEG
        turn = picture.rotation // 90 % 4  # quarters counter-clockwise
        cos, sin = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
        return np.array([cos, -sin, 0, sin, cos], np.int32).tobytes() if turn else b""
    return b"" if matrix is None else bytes(matrix)


def _upright(image: Image, matrix: bytes) -> Image:
    """Turned by quarters and mirrored as FFmpeg's display matrix says; cameras of selfies mirror.

    A stored point x, y is shown at a x + c y, b x + d y; the matrix begins a, b, u, c, d.
    """
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5)
    if abs(b) > abs(a):
        image, a, d = np.asarray(cv2.transpose(image), np.uint8), c, b
    if a < 0 or d < 0:
        image = np.asarray(cv2.flip(image, -1 if a < 0 and d < 0 else int(a < 0)), np.uint8)
    return image


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _why_unreadable(location: str, error: Exception) -> str:
    if "://" in location:
        return f"{location}: {error}; expected a stream that answers: check the address and network"
    if isinstance(error, av.error.InvalidDataError) and Path(location).suffix.lower() in (
        ".mp4",
        ".mov",
        ".m4v",
    ):
        return (
            f"{location} holds no index (moov) that can be read: it was cut short while being "
            "recorded or downloaded, or is no video; copy, download or record it again"
        )
    return (
        f"{location} cannot be read as a photo or video ({error}): convert it to MP4, PNG or JPEG"
    )
