"""A bundle on disk: `Bundle.load` checks all of it first, `write_bundle` makes one whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from .auto import fastest_backend
from .backends import backend_named, engine_from_onnx
from .device_engines import find_built, read_listing
from .engine import Engine, TensorSpec
from .errors import BundleError
from .manifest import (
    FileRef,
    Graph,
    Manifest,
    Stage,
    manifest_digest,
    manifest_from_json,
    manifest_to_json,
    normalised,
)
from .store import extracted, folder_beside, path_inside, read_npz, replace_folder, sha256_of

MANIFEST = "bundle.json"
DATA_FORMATS = {".onnx"}
CODE_FORMATS = {".pt2", ".pt", ".ts"}  # their loaders can run code


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those its manifest lists, byte for byte."""

    root: Path
    manifest: Manifest
    trust: bool = False  # of formats that can run code

    @classmethod
    def load(cls, path: str | Path, trust: bool = False) -> Bundle:
        """The bundle in a folder, which its bundle.json names too, in a zip of it, or of a
        registered name such as "open".

        trust: allow stages in formats that can run code (.pt2, TorchScript).
        Raises: BundleError, one line that says what came, what was expected and what to do.
        """
        root = find_bundle(path)
        if root.is_dir():
            try:
                return cls(root, read_manifest(root, trust), trust)
            except BundleError as error:
                if Path(path) in (root, root / MANIFEST):
                    raise
                mend = f"remove {root}, and {path} is built anew"
                raise BundleError(f"{error}; or {mend}") from error
        try:
            folder = extracted(root)
            return cls(folder, read_manifest(folder, trust), trust)
        except BundleError:  # perhaps it is the copy in the cache that was damaged
            folder = extracted(root, anew=True)
        try:
            return cls(folder, read_manifest(folder, trust), trust)
        except BundleError as error:
            raise BundleError(f"{root}, unpacked: {error}") from error

    @cached_property
    def stages(self) -> Mapping[str, Stage]:
        """The stages by name, in the manifest's order."""
        return {stage.name: stage for stage in self.manifest.stages}

    def stage(self, name: str) -> Stage:
        """The stage `name`. Raises: BundleError when the bundle has none."""
        if name not in self.stages:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no stage {name!r}; it has {list(self.stages)}"
            )
        return self.stages[name]

    def preferring(self, precision: str) -> Bundle:
        """The same bundle; stages that have graphs of `precision` take these where none is named.

        Raises: BundleError where no stage has one.
        """
        held = {graph.precision for stage in self.manifest.stages for graph in stage.graphs}
        if precision not in held:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no stage in {precision}; it has "
                f"{', '.join(sorted(held))}: choose one of these, or export it with "
                f"--precision {precision}"
            )
        stages = tuple(
            replace(
                stage, graphs=tuple(sorted(stage.graphs, key=lambda g: g.precision != precision))
            )
            for stage in self.manifest.stages
        )
        return replace(self, manifest=replace(self.manifest, stages=stages))

    def engine(
        self,
        name: str,
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> Engine:
        """The engine of a stage's graph, checked by the manifest.

        precision: of the graph; None takes the first that the backend runs. Engines that
        `pchmr build` made on this device are used; TensorRT and torch run nothing else.
        Raises: BundleError, EngineError, MissingDependency.
        """
        stage = self.stage(name)
        if backend == "auto":
            graph = stage.graph(precision, ".onnx")
            path = path_inside(self.root, graph.file)
            backend = fastest_backend(path, threads, graph.precision, cache=True)
        chosen = backend_named(backend)
        self.check_trust(chosen.graph)
        graph = stage.graph(precision, chosen.graph)
        path = path_inside(self.root, graph.file)
        target = chosen.load().target(backend, graph.precision) if chosen.built != "never" else None
        if target and (chosen.built == "always" or read_listing(self.root, name, target)):
            built, files = find_built(self.root, stage, graph, target)
            engine = chosen.load().engine_from_built(built, files, path, threads)
        else:
            engine = engine_from_onnx(path, backend, threads, graph.precision)
        _check_graph(stage, graph, stage.inputs, engine.inputs)
        _check_graph(stage, graph, stage.outputs, engine.outputs)
        return engine

    def check_trust(self, suffix: str) -> None:
        """Raises: BundleError for a format that can run code, unless the bundle is trusted."""
        if suffix in CODE_FORMATS and not self.trust:
            raise BundleError(
                f"{suffix} files can run code: load {self.manifest.name!r} with trust=True if you "
                "trust its author"
            )

    def body(self) -> dict[str, np.ndarray]:
        """The arrays of the body file. Raises: BundleError when the bundle has none."""
        if self.manifest.body is None:
            raise BundleError(f"bundle {self.manifest.name!r} has no body file")
        return read_npz(path_inside(self.root, self.manifest.body.file))

    def parity_data(self, name: str) -> dict[str, np.ndarray]:
        """`inputs/<name>` and the framework's `outputs/<name>` of a stage; empty without gates."""
        data = self.stage(name).parity_data
        return read_npz(path_inside(self.root, data.file)) if data else {}


def find_bundle(name: str | Path) -> Path:
    """The path of a bundle. A registered name is built by its entry point first.

    Entry points of the group `pchmr.bundles` are callables without arguments that give a path.
    """
    for entry in entry_points(group="pchmr.bundles"):
        if entry.name == str(name):
            return Path(entry.load()())
    path = Path(name)
    if not path.exists():
        known = sorted(entry.name for entry in entry_points(group="pchmr.bundles"))
        raise BundleError(f"{name} does not exist: give a folder, a zip, or one of {known}")
    return path.parent if path.name == MANIFEST and path.is_file() else path


def read_manifest(root: Path, trust: bool) -> Manifest:
    """The manifest of the bundle in `root`, with all its files checked. Raises: BundleError."""
    file = root / MANIFEST
    if not file.is_file():
        raise BundleError(f"{root} has no {MANIFEST}: give the folder or zip that holds it")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{file} is not UTF-8 text: copy the bundle again") from error
    manifest = manifest_from_json(text, str(file))
    check_files(root, manifest)
    check_formats(manifest, trust)
    return manifest


def check_files(root: Path, manifest: Manifest) -> None:
    """Raises: BundleError when a file is missing, differs from its hash or is not listed."""
    for ref in manifest.files():
        path = path_inside(root, ref.file)
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy or export the bundle again")
        if (found := sha256_of(path)) != ref.sha256:
            raise BundleError(
                f"{path} has sha256 {found[:12]}...; expected {ref.sha256[:12]}...: it was changed "
                "or damaged, copy or export the bundle again"
            )
    listed = {path_inside(root, ref.file) for ref in manifest.files()}
    for path in sorted((root / "stages").rglob("*")):  # a graph could name it as its weights
        if (path.is_symlink() or not path.is_dir()) and path not in listed:
            raise BundleError(f"{path} is not listed in {MANIFEST}: remove it")


def check_formats(manifest: Manifest, trust: bool) -> None:
    """Raises: BundleError for a stage in a format that is unknown, or that needs trust."""
    graphs = ((s.name, graph.file, graph.suffix) for s in manifest.stages for graph in s.graphs)
    for stage, file, suffix in graphs:
        if suffix in CODE_FORMATS and not trust:
            raise BundleError(
                f"stage {stage!r} is {file}, and {suffix} files can run code: pass "
                "trust=True if you trust the bundle's author"
            )
        if suffix not in DATA_FORMATS | CODE_FORMATS:
            raise BundleError(
                f"stage {stage!r} is {file}; expected one of "
                f"{sorted(DATA_FORMATS | CODE_FORMATS)}: export it to ONNX"
            )


def _check_graph(
    stage: Stage, graph: Graph, listed: tuple[TensorSpec, ...], found: Mapping[str, TensorSpec]
) -> None:
    if {spec.name: spec for spec in listed} != found:
        raise BundleError(
            f"stage {stage.name!r}: {graph.file} has {'; '.join(map(str, found.values()))}; "
            f"{MANIFEST} says {'; '.join(map(str, listed))}: export the bundle again"
        )


def check_target(target: Path) -> None:
    """Raises: BundleError where something else than a bundle, or an empty folder, is there."""
    is_bundle = (target / MANIFEST).is_file()
    if target.exists() and not is_bundle and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(f"{target} is there and is no bundle: choose another folder")


def write_bundle(
    target: str | Path, manifest: Manifest, files: Mapping[str, bytes | Path]
) -> Bundle:
    """Write a bundle whole or not at all, and load it.

    manifest: hashes are filled in here and may be left empty. files: contents by path below the
    bundle, exactly those the manifest lists; a Path is copied. A bundle that is already there is
    replaced in one step; another folder is refused.
    Raises: BundleError; the old bundle is then as it was.
    """
    target = Path(target).resolve()
    check_target(target)
    listed = {ref.file for ref in manifest.files()}
    if listed != files.keys():
        raise BundleError(
            f"the manifest lists {sorted(listed)}; the files given are {sorted(files)}: "
            "give exactly the files listed"
        )
    with folder_beside(target) as folder:
        for name, content in files.items():
            path = path_inside(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
        text = manifest_to_json(with_hashes(manifest, folder))
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        manifest = read_manifest(folder, trust=True)
        replace_folder(folder, target)
    return Bundle(target, manifest)


def with_hashes(manifest: Manifest, root: Path) -> Manifest:
    """The manifest with the sha256 of every file as it is in `root`, and its own."""

    def hashed(ref: FileRef) -> FileRef:
        return replace(ref, sha256=sha256_of(root / ref.file))

    def hashed_graph(graph: Graph) -> Graph:
        digest = sha256_of(root / graph.file)
        return replace(graph, sha256=digest, external=tuple(map(hashed, graph.external)))

    stages = tuple(
        replace(
            stage,
            graphs=tuple(map(hashed_graph, stage.graphs)),
            parity_data=hashed(stage.parity_data) if stage.parity_data else None,
        )
        for stage in manifest.stages
    )
    body = manifest.body
    if body is not None:
        body = replace(body, sha256=sha256_of(root / body.file))
    manifest = normalised(replace(manifest, stages=stages, body=body))
    return replace(manifest, sha256=manifest_digest(manifest))
