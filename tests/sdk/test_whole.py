"""What is written is whole, or is not there."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings_made_up import write_results

from pchmr.exchange.glb import write_glb
from pchmr.exchange.recording import read_recording
from pchmr.media import write_photo
from pchmr.profiling.trace import write_trace
from pchmr.whole import whole_file
from pchmr_engines.errors import InputError


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def put(path: Path, text: str, then: Callable[[], None] = lambda: None) -> None:
    with whole_file(path) as part:
        part.write_text(text)
        then()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    put(path, "old")
    put(path, "new", lambda: None if path.read_text() == "old" else pytest.fail("already new"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "new"


def test_after_an_error_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    put(path, "old")
    with pytest.raises(InputError, match=r"a\.txt cannot be written \(No space .* make room"):
        put(path, "new", full)
    with pytest.raises(ZeroDivisionError):
        put(path, "new", lambda: 1 // 0)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_two_processes_do_not_share_what_grows(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.txt"

    def other() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            put(path, "other")

    put(path, "this", other)
    assert path.read_text() == "this"


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "a.txt"):
        with pytest.raises(InputError, match="cannot be written"):
            put(place, "text")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "er" / "a.txt"
    put(path, "text")
    assert path.read_text() == "text"


def test_photo_glb_and_trace_on_a_full_disk(tmp_path: Path, monkeypatch) -> None:
    recording = read_recording(write_results(tmp_path / "run.npz", {0: [0, 1]}))
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(InputError, match=r"a\.glb cannot be written \(No space"):
        write_glb(tmp_path / "a.glb", recording)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"a\.png cannot be written \(No space"):
        write_photo(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(Path, "write_text", lambda path, text: full(path.touch()))
    with pytest.raises(InputError, match=r"a\.json cannot be written \(No space"):
        write_trace(tmp_path / "a.json", [])
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]
