"""Files and folders that appear whole or not at all, and archives that cannot do harm."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from .errors import BundleError, InputError
from .host import cache_folder

MAX_MEMBERS = 10_000
MAX_BYTES = 32 * 2**30  # of an extracted bundle
SMALL_BYTES = 2**30  # up to here any ratio will do (sparse arrays pack well)
MAX_RATIO = 200  # extracted to packed
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
"""What reading a zip raises; RuntimeError for one that is encrypted or packed in an unknown way."""


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def path_inside(root: Path, relative: str) -> Path:
    """The file `relative` below `root`. Raises: BundleError when it would lie elsewhere."""
    pure = PurePosixPath(relative)
    plain = relative and not pure.is_absolute() and ".." not in pure.parts
    if not plain or "\\" in relative or ":" in relative or "\0" in relative:
        raise BundleError(
            f"{relative!r} is not a path below {root}: bundle files are named relative to it, "
            "with '/' and without '..'"
        )
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{relative!r} is a link that leaves {root}: put the file itself there")
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside `path` and rename it there: readers see the old bytes or the new."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would follow the rename
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A new folder on the file system of `target`; removed at the end unless it was renamed.

    Raises: InputError where none can be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise InputError(
            f"cannot write in {target.parent} ({error.strerror}): choose another folder"
        ) from error
    folder.chmod(0o755)  # mkdtemp's 0700 would follow the rename
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` where `target` is; whoever is killed meanwhile leaves one of them there.

    Atomic where the system can swap two names (Linux); elsewhere the old folder is first renamed.
    """
    while True:
        try:
            os.rename(new, target)  # nothing there, or an empty folder
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _swap(new, target):
            return
        with folder_beside(target) as aside:
            os.rename(target, aside / "old")


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    at_fdcwd, rename_exchange = -100, 2
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0


def extracted(archive: Path, anew: bool = False) -> Path:
    """The folder with the contents of a zip, extracted once into the cache by content hash.

    anew: extract again although the cache has it.
    Raises: BundleError for an archive that is damaged, too large, or writes outside its folder.
    """
    target = cache_folder("bundles") / sha256_of(archive)[:32]
    if target.is_dir() and not anew:
        return target
    try:
        with zipfile.ZipFile(archive) as file, folder_beside(target) as folder:
            check_archive(file, str(archive))
            for member in file.infolist():
                path_inside(folder, member.filename)
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise BundleError(f"{archive}: {member.filename} is a link: pack the file")
            file.extractall(folder)
            replace_folder(folder, target)
    except DAMAGED as error:
        mend = f"copy it again, and see that {target.parent} has room for it"
        raise BundleError(f"{archive} cannot be unpacked ({error}): {mend}") from error
    return target


def check_archive(file: zipfile.ZipFile, where: str) -> None:
    """Raises: BundleError when a zip (or npz) would unpack to more than a bundle can be."""
    members = file.infolist()
    size = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    allowed = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * packed))
    if len(members) > MAX_MEMBERS or size > allowed:
        raise BundleError(
            f"{where} would unpack to {len(members)} files of {size} bytes; allowed are "
            f"{MAX_MEMBERS} files of {allowed} bytes: unpack it yourself if you trust it, and give "
            "the folder"
        )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz, never unpickled. Raises: BundleError."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, str(path))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*DAMAGED, ValueError, MemoryError, tokenize.TokenError) as error:
        raise BundleError(f"{path} is not an npz of plain arrays ({error})") from error


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A compressed npz of `arrays`; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
