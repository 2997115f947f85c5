"""What `bundle.json` says, schema version 2, as frozen dataclasses."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from .engine import BATCH, TensorSpec
from .errors import BundleError, InputError
from .strict_json import from_json, parse_json, to_json

SCHEMA = 2

Topology = Literal["mesh-only", "serial", "parallel", "template"]
Role = Literal[
    "detector",
    "tracker",  # BlazePose landmarks, which follow people from frame to frame
    "encoder",  # image -> features of a generator that takes a video
    "mesh-generator",
    "pose2d",
    "lifter",
    "pose3d",
    "body",
    "calibrate",
]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


def precision_named(text: str) -> Precision:
    """The precision that a user wrote. Raises: InputError."""
    for known in get_args(Precision):
        if text == known:
            return known
    raise InputError(f"precision {text!r} is unknown; expected one of {list(get_args(Precision))}")


@dataclass(frozen=True)
class FileRef:
    """A file of the bundle. file: path below the bundle, with "/". sha256: of its bytes."""

    file: str
    sha256: str = ""


@dataclass(frozen=True)
class Crop:
    """What an image input shows. size: (width, height) px. affine: name of the rule that crops."""

    size: tuple[int, int]
    colour: Literal["rgb", "bgr"]
    affine: str


@dataclass(frozen=True)
class Parity:
    """A gate of one output against the framework: greatest |difference| x scale, in `unit`.

    scale: units per number of the output (1000 for mm of metres). value: measured at export.
    """

    unit: str
    scale: float
    value: float
    tolerance: float


@dataclass(frozen=True)
class Provenance:
    """Where something came from. licence: one line. exporter: package -> version."""

    source: str
    licence: str
    checkpoint_sha256: str | None = None
    exporter: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A stage's network in one precision, which is inside the file (casts, quantise-dequantise).

    Two graphs may share a file: bf16 beside fp32 is the fp32 graph that the backend runs in bf16.
    external: weight files beside the graph. parity: by output name. notes: how it was made.
    """

    precision: Precision
    file: str
    external: tuple[FileRef, ...] = ()
    parity: Mapping[str, Parity] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def suffix(self) -> str:
        """The format: ".onnx", or ".pt2" of a torch.export program."""
        return PurePosixPath(self.file).suffix

    @property
    def files(self) -> tuple[str, ...]:
        """The graph's own file, and those of its weights."""
        return self.file, *(ref.file for ref in self.external)


@dataclass(frozen=True)
class Stage:
    """One network. graphs: the first runs by default; all have these inputs and outputs.

    parity_data: npz of `inputs/<name>` and the framework's `outputs/<name>`. macs: multiply-adds
    at batch 1. settings: whatever the stage's code reads (anchors, thresholds, joint names, rates).
    """

    name: str
    role: Role
    graphs: tuple[Graph, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Provenance
    skeleton: str | None = None
    crop: Crop | None = None
    parity_data: FileRef | None = None
    macs: int | None = None
    params: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def find_graph(self, precision: str | None, suffix: str | None) -> Graph | None:
        """The first graph of a precision and format, None of which takes any; None without one."""
        for graph in self.graphs:
            if precision in (None, graph.precision) and suffix in (None, graph.suffix):
                return graph
        return None

    def graph(self, precision: str | None = None, suffix: str | None = None) -> Graph:
        """As `find_graph`. Raises: BundleError when the stage has none."""
        if graph := self.find_graph(precision, suffix):
            return graph
        wanted = " ".join(filter(None, (precision, suffix)))
        raise BundleError(
            f"stage {self.name!r} has no {wanted} graph; it has "
            f"{', '.join(f'{graph.precision} {graph.suffix}' for graph in self.graphs)}: "
            "choose one of these, or export the bundle with it"
        )


@dataclass(frozen=True)
class BodyFile:
    """The body: an npz with vertices, faces, regressors and calibration weights."""

    file: str
    provenance: Provenance
    sha256: str = ""


@dataclass(frozen=True)
class Calibration:
    """Weights of one (body, skeleton) pair: the arrays of the body file named `prefix`..."""

    skeleton: str
    prefix: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """All of `bundle.json`. sha256: of the rest of the manifest, so that no byte can change."""

    name: str
    topologies: tuple[Topology, ...]
    stages: tuple[Stage, ...]
    body: BodyFile | None = None
    calibrations: tuple[Calibration, ...] = ()
    schema: int = SCHEMA
    sha256: str = ""

    def files(self) -> Iterator[FileRef]:
        """Every file that the bundle consists of, apart from `bundle.json`."""
        for stage in self.stages:
            graphs = [
                (FileRef(graph.file, graph.sha256), *graph.external) for graph in stage.graphs
            ]
            yield from dict.fromkeys(ref for refs in graphs for ref in refs)  # they may share some
            if stage.parity_data:
                yield stage.parity_data
        if self.body:
            yield FileRef(self.body.file, self.body.sha256)


def manifest_digest(manifest: Manifest) -> str:
    """sha256 of the manifest without its own `sha256`, whatever its layout in the file."""
    rest = {key: value for key, value in asdict(manifest).items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def manifest_to_json(manifest: Manifest) -> str:
    """The text of `bundle.json`."""
    return to_json(manifest)


def normalised(manifest: Manifest) -> Manifest:
    """The manifest as it will be read again: lists for tuples in settings, floats for integers."""
    return from_json(Manifest, parse_json(to_json(manifest), "manifest"), "manifest")


def manifest_from_json(text: str, where: str) -> Manifest:
    """The manifest of a text of `bundle.json`. Raises: BundleError."""
    value = parse_json(text, where)
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        raise BundleError(
            f"{where} has schema {schema!r}; this version reads {SCHEMA}: "
            "update pchmr, or export the bundle with this version"
        )
    manifest = from_json(Manifest, value, where)
    check_manifest(manifest, where)
    if manifest.sha256 != manifest_digest(manifest):
        raise BundleError(
            f"{where} is not as it was written: copy the bundle again, or, if you edited it "
            f"yourself, set its sha256 to {manifest_digest(manifest)}"
        )
    return manifest


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raises: BundleError where names or shapes cannot be meant."""
    names = [stage.name for stage in manifest.stages]
    files = [ref.file for ref in manifest.files()]
    _expect(names, f"{where}.stages is empty; expected at least one stage")
    _expect(manifest.topologies, f"{where}.topologies is empty; expected at least one")
    _expect(len(set(names)) == len(names), f"{where}: stage names {names} are not unique")
    _expect(len(set(files)) == len(files), f"{where}: a file is listed twice in {files}")
    for name in names:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        _expect(plain, f"{where}: stage name {name!r} is not of letters, digits, '_', '-', '.'")
    for ref in manifest.files():
        hexadecimal = re.fullmatch(r"[0-9a-f]{64}", ref.sha256)
        _expect(hexadecimal, f"{where}: sha256 of {ref.file} is {ref.sha256!r}; expected 64 digits")
    for stage in manifest.stages:
        _check_stage(stage, f"{where}: stage {stage.name!r}")


def _check_stage(stage: Stage, where: str) -> None:
    specs = (*stage.inputs, *stage.outputs)
    tensors = [spec.name for spec in specs]
    _expect(stage.inputs and stage.outputs, f"{where} has no inputs or no outputs")
    _expect(len(set(tensors)) == len(tensors), f"{where}: names {tensors} are not unique")
    for spec in specs:
        free = all(isinstance(d, int) and d > 0 for d in spec.shape[1:])
        first = not spec.shape or spec.shape[0] == BATCH or isinstance(spec.shape[0], int)
        _expect(free and first, f"{where}: {spec} is not 'B' or an integer, then integers")
    _expect(stage.graphs, f"{where} has no graphs")
    kinds = [f"{graph.precision} {graph.suffix}" for graph in stage.graphs]
    _expect(len(set(kinds)) == len(kinds), f"{where}: two of its graphs {kinds} are alike")
    for graph in stage.graphs:
        unknown = sorted(graph.parity.keys() - {spec.name for spec in stage.outputs})
        _expect(not unknown, f"{where}: parity names {unknown}, which are no outputs")
        if graph.parity:
            _expect(stage.parity_data, f"{where} has gates, but no parity_data to repeat them from")


def _expect(truth: object, message: str) -> None:
    if not truth:
        raise BundleError(f"{message}: export the bundle again")
