"""One stage of a recipe: checkpoint -> ONNX -> gates on every backend, kept in the work folder."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from pchmr_engines.macs import count_macs
from pchmr_engines.manifest import FileRef, Graph, Parity, Provenance, Stage
from pchmr_engines.store import npz_bytes, sha256_of
from pchmr_engines.strict_json import from_json, parse_json, to_json
from pchmr_engines.verify import Gate
from pchmr_training.checkpoints import load_checkpoint
from pchmr_training.networks import FeatureInput, KeypointInput, NetworkSpec
from pchmr_training.networks.seeding import seeded_state
from pchmr_training.tf_bundle import bundle_prefix

from .custom_stage import check_outputs, load_custom, write_custom
from .examples import form_examples, network_input, parity_arrays, torch_outputs
from .gates import check, keypoint_views, measured, output_parity, run_gates
from .input_gate import input_gates
from .onnx_graph import StageFile, export_graph
from .recipe import ROLES, Recipe
from .stage_forms import LoadedNetwork, StageForm, camera_settings, lifter_settings, network_form
from .streaming_export import export_streaming, sequence_gates, streaming_form
from .work_folder import WorkFolder, tool_versions

CAMERA_SHARE = 0.02  # of the seeded weights that move a generator's camera
THETA = 85  # numbers of HMR's and HMMR's last layer, the camera first


@dataclass(frozen=True)
class BuiltStage:
    """stage: for the manifest. files: by their path in the bundle. gates: as they were met."""

    stage: Stage
    files: Mapping[str, Path]
    gates: tuple[Gate, ...]


def load_network(recipe: Recipe, name: str, trust: bool = False) -> LoadedNetwork:
    """The network of a stage. trust: run the code of a custom one.

    Raises: InputError for another network's file, or for a custom stage as `load_custom`.
    """
    stage = recipe.stages[name]
    spec = stage.spec
    if spec is None:
        return load_custom(recipe, name, trust)
    assert stage.checkpoint is not None
    if stage.is_seeded:
        state = {key: torch.from_numpy(x) for key, x in before_the_camera(spec).items()}
        return LoadedNetwork(spec, spec.with_weights(state), None)
    path = recipe.path(stage.checkpoint)
    return LoadedNetwork(spec, load_checkpoint(path, spec.name).network, checkpoint_sha256(path))


def before_the_camera(spec: NetworkSpec) -> dict[str, NDArray[Any]]:
    """Name-seeded weights; those of a mesh generator put the person before the camera.

    Its cam = (s, tx, ty) is of its own and near (0.9, 0, 0): a negative s is nowhere.
    """
    state = seeded_state(spec.shapes)
    for key, value in state.items():
        leaf = key.replace("/", ".")
        if leaf.endswith(("init_cam", "mean_param")):
            value[:, :3] = 0.9, 0.0, 0.0
        elif "deccam." in leaf:
            value *= CAMERA_SHARE
        elif "3D_module.fc3." in leaf and value.shape[-1] == THETA:
            value[..., :3] *= CAMERA_SHARE
    return state


def checkpoint_sha256(path: Path) -> str:
    """sha256 of a checkpoint; of a TensorFlow bundle, of the hashes of all its files."""
    prefix = bundle_prefix(path)
    if prefix is None:
        return sha256_of(path)
    parts = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    hashes = [sha256_of(part) for part in (Path(f"{prefix}.index"), *parts)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def build_stage(
    recipe: Recipe, name: str, work: WorkFolder, custom: LoadedNetwork | None = None
) -> BuiltStage:
    """A stage, from the work folder where it was made before. custom: the network of a custom one.

    Raises: InputError for its checkpoint, GateFailed where a backend gives something else.
    """
    stage, spec = recipe.stages[name], recipe.stages[name].spec
    if custom is not None:
        return _build_custom(recipe, name, work, custom)
    assert spec is not None
    assert stage.checkpoint is not None
    sha256 = None if stage.is_seeded else checkpoint_sha256(recipe.path(stage.checkpoint))
    crop = recipe.crop_rule(name)
    licence = stage.licence or spec.licence

    def make(folder: Path) -> None:
        network = load_network(recipe, name).network
        source = "name-seeded weights" if sha256 is None else Path(str(stage.checkpoint)).name
        provenance = Provenance(f"{spec.name}: {source}", licence, sha256, tool_versions())
        if is_temporal(spec):
            write_streaming_stage(folder, name, spec, network, provenance, stage.settings)
        else:
            form = network_form(name, spec, network, crop)
            form = replace(form, settings={**form.settings, **stage.settings})
            write_stage(folder, name, form, provenance)

    facts: dict[str, Any] = {"stage": name, "network": spec.name, "crop": crop, "licence": licence}
    facts["settings"] = dict(stage.settings)
    return read_stage(work.step({**facts, "checkpoint": sha256}, make))


def _build_custom(recipe: Recipe, name: str, work: WorkFolder, loaded: LoadedNetwork) -> BuiltStage:
    """A custom stage: what its source is made of is known by the graph it gives alone."""
    stage, form = recipe.stages[name], loaded.form
    assert form is not None
    provenance = Provenance(str(stage.source), loaded.spec.licence, loaded.sha256, tool_versions())
    with tempfile.TemporaryDirectory() as scratch:
        made = write_custom(form, loaded.network, graph_path(Path(scratch), name))
        check_outputs(recipe.name, name, made.outputs, stage.skeleton)
        hashes = [sha256_of(path) for path in (made.path, *made.external)]
        facts = {"stage": name, "recipe": asdict(stage), "graph": hashes}
        make = partial(write_stage, name=name, form=form, provenance=provenance, made=made)
        return read_stage(work.step(facts, make))


def is_temporal(spec: NetworkSpec) -> bool:
    """Whether a network sees several frames."""
    return isinstance(spec.input, FeatureInput) or (
        isinstance(spec.input, KeypointInput) and spec.input.frames > 1
    )


def stage_module(recipe: Recipe, name: str) -> nn.Module:
    """What the graph of a registered network's stage is exported from, with its inputs."""
    loaded = load_network(recipe, name)
    if is_temporal(loaded.spec):
        return streaming_form(loaded.network, loaded.spec)
    return network_form(name, loaded.spec, loaded.network).graph_module.eval()


def write_stage(
    folder: Path,
    name: str,
    form: StageForm,
    provenance: Provenance,
    made: StageFile | None = None,
) -> None:
    """Export, gate and describe a stage of single frames in `folder`, as its bundle will be.

    made: its graph, where that is elsewhere already.
    """
    inputs = form_examples(name, form)
    fed = [network_input(form, values) for values in inputs.values()]
    data = parity_arrays(inputs, torch_outputs(form.module, fed, form.outputs))
    path = graph_path(folder, name)
    if made is not None:
        shutil.move(made.path.parent, path.parent)
        external = tuple(path.with_name(weights.name) for weights in made.external)
        file = replace(made, path=path, external=external)
    else:
        module, rename = form.graph_module, form.graph_rename
        file = export_graph(module, form.inputs, form.outputs, path, rename)
    parity = {key: output_parity(key, data[f"outputs/{key}"]) for key in form.outputs}
    views = keypoint_views(form.settings.get("decoder"))
    found = run_gates(name, file.path, parity, data, views)
    if form.image is not None:
        found += input_gates(name, file.path, inputs["image"], fed[0])
    gates = check(found)
    stage = Stage(
        name=name,
        role=ROLES[name],
        graphs=(),
        inputs=file.inputs,
        outputs=file.outputs,
        provenance=provenance,
        skeleton=form.skeleton,
        crop=form.crop,
        settings=form.settings,
    )
    finish_stage(folder, stage, file, data, measured(parity, gates), gates)


def write_streaming_stage(
    folder: Path,
    name: str,
    spec: NetworkSpec,
    network: nn.Module,
    provenance: Provenance,
    settings: Mapping[str, Any],
) -> None:
    """The same for a network that sees several frames: in its streaming or its window form."""
    made = export_streaming(network, spec, graph_path(folder, name))
    gates = check(
        (
            *run_gates(name, made.file.path, made.parity, made.data),
            *sequence_gates(name, made, network),
        )
    )
    given = spec.input
    more = (
        lifter_settings(given) if isinstance(given, KeypointInput) else camera_settings(spec.name)
    )
    stage = Stage(
        name=name,
        role=ROLES[name],
        graphs=(),
        inputs=made.file.inputs,
        outputs=made.file.outputs,
        provenance=provenance,
        skeleton=spec.skeleton,
        settings={**more, **made.settings, **settings},
    )
    finish_stage(folder, stage, made.file, made.data, measured(made.parity, gates), gates)


def graph_path(folder: Path, name: str) -> Path:
    """Where a stage's fp32 graph lies."""
    return folder / "stages" / f"{name}.fp32.onnx"


def finish_stage(
    folder: Path,
    stage: Stage,
    file: StageFile,
    data: Mapping[str, NDArray[Any]],
    parity: Mapping[str, Parity],
    gates: Sequence[Gate],
) -> None:
    """Write what `read_stage` reads; the graph is there already."""
    macs, params = count_macs(file.path)
    external = tuple(FileRef(f"stages/{path.name}") for path in file.external)
    graph = Graph("fp32", f"stages/{file.path.name}", external, parity)
    data_file = FileRef(f"parity/{stage.name}.npz")
    stage = replace(stage, graphs=(graph,), parity_data=data_file, macs=macs, params=params)
    (folder / "parity").mkdir()
    (folder / data_file.file).write_bytes(npz_bytes(data))
    (folder / "stage.json").write_text(to_json(stage), encoding="utf-8")
    text = json.dumps([asdict(gate) for gate in gates])
    (folder / "gates.json").write_text(text, encoding="utf-8")


def read_stage(folder: Path) -> BuiltStage:
    """What `finish_stage` wrote."""
    path = folder / "stage.json"
    stage = from_json(Stage, parse_json(path.read_text(encoding="utf-8"), str(path)), str(path))
    names = [name for graph in stage.graphs for name in graph.files]
    files = {name: folder / name for name in (*names, f"parity/{stage.name}.npz")}
    gates = json.loads((folder / "gates.json").read_text(encoding="utf-8"))
    return BuiltStage(stage, files, tuple(Gate(**gate) for gate in gates))
