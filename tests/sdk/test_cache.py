"""What the cache holds, and what `pchmr assets prune` removes of it: never what is in use."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome

from pchmr import cache as listing
from pchmr_engines.bundle import entry_points

Command = Callable[..., Outcome]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two builds of `open`, two unpacked zips, two compiled networks and an asset; of each pair
    the second is new, but the current build of `open` is old too."""
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path))
    (current,) = (entry for entry in entry_points(group="pchmr.bundles") if entry.name == "open")
    bundle = current.load().folder()
    old = [tmp_path / "bundles" / "0a1b2c", tmp_path / "openvino" / "1.blob", bundle]
    old.append(tmp_path / "assets" / "video")
    new = [tmp_path / "bundles" / "open-000000000000", tmp_path / "bundles" / "3d4e5f"]
    new.append(tmp_path / "openvino" / "2.blob")
    for path in old + new:
        file = path if path.suffix == ".blob" else path / "bundle.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1_500_000)
    for path in old:
        for file in [path, *path.rglob("*")]:
            os.utime(file, (time.time() - 40 * 86400,) * 2)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for kind in listing.FOLDERS for path in (folder / kind).iterdir()}


def test_what_is_old_goes_and_what_is_in_use_stays(cache: Path, command: Command) -> None:
    (current,) = (entry.path.name for entry in listing.entries() if entry.current)
    told = command("assets").out
    assert "6.0 MB  bundles built or unpacked, 1.5 MB of older builds: pchmr assets prune" in told
    assert "3.0 MB  networks compiled by OpenVINO" in told
    told = command("assets", "prune").out
    assert "open-000000000000  (1.5 MB)" in told
    assert told.endswith("4.5 MB removed\n")
    assert names(cache) == {current, "3d4e5f", "2.blob", "video"}
    command("assets", "prune", "--days", 0)
    assert names(cache) == {current, "video"}


def test_of_a_bundle_that_cannot_tell_all_builds_stay(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(**_: str) -> list[object]:
        class Entry:
            name = "open"

            def load(self) -> object:
                raise ImportError("no onnx")

        return [Entry()]

    monkeypatch.setattr(listing, "entry_points", lost)
    assert not listing.prune(1000)
    assert "open-000000000000" in names(cache)


def test_doctor_tells_the_size(cache: Path, command: Command) -> None:
    assert "cache of 10 MB" in command("doctor", "--json").out
