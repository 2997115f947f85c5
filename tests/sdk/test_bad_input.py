"""Hard input is converted or flagged; wrong input is one line, exit code 1, and nothing lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from command_line import Outcome, count_frames, read_npz, write_video
from numpy.typing import NDArray

from pchmr.media import open_source, read_photo, write_photo
from pchmr_engines.bundle import Bundle

Image = NDArray[np.uint8]
Run = Callable[..., Outcome]


@pytest.fixture
def run(command: Run, open_bundle: Bundle, tmp_path: Path) -> Run:
    """`run(input, ...)`: `pchmr run` with the open bundle, mesh-only, into the folder `out`."""

    def start(given: Path | str, *options: object) -> Outcome:
        return command(
            *("run", given, "-o", tmp_path / "out", "--bundle", open_bundle.root),
            *("--topology", "mesh-only", "--backend", "onnxruntime", "--threads", 1, *options),
        )

    return start


@pytest.fixture
def empty_wall() -> Image:
    """(480, 640, 3) noise without a person."""
    return np.random.default_rng(0).integers(90, 160, (480, 640, 3), np.uint8)


# Photos


def test_photos_of_every_depth_are_converted_and_said_so(
    run: Run, astronaut: Image, tmp_path: Path
) -> None:
    alpha = np.full_like(astronaut[..., :1], 255)
    for name, image, said in (
        ("grey.png", astronaut.mean(-1).astype(np.uint8), "grey read as colour"),
        ("deep.png", astronaut.astype(np.uint16) * 257, "uint16 reduced to 8 bit"),
        ("alpha.png", np.concatenate([astronaut, alpha], -1), "alpha laid over white"),
    ):
        cv2.imwrite(str(tmp_path / name), image)
        outcome = run(tmp_path / name)
        assert outcome.code == 0, outcome.err
        assert f"note: {said}" in outcome.err
        assert cv2.imread(str(tmp_path / "out" / name)).shape == astronaut.shape
        assert len(read_npz(tmp_path / "out" / Path(name).with_suffix(".npz"))["vertices"]) == 1


@pytest.mark.skipif(not hasattr(cv2, "Animation"), reason="OpenCV before 4.11 writes none")
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_the_first_picture_of_an_animation_is_read_and_said_so(suffix: str, tmp_path: Path) -> None:
    still, moving = (tmp_path / f"{name}{suffix}" for name in ("still", "moving"))
    animation = cv2.Animation()
    animation.frames = [np.full((32, 48, 3), value, np.uint8) for value in (10, 200)]
    animation.durations = [100, 100]
    assert cv2.imwriteanimation(str(moving), animation)
    assert cv2.imwrite(str(still), animation.frames[0])
    assert read_photo(still)[1] == []
    image, notes = read_photo(moving)
    assert image.mean() < 20
    assert notes == ["animated: its first picture is read"]


def test_a_huge_photo_is_shrunk_and_said_so(
    run: Run, astronaut: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pchmr.photos.MAX_PIXELS", 400 * 400)
    outcome = run(write_photo(tmp_path / "huge.png", astronaut))
    assert "note: 512x512 shrunk to 400x400" in outcome.err
    assert cv2.imread(str(tmp_path / "out" / "huge.png")).shape == (400, 400, 3)


def test_a_photo_without_a_person(run: Run, empty_wall: Image, tmp_path: Path) -> None:
    outcome = run(write_photo(tmp_path / "wall.png", empty_wall), "--write-json")
    assert "no person found in 1 frames; expected someone" in outcome.error
    assert "nearer view" in outcome.error
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / "wall.png")), empty_wall)
    assert read_npz(tmp_path / "out" / "wall.npz")["frames"] == 1
    assert (tmp_path / "out" / "wall.json").is_file()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("page.mp4", b"<!DOCTYPE html><p>404", r"is text .*a web page", id="html"),
        pytest.param("empty.mp4", b"", r"is empty .*copy it again", id="empty video"),
        pytest.param("empty.jpg", b"", r"is empty .*copy it again", id="empty photo"),
        pytest.param("noise.mp4", bytes(range(256)) * 40, r"no index .*copy, download", id="noise"),
        pytest.param("text.docx", b"PK\x03\x04" + bytes(90), r"cannot be read .*convert", id="zip"),
        pytest.param("cut.jpg", b"\xff\xd8\xff\xe0" + bytes(60), r"cut short: convert", id="jpeg"),
    ],
)
def test_files_that_hold_no_picture(
    name: str, content: bytes, said: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(f"{re.escape(name)} .*{said}", run(tmp_path / name).error)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_not_there(run: Run, tmp_path: Path) -> None:
    assert "no such file; expected a photo, video" in run(tmp_path / "gone.mp4").error
    (tmp_path / "folder").mkdir()
    assert "holds no photo" in run(tmp_path / "folder").error
    assert "expected a connected camera" in run("41").error
    assert "expected a stream that answers" in run("http://127.0.0.1:9/stream").error


PNG = cv2.imencode(".png", np.arange(3 * 64 * 64, dtype=np.uint8).reshape(64, 64, 3))[1].tobytes()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda png: png[:200], "cut.png is a PNG that is cut short: copy the file again"),
        (lambda png: png[:80] + b"#" + png[81:], "is a PNG that is damaged (checksum of 'IDAT')"),
        (lambda png: png[:20] + b"#" + png[21:], "is a PNG that is damaged (checksum of 'IHDR')"),
        (lambda png: b"\xff\xd8\xff\xe0" + bytes(60), "or is cut short: convert it"),
    ],
)
def test_opencv_adds_nothing_to_the_one_line(
    damage: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    """Its own warnings, and those of libpng, go past Python, to the process's stderr."""
    (tmp_path / "cut.png").write_bytes(damage(PNG))
    done = subprocess.run(
        [sys.executable, "-m", "pchmr", "run", "cut.png"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert said in Outcome(done.returncode, done.stdout, done.stderr).error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not tested: /dev/full is of Linux")
def test_a_full_disk_under_what_is_printed() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pchmr", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert "No space left on device: make room" in Outcome(done.returncode, "", done.stderr).error


def test_a_file_that_may_not_be_read(run: Run, astronaut: Image, tmp_path: Path) -> None:
    path = write_photo(tmp_path / "secret.png", astronaut)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("not tested: permissions, for this user may read every file")
    assert "Permission denied; expected a readable file" in run(path).error


# Videos


@pytest.fixture
def clip(walk: list[Image], tmp_path: Path) -> Path:
    """Twelve frames of 400 x 460 with a person in them, 25 frames a second."""
    near = [frame[40:500, 450:850] for frame in walk]
    return write_video(tmp_path / "clip.mp4", [*near, *near])


def test_a_video_without_a_person(run: Run, empty_wall: Image, tmp_path: Path) -> None:
    outcome = run(write_video(tmp_path / "wall.mp4", [empty_wall] * 5))
    assert "no person found in 5 frames" in outcome.error
    assert str(tmp_path / "out" / "wall.mp4") in outcome.error
    assert count_frames(tmp_path / "out" / "wall.mp4") == 5
    stored = read_npz(tmp_path / "out" / "wall.npz")
    assert (stored["frames"], len(stored["vertices"])) == (5, 0)


def test_frames_without_a_person_are_passed_through_and_counted(
    run: Run, walk: list[Image], tmp_path: Path
) -> None:
    nobody = np.zeros_like(walk[0])
    outcome = run(write_video(tmp_path / "gap.mp4", [walk[0], nobody, nobody, *walk[:2]]))
    assert outcome.code == 0
    found = read_npz(tmp_path / "out" / "gap.npz")["frame"].tolist()
    assert found[0] == 0
    assert not {1, 2} & set(found)
    assert f"people in {len(found)} of 5 frames" in outcome.out
    assert count_frames(tmp_path / "out" / "gap.mp4") == 5


def cut_after(path: Path, frames: int) -> None:
    """Cut a video within the data of the frame after so many."""
    with av.open(str(path)) as video:
        packets = [packet for packet in video.demux(video=0) if packet.pos is not None]
    os.truncate(path, packets[frames].pos + packets[frames].size // 2)


def test_a_video_cut_short_keeps_its_frames(run: Run, clip: Path, tmp_path: Path) -> None:
    cut_after(clip, 7)
    error = run(clip).error
    assert re.search(r"the video (ends early, after \d frames|could not be read further)", error)
    assert "expected all of it: copy, download or record it again" in error
    frames = count_frames(tmp_path / "out" / "clip.mp4")
    assert frames in (7, 8)
    stored = read_npz(tmp_path / "out" / "clip.npz")
    assert stored["frames"] == frames
    assert len(stored["vertices"]) == frames


def test_a_video_cut_before_its_index(run: Run, clip: Path) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"moov")])
    assert "cut short" in run(clip).error


def test_a_limit_before_the_cut_is_no_error(run: Run, clip: Path) -> None:
    cut_after(clip, 3)
    assert run(clip, "--frames", 3).code == 0


def test_a_video_trimmed_without_coding_it_again_is_whole(tmp_path: Path, clip: Path) -> None:
    """Its edit list leaves out frames that the file still counts."""
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(clip)) as source, av.open(str(trimmed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        begin = round(5 / 25 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - begin,
                    packet.dts - begin,
                    stream,
                )
                target.mux(packet)
    with open_source(trimmed) as source:
        assert 7 <= sum(1 for _ in source) < 12
    assert source.incomplete == ""


def test_an_interrupt_keeps_what_was_done(
    open_bundle: Bundle, walk: list[Image], tmp_path: Path
) -> None:
    """Ctrl-C in the middle of a video leaves one that plays, and results that read."""
    video = write_video(tmp_path / "long.mp4", [frame[40:500, 450:850] for frame in walk] * 60)
    out = tmp_path / "out"
    # A test run in the background of a shell inherits SIGINT ignored; at a terminal it is not.
    main = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pchmr.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", main, "run", str(video)),
            *("-o", str(out), "--bundle", str(open_bundle.root), "--topology", "mesh-only"),
            *("--backend", "onnxruntime", "--threads", "1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    several = 5 * 4 * 3 * len(open_bundle.body()["v_template"])
    while process.poll() is None:
        rows = list(out.glob(".results-*/rows-/vertices"))
        if rows and rows[0].stat().st_size > several:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert "stopped; what was done so far is in" in Outcome(process.returncode, "", err).error
    stored = read_npz(out / "long.npz")
    assert 5 <= stored["frames"] < 360
    assert len(stored["vertices"]) >= 5
    assert stored["frames"] - count_frames(out / "long.mp4") in (0, 1)
    assert sorted(path.name for path in out.iterdir()) == ["long.mp4", "long.npz"]


# Bundles, assets and options


def test_a_bundle_with_a_changed_byte(
    command: Run, open_bundle: Bundle, astronaut: Image, tmp_path: Path
) -> None:
    shutil.copytree(open_bundle.root, tmp_path / "bundle")
    body = tmp_path / "bundle" / "body.npz"
    data = bytearray(body.read_bytes())
    data[len(data) // 2] ^= 1
    body.write_bytes(data)
    photo = write_photo(tmp_path / "photo.png", astronaut)
    outcome = command("run", photo, "-o", tmp_path / "out", "--bundle", tmp_path / "bundle")
    assert re.search(r"body\.npz has sha256 .*expected .*export the bundle again", outcome.error)
    assert not (tmp_path / "out").exists()
    for verb in ("inspect", "verify"):
        assert "body.npz has sha256" in command(verb, tmp_path / "bundle").error


def test_an_asset_that_cannot_be_fetched(
    command: Run, astronaut: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    photo = write_photo(tmp_path / "photo.png", astronaut)
    error = command("run", photo, "-o", tmp_path / "out").error
    assert re.search(r"asset 'blazepose_detector': pip could not download mediapipe==.*", error)
    assert "check the network" in error
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_options_of_the_command_that_do_not_exist(
    command: Run, open_bundle: Bundle, astronaut: Image, tmp_path: Path
) -> None:
    photo = write_photo(tmp_path / "photo.png", astronaut)
    given = ("run", photo, "-o", tmp_path / "out", "--bundle", open_bundle.root)
    assert (
        "topology 'both': bundle 'open' has serial" in command(*given, "--topology", "both").error
    )
    assert "backend 'abacus' is unknown" in command(*given, "--backend", "abacus").error
    assert "nowhere does not exist" in command("run", photo, "--bundle", "nowhere").error
    assert "is no camera" in command(*given, "--camera-file", photo).error
    for option in ("--people", "--threads", "--frames"):
        assert command(*given, option, 0).code == 2
    assert not (tmp_path / "out").exists()
