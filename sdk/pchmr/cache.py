"""What the cache folder holds, how large and how old it is, and what may go.

Everything but the assets can be made again: bundles are built or unpacked, OpenVINO compiles,
`pchmr export` repeats its stages.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from pchmr_engines.host import cache_folder

FOLDERS = {
    "assets": "pinned files, fetched",
    "bundles": "bundles built or unpacked",
    "openvino": "networks compiled by OpenVINO",
    "export": "finished stages of pchmr export",
}


@dataclass(frozen=True)
class Entry:
    """A file or folder of the cache. kind: one of `FOLDERS`. idle_days: since it was last used.

    current: what `open` or another registered bundle is now; old: what it was in another build.
    """

    kind: str
    path: Path
    size: int
    idle_days: float
    current: bool = False
    old: bool = False


def entries() -> Iterator[Entry]:
    """All there is, each with its size in bytes."""
    now, current = time.time(), _current_bundles()
    for kind in FOLDERS:
        for path in sorted(cache_folder(kind).iterdir()):
            files = [file for file in (path, *path.rglob("*")) if file.is_file()]
            facts = [file.stat() for file in files]
            used = max((max(fact.st_atime, fact.st_mtime) for fact in facts), default=now)
            name = path.name.rpartition("-")[0]
            known = kind == "bundles" and name in current
            is_current = known and path == current[name]
            size = sum(fact.st_size for fact in facts)
            idle_days = (now - used) / 86400
            yield Entry(kind, path, size, idle_days, is_current, known and not is_current)


def prune(idle_days: float) -> list[Entry]:
    """Remove bundles of other builds, and what can be made again and was not used for so long."""
    gone = [
        entry
        for entry in entries()
        if entry.old
        or (entry.kind != "assets" and not entry.current and entry.idle_days > idle_days)
    ]
    for entry in gone:
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
    return gone


def _current_bundles() -> dict[str, Path]:
    """Where the registered bundles are, or would be built; without those that cannot tell."""
    found = {}
    for entry in entry_points(group="pchmr.bundles"):
        try:
            found[entry.name] = entry.load().folder()
        except (ImportError, AttributeError):
            continue
    return found
