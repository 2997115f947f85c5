"""Engines that were built on a device: how they lie in a bundle, and how the right one is found.

    engines/<fingerprint>/<stage>.json              what it is: target, graph, batches, I/O, hashes
    engines/<fingerprint>/<stage>-<hash>.plan       the engine (OpenVINO: one .blob a batch)
    engines/<fingerprint>/timing.cache              TensorRT's measurements, for the next build

The fingerprint is of the target. Files are named by their content and the listing is written last,
so that a build that was killed, or two at once, leave an old or a new engine, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engine import TensorSpec
from .errors import BundleError, EngineError
from .manifest import FileRef, Graph, Precision, Stage
from .store import path_inside, sha256_of, write_atomically
from .strict_json import from_json, parse_json, to_json

ENGINES = "engines"
SCHEMA = 1

Progress = Callable[[str, float], None]
"""Told by a build: the phase, and the share of it that is done, 0..1."""


@dataclass(frozen=True)
class Target:
    """What an engine is bound to. version: of the backend. arch: the GPU's or CPU's instructions.

    flags: what else the backend was told that an engine built otherwise would not share.
    """

    backend: str
    version: str
    device: str
    arch: str
    precision: Precision
    flags: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """A folder's name: readable, and different for whatever differs."""
        words = (self.backend, self.version, self.device, self.precision)
        plain = "-".join(re.sub(r"[^a-z0-9.]+", "_", word.lower()).strip("_") for word in words)
        facts = json.dumps(asdict(self), sort_keys=True)
        return f"{plain[:80]}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"

    def __str__(self) -> str:
        return f"{self.backend} {self.version} on {self.device}, {self.precision}"


@dataclass(frozen=True)
class Built:
    """A listing. graph: sha256 of the graph and its weight files. batches: what it is tuned for.

    files: paths below the listing's folder; one, or one a batch.
    """

    stage: str
    target: Target
    graph: str
    batches: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: tuple[FileRef, ...]
    schema: int = SCHEMA


def graph_digest(graph: Graph) -> str:
    """sha256 over a graph and its weight files, from the manifest."""
    hashes = [graph.sha256, *(ref.sha256 for ref in graph.external)]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def build_command(root: Path, stage: Stage, target: Target) -> str:
    """The command that builds an engine here."""
    return (
        f"pchmr build {root} --backend {target.backend} --precision {target.precision} "
        f"--stage {stage.name}"
    )


def find_built(root: Path, stage: Stage, graph: Graph, target: Target) -> tuple[Built, list[Path]]:
    """The engine of a stage's graph for a target, and its files, all of them checked.

    Raises: EngineError, which says what is there instead and gives the command that builds it.
    """
    command = f"run  {build_command(root, stage, target)}"
    built = read_listing(root, stage.name, target)
    if built is None:
        others = sorted({str(other.target) for other in listings(root, stage.name)})
        there = f"; there is one of {' and of '.join(others)}, which runs only there"
        raise EngineError(
            f"stage {stage.name!r} has no engine of {target}{there if others else ''}: {command}"
        )
    where = f"the engine of stage {stage.name!r} for {target}"
    if built.graph != graph_digest(graph):
        raise EngineError(f"{where} was built from another graph: {command}")
    if (built.inputs, built.outputs) != (stage.inputs, stage.outputs):
        raise EngineError(f"{where} has other inputs or outputs than the bundle says: {command}")
    folder = root / ENGINES / target.fingerprint
    paths = [path_inside(folder, ref.file) for ref in built.files]
    for path, ref in zip(paths, built.files, strict=True):
        if not path.is_file() or sha256_of(path) != ref.sha256:
            raise EngineError(f"{path} is missing or was changed: {command}")
    return built, paths


def read_listing(root: Path, stage: str, target: Target) -> Built | None:
    """The listing of a stage's engine for exactly this target, or None."""
    built = _read(root / ENGINES / target.fingerprint / f"{stage}.json")
    return built if built and built.target == target else None


def listings(root: Path, stage: str) -> Iterator[Built]:
    """The readable listings of a stage's engines for any target."""
    found = map(_read, sorted((root / ENGINES).glob(f"*/{stage}.json")))
    return (built for built in found if built)


def _read(file: Path) -> Built | None:
    """A listing; one that is not readable, or of another schema, counts as none."""
    if not file.is_file():
        return None
    try:
        value = parse_json(file.read_text(encoding="utf-8"), str(file))
        return from_json(Built, value, str(file)) if value.get("schema") == SCHEMA else None
    except (BundleError, UnicodeDecodeError, AttributeError):
        return None


def store_built(
    root: Path,
    stage: Stage,
    graph: Graph,
    target: Target,
    batches: tuple[int, ...],
    contents: Mapping[str, bytes],
) -> Built:
    """Write an engine and then its listing; what the old listing named is removed after that.

    contents: by suffix (".plan", ".b4.blob"), in the order of the listing's files.
    """
    folder = root / ENGINES / target.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    old = read_listing(root, stage.name, target)
    files = []
    for suffix, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        files.append(FileRef(f"{stage.name}-{digest[:12]}{suffix}", digest))
        write_atomically(folder / files[-1].file, content)
    built = Built(
        stage.name,
        target,
        graph_digest(graph),
        batches,
        stage.inputs,
        stage.outputs,
        tuple(files),
    )
    write_atomically(folder / f"{stage.name}.json", to_json(built).encode())
    for ref in set(old.files if old else ()) - set(files):
        path_inside(folder, ref.file).unlink(missing_ok=True)
    return built
