"""The written video read back: pictures, times and sizes; interrupted, killed and refused."""

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest
from pictures_made_up import BLUE, GREEN, RED, SIZE, WHITE, corners, quadrants
from waiting import wait_until

from pchmr.media import VideoWriter, open_source
from pchmr.readers import Frame
from pchmr_engines.errors import InputError, PchmrError


def read_back(path: Path) -> list[Frame]:
    with open_source(path) as source:
        frames = list(source)
    assert source.warnings == []
    return frames


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_video_out_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.mp4"
    levels = range(20, 240, 10)
    with VideoWriter(path, 25, SIZE) as writer:
        for level in levels:
            image = quadrants()
            image[20:28, 28:36] = level
            writer.write(image)
    assert [file.name for file in path.parent.iterdir()] == ["out.mp4"]
    frames = read_back(path)
    assert writer.frames == len(frames) == len(levels)
    assert [frame.t_ns for frame in frames] == [i * 40_000_000 for i in range(len(levels))]
    for frame, level in zip(frames, levels, strict=True):
        assert abs(int(frame.image[22:26, 30:34].mean()) - level) < 12
        np.testing.assert_allclose(corners(frame.image), [RED, GREEN, BLUE, WHITE], atol=15)


def test_video_out_is_what_browsers_play(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 30, SIZE) as writer:
        writer.write(quadrants())
    data = writer.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    with av.open(str(writer.path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", *SIZE)
        assert (codec.color_range, codec.colorspace) == (1, 6)


def test_video_out_keeps_given_times(tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 700]
    with VideoWriter(tmp_path / "out.mp4", 25, SIZE) as writer:
        for ms in times:
            writer.write(quadrants(), ms * 10**6)
    assert [round(frame.t_ns / 1e6) for frame in read_back(writer.path)] == times
    with av.open(str(writer.path)) as container:  # as a player has them: from 0, not from the first
        assert [round(1000 * frame.time) for frame in container.decode(video=0)] == times


def test_video_out_of_odd_and_changing_sizes(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25, (65, 49)) as writer:
        writer.write(quadrants(65, 49))
        writer.write(quadrants(128, 48))
    assert writer.size == SIZE
    same, wide = (frame.image for frame in read_back(writer.path))
    np.testing.assert_allclose(corners(same), [RED, GREEN, BLUE, WHITE], atol=15)
    assert wide[:8].max() < 20  # 128x48 becomes 64x24 between bars of 12
    np.testing.assert_allclose(corners(wide[12:36]), [RED, GREEN, BLUE, WHITE], atol=15)


def test_video_out_interrupted_keeps_the_frames_done(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 25, SIZE)

    def run() -> None:
        with writer:
            for _ in range(7):
                writer.write(quadrants())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(read_back(writer.path)) == 7
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_video_out_of_a_killed_process_plays(tmp_path: Path) -> None:
    """Before `close`, the fragments written so far are a video."""
    writer = VideoWriter(tmp_path / "out.mp4", 5, SIZE)
    for _ in range(80):  # a fragment every 10 frames; x264 holds back some 40
        writer.write(quadrants())
    (part,) = tmp_path.iterdir()
    wait_until(lambda: writer.frames == 80)
    copy = tmp_path / "left.mp4"
    copy.write_bytes(part.read_bytes())
    with open_source(copy) as source:
        assert len(list(source)) >= 10
    writer.close()


def test_video_out_of_two_processes_is_that_of_the_last(tmp_path: Path, monkeypatch) -> None:
    first = VideoWriter(tmp_path / "out.mp4", 25, SIZE)
    monkeypatch.setattr("os.getpid", lambda: 1)
    second = VideoWriter(tmp_path / "out.mp4", 25, SIZE)
    for writer, frames in ((first, 3), (second, 5)):
        for _ in range(frames):
            writer.write(quadrants())
    for writer, frames in ((first, 3), (second, 5)):
        assert len(read_back(writer.close())) == frames
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_video_out_that_cannot_be_made_keeps_its_parts(tmp_path: Path, monkeypatch) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 25, SIZE)
    writer.write(quadrants())
    monkeypatch.setattr("pchmr.writers._move_index_first", full)
    with pytest.raises(PchmrError, match=r"cannot be written \(No space .*is in .*part: make room"):
        writer.close()
    (part,) = tmp_path.iterdir()
    assert len(read_back(part)) == 1


@pytest.mark.parametrize("room", [0, 100, 1500])
def test_video_out_that_shows_nothing_leaves_nothing(room: int, tmp_path: Path, monkeypatch):
    """As on a disk with no room but for the beginning of the first fragment."""

    def nearly_full(part: Path, *_: object) -> None:
        os.truncate(part, room)
        full()

    writer = VideoWriter(tmp_path / "out.mp4", 25, SIZE)
    writer.write(quadrants())
    monkeypatch.setattr("pchmr.writers._move_index_first", nearly_full)
    with pytest.raises(PchmrError, match=r"written \(No space .*: make room, or name another one$"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_video_out_without_frames_leaves_nothing(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "out.mp4", 25, SIZE).close()
    assert list(tmp_path.iterdir()) == []


def test_video_out_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at least 2x2 pixels"):
        VideoWriter(tmp_path / "out.mp4", 25, (1, 1))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="name another place"):
        VideoWriter(tmp_path / "file" / "out.mp4", 25, SIZE)
    with VideoWriter(tmp_path / "out.mp4", 25, SIZE) as writer:
        with pytest.raises(InputError, match=r"\(48, 64\) uint8; expected \(H, W, 3\)"):
            writer.write(quadrants()[..., 0])
        writer.write(quadrants())
    with pytest.raises(InputError, match="is closed"):
        writer.write(quadrants())


def test_video_out_error_in_the_thread_reaches_the_writer(tmp_path: Path, monkeypatch) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 25, SIZE)
    for _ in range(3):
        writer.write(quadrants())
    wait_until(lambda: writer.frames == 3)
    monkeypatch.setattr("pchmr.writers._fit", full)

    def write_on() -> None:
        for _ in range(20):
            writer.write(quadrants())

    with pytest.raises(PchmrError, match=r"encoding failed: .*No space left"):
        write_on()
    with pytest.raises(PchmrError, match="No space left"):
        writer.close()
    assert len(read_back(writer.path)) == 3
