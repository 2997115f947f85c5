"""The window and the page: what they show, and what their controls ask for."""

import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import chromium
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from people_made_up import make_person
from waiting import wait_until

from pchmr.camera import Camera
from pchmr.live import (
    Action,
    Browser,
    Figures,
    FrameTiming,
    Result,
    Status,
    TimingLog,
    View,
    Window,
)
from pchmr.live.draw import Overlay, with_lines
from pchmr.overlay import CALIBRATED, GENERATOR
from pchmr.people import Person
from pchmr.readers import Frame
from pchmr_engines.errors import InputError, MissingDependency

SIZE = (640, 360)  # width, height
GREY = 90
SQUARE = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
MS = 1_000_000


def person_at(x: float) -> Person:
    """A square of 1 m, 3 m away: 213 pixels; before calibration a quarter of a metre lower."""
    corners = np.array([[-0.5, -0.5, 3], [0.5, -0.5, 3], [0.5, 0.5, 3], [-0.5, 0.5, 3]])
    vertices = (corners + np.array((x, 0, 0))).astype(np.float32)
    return make_person(
        vertices=vertices,
        generator_vertices=vertices + np.float32((0, 0.25, 0)),
        joints=np.tile(vertices.mean(0), (24, 1)),
        camera=Camera(640, 640, 320, 180),
    )


def view_of(*people: Person, calibrated: bool = True, width: int = SIZE[0]) -> View:
    image = np.full((width * 9 // 16, width, 3), GREY, np.uint8)
    log = TimingLog()
    log.add(FrameTiming(0, 5 * MS, 6 * MS, 16 * MS))
    status = Status("serial", "", False, "", Path("out/live.mp4"), 3, 0, log.summary())
    result = Result(Frame(0, 0, image), people, FrameTiming(0, 0, 0, 0), "serial")
    return View(result, status, calibrated)


def share_of(picture: NDArray[np.uint8], bgr: tuple[int, int, int]) -> float:
    """Of the pixels, those of one hue: shading changes a colour's brightness only."""
    unit = picture / np.maximum(np.linalg.norm(picture, axis=-1, keepdims=True), 1)
    return float((unit @ (np.array(bgr) / np.linalg.norm(bgr)) > 0.999).mean())


# The picture


def test_meshes_over_the_picture() -> None:
    overlay = Overlay(SQUARE)
    before, after = (view_of(person_at(0), calibrated=flag) for flag in (False, True))
    area = 213**2 / (SIZE[0] * SIZE[1])
    assert share_of(overlay.draw(after), CALIBRATED) == pytest.approx(area, rel=0.05)
    assert share_of(overlay.draw(before), GENERATOR) == pytest.approx(area, rel=0.05)
    rows = [np.flatnonzero((overlay.draw(v) != GREY).any((1, 2))) for v in (before, after)]
    assert rows[0].mean() - rows[1].mean() == pytest.approx(0.25 / 3 * 640, abs=1)
    assert (after.result.frame.image == GREY).all()  # others have the frame too


def test_a_large_picture_is_shown_smaller() -> None:
    person = replace(person_at(0), camera=Camera(1920, 1920, 960, 540))
    picture = Overlay(SQUARE).draw(view_of(person, width=1920))
    assert picture.shape == (540, 960, 3)
    area = (960 / 3) ** 2 / (960 * 540)
    assert share_of(picture, CALIBRATED) == pytest.approx(area, rel=0.05)


def test_a_tall_picture_fits_the_screen() -> None:
    view = view_of()
    tall = np.full((1920, 1080, 3), GREY, np.uint8)
    view = replace(view, result=replace(view.result, frame=Frame(0, 0, tall)))
    assert Overlay(SQUARE).draw(view).shape == (720, 405, 3)


def test_nobody_is_there() -> None:
    assert (Overlay(SQUARE).draw(view_of()) == GREY).all()
    assert not share_of(Overlay(SQUARE).side(view_of(), 360)[:-30], CALIBRATED)


def test_several_people_have_their_ids() -> None:
    """White, above the head, that of one person's picture is not written."""
    one, two = (person_at(x) for x in (-0.8, 0.8))
    pair = Overlay(SQUARE).draw(view_of(one, replace(two, track_id=4)))
    alone = Overlay(SQUARE).draw(view_of(one))
    white = [(picture == 255).all(-1) for picture in (pair, alone)]
    assert not white[1].any()
    rows, columns = np.nonzero(white[0])
    assert rows.max() < 180 - 0.5 / 3 * 640 < 80
    assert {x > SIZE[0] / 2 for x in columns.tolist()} == {False, True}


def test_the_side_view_has_both_meshes() -> None:
    """The square from its side is a line: it stands for what is before and after calibration."""
    tilted = person_at(0)
    depth = np.float32([[0, 0, -0.5], [0, 0, 0.5], [0, 0, 0.5], [0, 0, -0.5]])
    tilted = replace(
        tilted,
        vertices=tilted.vertices + depth,
        generator_vertices=tilted.generator_vertices + depth,
    )
    for count in (1, 2, 3):
        strip = Overlay(SQUARE).side(view_of(*[tilted] * count), 360)
        assert strip.shape == (360, 180, 3)
        cells = np.split(strip[: 360 // count * count], count) if count < 3 else ()
        for cell in cells:
            assert share_of(cell[:-30], CALIBRATED) > 0.01
            assert share_of(cell[:-30], GENERATOR) > 0.01


def test_what_the_controls_would_do() -> None:
    view = view_of()
    assert list(view.labels.values()) == [
        *("change to parallel", "show before calibration", "end recording", "pause", "quit")
    ]
    status = replace(view.status, topology="parallel", paused=True, recording=None)
    labels = replace(view, status=status, calibrated=False).labels
    assert list(labels.values()) == [
        *("change to serial", "show after calibration", "record", "go on", "quit")
    ]
    loading = replace(view, status=replace(status, loading="serial"))
    assert loading.labels[Action.TOPOLOGY] == "loading serial"


def test_lines_stand_below_the_picture() -> None:
    picture = np.full((40, 300, 3), GREY, np.uint8)
    lines = with_lines(picture, ["one", "two"])
    np.testing.assert_array_equal(lines[:40, :300], picture)
    assert lines.shape[1] == 640  # there is room for the keys
    assert (lines[40:60] == 255).any()
    assert (lines[62:84] == 255).any()


# The window


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDL draws into memory."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.usefixtures("no_screen")
def test_a_window() -> None:
    import pygame

    with closing(Window(SQUARE)) as window:
        window.show(view_of(person_at(0)))
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)[..., ::-1]
        assert shown.shape[1] == SIZE[0] + SIZE[1] // 2  # beside it the view from the side
        picture = shown[: SIZE[1], : SIZE[0]]
        np.testing.assert_array_equal(picture, Overlay(SQUARE).draw(view_of(person_at(0))))
        assert (shown[SIZE[1] :] == 255).any()  # the read-out
        screen = pygame.display.get_surface()
        window.show(view_of())
        assert pygame.display.get_surface() is screen  # its size has not changed


@pytest.mark.usefixtures("no_screen")
def test_the_keys_of_the_window() -> None:
    import pygame

    keys = {
        pygame.K_t: Action.TOPOLOGY,
        pygame.K_c: Action.CALIBRATION,
        pygame.K_r: Action.RECORD,
        pygame.K_SPACE: Action.PAUSE,
        pygame.K_q: Action.QUIT,
        pygame.K_ESCAPE: Action.QUIT,
    }
    with closing(Window(SQUARE)) as window:
        window.show(view_of())
        list(window.poll())
        for key, action in keys.items():
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
            assert list(window.poll()) == [action]
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_x))
        assert list(window.poll()) == []
        pygame.event.post(pygame.event.Event(pygame.QUIT))  # the window was closed
        assert list(window.poll()) == [Action.QUIT]


@pytest.mark.parametrize("driver", [None, "x11"])
def test_no_display_at_all(driver: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if driver:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    with pytest.raises(InputError, match=r"no window can be opened here .*use --headless"):
        Window(SQUARE)


@pytest.fixture
def x_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The memory of a virtual X screen, as a file."""
    if shutil.which("Xvfb") is None:
        pytest.skip("not tested: a window on a real X server (Xvfb is not installed)")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x600x24"]
    command += ["-fbdir", str(tmp_path)]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            monkeypatch.setenv("DISPLAY", f":{pipe.readline().strip()}")
        monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
        yield tmp_path / "Xvfb_screen0"
        server.terminate()


def read_screen(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of an X window dump (XWD), 32 bits a pixel."""
    data = np.fromfile(file, np.uint8)
    header = data[:100].view(">u4")
    skip, height, line = int(header[0] + 12 * header[19]), int(header[5]), int(header[12])
    return data[skip:][: height * line].reshape(height, line // 4, 4)[..., :3]


def test_a_window_on_an_x_server(x_screen: Path) -> None:
    view = view_of(person_at(0))
    with closing(Window(SQUARE)) as window:
        for _ in range(3):
            window.show(view)
            list(window.poll())
        screen = read_screen(x_screen)
        best = cv2.matchTemplate(screen, Overlay(SQUARE).draw(view), cv2.TM_SQDIFF_NORMED).min()
    assert best < 1e-3
    assert not share_of(read_screen(x_screen), CALIBRATED)  # closed, it is gone


# The page


def answers(host: str, url: str) -> bool:
    try:
        with socket.create_connection((host, int(url.rsplit(":", 1)[1])), timeout=5):
            return True
    except OSError:
        return False


def test_the_page_is_served_on_this_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Browser(SQUARE)) as browser:
        browser.show(view_of(person_at(0)))
        with urllib.request.urlopen(browser.url) as page:
            assert b"<title>" in page.read()
        assert browser.url.startswith("http://127.0.0.1:")
        assert not answers("127.0.0.2", browser.url)
        with closing(Browser(SQUARE, "0.0.0.0")) as everywhere:
            assert everywhere.url != browser.url  # the next port that is free
            assert answers("127.0.0.2", everywhere.url)
    assert not answers("127.0.0.1", browser.url)
    assert capsys.readouterr().out == ""


def test_an_address_of_another_machine() -> None:
    with pytest.raises(InputError, match=r"cannot serve a page on '192\.0\.2\.1' .*this machine"):
        Browser(SQUARE, "192.0.2.1")


def test_people_come_and_go() -> None:
    with closing(Browser(SQUARE)) as browser:
        for count in (2, 0, 3, 1):
            browser.show(view_of(*(person_at(i) for i in range(count))))
            assert [mesh.visible for mesh in browser._meshes][:count] == [True] * count
            assert not any(mesh.visible for mesh in browser._meshes[count:])
        assert len(browser._meshes) == 3
        browser.show(view_of(person_at(5), calibrated=False))
        np.testing.assert_array_equal(browser._meshes[0].vertices, person_at(5).generator_vertices)


@pytest.mark.slow
@pytest.mark.skipif(
    chromium.CHROMIUM is None, reason="not tested: the page in a browser (no Chromium)"
)
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Picture, mesh and figures are there, and every button asks for what it says."""
    with closing(Browser(SQUARE)) as browser:
        browser.show(view_of(person_at(-0.4)))
        with chromium.open_page(browser.url, tmp_path) as page:
            page.wait_for("document.body.innerText.includes('3 dropped')")
            text = page.evaluate("document.body.innerText")
            for words in (
                "serial, after calibration",
                "recording live.mp4",
                "camera to mesh 16.0 ms",
            ):
                assert words in text
            for action, label in view_of().labels.items():
                page.click(label)
                assert browser._asked.get(timeout=30) is action

            def is_drawn() -> bool:
                """Both the picture and, lit by the page and so of about its hue, the mesh."""
                picture = cv2.imread(str(page.screenshot(tmp_path / "page.png")))
                scene, panel = np.split(picture, [picture.shape[1] * 2 // 3], axis=1)
                hue, saturation, _ = np.moveaxis(cv2.cvtColor(scene, cv2.COLOR_BGR2HSV), -1, 0)
                mesh = (saturation > 40) & (abs(hue.astype(int) - 13) < 6)
                return bool(share_of(panel, CALIBRATED) > 0.01 and mesh.mean() > 0.01)

            wait_until(is_drawn)


# Without


def test_figures_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Figures()) as figures:
        figures.show(view_of())
        assert list(figures.poll()) == []
    assert not figures.draws
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("viewer", "package", "extra"), [(Window, "pygame", "window"), (Browser, "viser", "viewer")]
)
def test_a_viewer_that_is_not_installed(
    viewer: type, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingDependency, match=rf"pip install .*{extra}"):
        viewer(SQUARE)
