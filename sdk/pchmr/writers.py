"""H.264 video that plays in a browser, encoded in a thread of its own."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame

from pchmr_engines.errors import InputError, PchmrError

from .closing import Closing
from .photos import Image
from .whole import part_of
from .work_queue import WorkQueue

_CLOCK = 90_000  # ticks a second, as in MPEG
_BT601 = 6  # what cv2.COLOR_BGR2YUV_I420 writes: three times faster than swscale's BT.709
_LIMITED = 1


class VideoWriter(Closing):
    """Writes BGR frames as MP4 (H.264, yuv420p, index first). Use as a context manager.

    While it runs, the video grows in `<name>.<process id>.part`, in fragments that play as they are
    if the process is killed; `close`, also after an exception, turns that into `path`. A frame of
    another size is fitted in with black bars; odd sizes are cut to even, which H.264 needs.
    """

    def __init__(
        self,
        path: Path | str,
        fps: float,
        size: tuple[int, int],
        *,
        quality: int = 23,
        preset: str = "superfast",
        threads: int = 1,
        ahead: int = 4,
    ) -> None:
        """
        fps: nominal frames a second; size: (width, height) pixels; quality: x264's crf, lower is
        better; preset: x264's ("superfast" takes 2/3 of the time of "veryfast" and twice its
        bytes); threads: of the encoder; ahead: frames that may wait for it. `frames` counts those
        encoded.

        Raises:
            InputError: the size, rate or place cannot be written to.
        """
        self.path, self.frames = Path(path), 0
        self.size = (size[0] // 2 * 2, size[1] // 2 * 2)
        if min(self.size) < 2 or not 0 < fps < 1000:
            raise InputError(
                f"video of {size[0]}x{size[1]} at {fps} frames/s; expected at least 2x2 pixels "
                "and between 0 and 1000 frames/s"
            )
        self._fps = fps
        self._part = part_of(self.path)
        self._waiting = WorkQueue[tuple[Image, int | None]](ahead)
        self._error: BaseException | None = None
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._part),
                "w",
                format="mp4",
                options={
                    "movflags": "frag_keyframe+empty_moov+default_base_moof",
                    "flush_packets": "1",  # nothing waits in memory when the process is killed
                },
            )
            self._add_stream(quality, preset, threads)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}): name another place"
            ) from error
        except ValueError as error:
            raise PchmrError(
                f"this build of the package av has no libx264 ({error}): "
                "run  pip install --force-reinstall --only-binary av av"
            ) from error
        self._thread = threading.Thread(target=self._encode, name="pchmr-encode", daemon=True)
        self._thread.start()

    def _add_stream(self, quality: int, preset: str, threads: int) -> None:
        rate = Fraction(self._fps).limit_denominator(60_060)
        self._stream = self._container.add_stream(
            "libx264", rate=rate, options={"preset": preset, "crf": str(quality)}
        )
        codec = self._stream.codec_context
        codec.width, codec.height = self.size
        codec.pix_fmt = "yuv420p"
        codec.time_base = Fraction(1, _CLOCK)
        codec.gop_size = max(1, round(2 * self._fps))  # a key frame, a fragment, every 2 s
        codec.thread_count = threads
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT601
        codec.color_range = _LIMITED

    def write(self, image: Image, t_ns: int | None = None) -> None:
        """Queue a frame; it must not be changed afterwards.

        image: (H, W, 3) uint8, BGR; t_ns: its time since the first frame, nanoseconds; without
        it the frames follow each other at `fps`.

        Raises:
            PchmrError: encoding failed since the last call (disk full, ...).
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"frame of {image.shape} {image.dtype}; expected (H, W, 3) uint8, BGR")
        if self._closed:
            raise InputError(f"{self.path} is closed; expected no more frames")
        self._check()
        while not self._waiting.put((image, t_ns), 0.5):
            self._check()

    def close(self) -> Path:
        """Encode what waits, make the file at `path` and return it; without frames there is none.

        Raises:
            PchmrError: encoding failed; `path` holds what was encoded before that, or, where there
                was no room to make it, the file in which it grew, which goes if it shows nothing.
        """
        if self._closed:
            return self.path
        self._closed = True
        self._waiting.end()
        self._thread.join()
        if self.frames:
            try:
                _move_index_first(self._part, self.path)
            except (av.error.FFmpegError, OSError) as error:
                first = self._error if isinstance(self._error, OSError) else error
                mend = "make room, or name another one"
                if _shows_something(self._part):
                    mend = f"what was encoded is in {self._part}: make room, and rename it"
                else:
                    self._part.unlink()
                raise PchmrError(
                    f"{self.path} cannot be written ({first.strerror or first}): {mend}"
                ) from error
        self._part.unlink(missing_ok=True)
        self._check()
        return self.path

    def _check(self) -> None:
        if self._error is not None:
            raise PchmrError(f"{self.path}: encoding failed: {self._error}") from self._error

    def _encode(self) -> None:
        try:
            with self._container:
                try:
                    self._encode_waiting()
                finally:
                    self._container.mux(self._stream.encode(None))
        except BaseException as error:
            self._error = error

    def _encode_waiting(self) -> None:
        clock = Fraction(1, _CLOCK)
        last = -1
        for index, (image, t_ns) in enumerate(self._waiting):
            yuv = cv2.cvtColor(_fit(image, self.size), cv2.COLOR_BGR2YUV_I420)
            frame = VideoFrame.from_ndarray(np.asarray(yuv, np.uint8), format="yuv420p")
            seconds = index / self._fps if t_ns is None else t_ns / 1e9
            last = max(last + 1, round(seconds * _CLOCK))
            frame.pts, frame.time_base = last, clock
            self._container.mux(self._stream.encode(frame))
            self.frames += 1


def _fit(image: Image, size: tuple[int, int]) -> Image:
    """The image itself, cut by an odd pixel, or resized into `size` between black bars."""
    width, height = size
    if image.shape[0] in (height, height + 1) and image.shape[1] in (width, width + 1):
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (
        min(width, max(1, round(image.shape[1] * scale))),
        min(height, max(1, round(image.shape[0] * scale))),
    )
    fitted = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    fitted[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        image, inner, interpolation=cv2.INTER_AREA
    )
    return fitted


def _shows_something(fragmented: Path) -> bool:
    try:
        with av.open(str(fragmented)) as video:
            return any(x.size and not x.is_corrupt for x in video.demux(video=0))
    except (av.error.FFmpegError, IndexError):  # not even a stream
        return False


def _move_index_first(fragmented: Path, path: Path) -> None:
    """Rewrite a fragmented MP4 as a plain one that starts playing before it is all there, at 0:
    fragments begin as late as pictures that refer to later ones wait for those."""
    whole = fragmented.with_suffix(".tmp")
    try:
        with (
            av.open(str(fragmented)) as source,
            av.open(str(whole), "w", format="mp4", options={"movflags": "faststart"}) as target,
        ):
            video = source.streams.video[0]
            stream, late = target.add_stream_from_template(video), video.start_time or 0
            for packet in source.demux(video=0):
                if packet.pts is not None and packet.dts is not None:
                    packet.pts, packet.dts = packet.pts - late, packet.dts - late
                    packet.stream = stream
                    target.mux(packet)
        os.replace(whole, path)
    finally:
        whole.unlink(missing_ok=True)
