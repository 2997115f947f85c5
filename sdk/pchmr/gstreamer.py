"""A GStreamer pipeline as input, through its own launcher: OpenCV's wheels are built without it."""

import re
import shlex
import shutil
import subprocess
import tempfile

from pchmr_engines.errors import InputError

from .readers import VideoReader

_LAUNCHER = "gst-launch-1.0"
# YUY2 because a matroska of it reads right at every width; planar formats are padded.
_TO_PIPE = "videoconvert ! video/x-raw,format=YUY2 ! matroskamux streamable=true ! fdsink fd=1"


class GStreamerReader(VideoReader):
    """Frames of a pipeline text such as `v4l2src device=/dev/video0 ! image/jpeg ! jpegdec`.

    It runs in a process of its own and hands over raw pictures. An `appsink` at its end, as OpenCV
    wants one, is left out. Elements that are not live run as fast as they can.
    """

    def __init__(self, pipeline: str, threads: int = 1) -> None:
        launcher = shutil.which(_LAUNCHER)
        if launcher is None:
            raise InputError(
                f"{pipeline!r} is a GStreamer pipeline and {_LAUNCHER} is not here: install "
                "gstreamer1.0-tools and gstreamer1.0-plugins-good"
            )
        elements = re.sub(r"\s*!\s*appsink\b[^!]*$", "", pipeline)
        try:
            command = [launcher, "-q", *shlex.split(f"{elements} ! {_TO_PIPE}")]
        except ValueError as error:
            raise InputError(
                f"GStreamer pipeline {elements!r} has an open quotation: close it"
            ) from error
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            assert self._process.stdout is not None
            location = f"pipe:{self._process.stdout.fileno()}"
            try:
                super().__init__(location, "stream", threads, format="matroska")
            except InputError as error:
                self._end()
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines() or [str(error)]
                raise InputError(
                    f"GStreamer pipeline {elements!r} gives no picture ({said[0]}): "
                    f"try it with {_LAUNCHER}"
                ) from error

    def stop(self) -> None:
        """End the process: the read that waits for it returns."""
        self._process.terminate()

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:  # a driver that hangs
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
