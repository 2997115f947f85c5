"""Finished steps on disk, by what they were made from: a stopped export goes on where it was.

folder = work.step(facts, make)         # make(folder) is called where the step was not done before
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pchmr
import pchmr_training
from pchmr_engines.errors import PchmrError
from pchmr_engines.host import cache_folder
from pchmr_engines.store import folder_beside, replace_folder

TOOLS = ("pchmr", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "openvino", "numpy")
SOURCES = (
    (Path(__file__).parent, "*.py"),
    (Path(pchmr_training.__file__).parent, "**/*.py"),
    (Path(pchmr.__file__).parent / "prepost", "*.py"),
)


def tool_versions() -> dict[str, str]:
    """Package -> version of what makes and judges a graph, as far as it is installed."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def sources_digest() -> str:
    """sha256 of the code that makes stages: with other code they are made anew."""
    digest = hashlib.sha256()
    for folder, pattern in SOURCES:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class WorkFolder:
    """Folders of finished steps below `root`, by default in the cache. Steps appear whole."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder("export")

    def step(self, facts: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a step made from `facts` (JSON values), made by `make` where it is missing.

        make: fills a folder of its own, which is renamed when it returns.
        """
        known = {**facts, "sources": sources_digest(), "tools": tool_versions()}
        text = json.dumps(known, sort_keys=True)
        target = self.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        if not target.is_dir():
            with folder_beside(target) as folder:
                make(folder)
                replace_folder(folder, target)
        return target


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Alone with `target` among the exports of this user and machine.

    Raises: PchmrError where another one is writing it.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:16]
    try:
        with FileLock(cache_folder("locks") / f"{name}.lock", timeout=0):
            yield
    except Timeout:
        raise PchmrError(
            f"another export is writing {target}: wait for it, or choose another folder with -o"
        ) from None
