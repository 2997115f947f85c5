"""Networks of the user's own as stages: an nn.Module, a TorchScript file or an ONNX file.

    [stages.generator]
    kind = "custom"
    source = "my_networks:graph_cmr"          # or graph_cmr.ts, graph_cmr.onnx
    takes.image = { size = [224, 224], crop = "spin" }
    outputs = ["vertices", "cam"]
    settings = { camera = "weak" }

A module and TorchScript are code: they run only where the user says `trust`. An ONNX file is data.
"""

import hashlib
import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
import torch
from torch import Tensor, nn

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.networks import FeatureInput, ImageInput, KeypointInput, NetworkSpec

from .image_input import ImageNormalisation
from .onnx_graph import OPSET, StageFile, export_graph
from .recipe import Recipe, StageRecipe
from .stage_forms import LoadedNetwork, StageForm, image_tensor, lifter_settings

SCRIPTS = (".ts", ".pt", ".torchscript")
NORMALISED = "normalised"


def is_file(source: str) -> bool:
    """Whether a source is a file and no "package.module:factory"."""
    return source.endswith((".onnx", *SCRIPTS))


def check_trust(recipe: Recipe, name: str, trust: bool) -> None:
    """Raises: InputError where a stage runs code of the user's own, and nobody said it may."""
    stage = recipe.stages[name]
    if stage.kind == "custom" and not str(stage.source).endswith(".onnx") and not trust:
        raise InputError(
            f"{recipe.name}: stage {name} would run the code of {stage.source}: add --trust "
            "(trust=True) if you trust its author"
        )


def load_custom(recipe: Recipe, name: str, trust: bool) -> LoadedNetwork:
    """The network of a custom stage, and its form.

    Raises: InputError for code without trust, a source that is missing, or that fails.
    """
    check_trust(recipe, name, trust)
    stage = recipe.stages[name]
    source = str(stage.source)
    spec = custom_spec(recipe, name)
    network: nn.Module
    sha256: str | None = None
    if is_file(source):
        path = recipe.path(source)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        network = OnnxModule(path) if path.suffix == ".onnx" else _script(path, spec)
    else:
        network = _module(recipe, name, source)
    return LoadedNetwork(spec, network.eval(), sha256, custom_form(name, stage, spec, network))


def custom_spec(recipe: Recipe, name: str) -> NetworkSpec:
    """A custom stage as the registry would describe it."""
    stage = recipe.stages[name]
    takes = stage.takes
    assert takes is not None
    given: ImageInput | KeypointInput | FeatureInput
    if takes.image is not None:
        given = takes.image
    elif takes.keypoints is not None:
        points, joints = takes.keypoints, len(get_skeleton(takes.keypoints.skeleton))
        shape = (1, joints, 2) if points.frames == 1 else (1, points.frames, joints, 2)
        given = KeypointInput(points.skeleton, shape, points.normalise, points.frames)
    else:
        assert takes.features is not None
        given = FeatureInput("encoder", takes.features.frames, takes.features.width)
    return NetworkSpec(
        f"{recipe.name}.{name}",
        nn.Identity,
        given,
        stage.outputs,
        stage.skeleton or "smpl24",
        "m",
        stage.licence or "of its author",
        0,
    )


def custom_form(name: str, stage: StageRecipe, spec: NetworkSpec, network: nn.Module) -> StageForm:
    """What the stage computes, its settings filled in where they follow from the rest."""
    given = spec.input
    settings: dict[str, Any] = {}
    if isinstance(given, ImageInput):
        inputs = image_tensor(given)
    elif isinstance(given, KeypointInput):
        inputs = (TensorSpec("keypoints", (BATCH, *given.shape[1:]), "float32"),)
        settings |= lifter_settings(given)
    else:
        shape = given.shape[1:] if given.frames > 1 else (given.width,)
        inputs = (TensorSpec("features", (BATCH, *shape), "float32"),)
    if not isinstance(given, ImageInput) and given.frames > 1:
        middle = given.frames // 2
        settings |= {"window": given.frames, "keep": [middle, middle + 1]}
    if name == "generator" and isinstance(given, ImageInput):
        settings |= {"camera": "perspective", "camera_size": given.size[1]}
    if name in ("pose2d", "pose3d"):
        settings |= {"decoder": "joints" if name == "pose3d" else "keypoints"}
    image = given if isinstance(given, ImageInput) else None
    settings |= stage.settings
    return StageForm(network, inputs, stage.outputs, stage.skeleton, image, settings)


def write_custom(form: StageForm, network: nn.Module, path: Path) -> StageFile:
    """The graph of a custom stage, as `onnx_graph.export_graph` writes it."""
    if isinstance(network, OnnxModule):
        return _write_onnx(form, network.path, path)
    return export_graph(form.graph_module, form.inputs, form.outputs, path)


def check_outputs(
    where: str, name: str, outputs: Sequence[TensorSpec], skeleton: str | None
) -> None:
    """Raises: InputError for outputs of other shapes than the role's; see also `check_vertices`."""
    joints = len(get_skeleton(skeleton)) if skeleton else 0
    shapes: Mapping[str, tuple[int, ...]] = {
        "rotmats": (24, 3, 3),
        "betas": (10,),
        "cam": (3,),
        "keypoints": (joints, 3),
        "joints": (joints, 3),
        "joints_3d": (joints, 3),
    }
    for spec in outputs:
        wanted = shapes.get(spec.name)
        if wanted and spec.shape[1:][-len(wanted) :] != wanted:
            raise InputError(
                f"{where}: stage {name} gives {spec.name} as {spec.shape}; expected "
                f"{(BATCH, *wanted)}"
            )


def check_vertices(where: str, outputs: Sequence[TensorSpec], vertices: int) -> None:
    """Raises: InputError where a generator gives other vertices than the body's."""
    for spec in outputs:
        if spec.name == "vertices" and spec.shape[1:] != (vertices, 3):
            raise InputError(
                f"{where}: the generator gives {spec.shape[1]} vertices; the body has {vertices}: "
                "name the body that it was made for"
            )


def _module(recipe: Recipe, name: str, source: str) -> nn.Module:
    """What a factory gives; modules beside the recipe are found."""
    module_name, _, factory_name = source.partition(":")
    with _beside(recipe.folder):
        try:
            network = getattr(importlib.import_module(module_name), factory_name)()
        except Exception as error:  # the user's own code raises whatever it does
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"{recipe.name}: stage {name}: {source} fails ({type(error).__name__}: {reason}); "
                "expected package.module:factory, called without arguments"
            ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{recipe.name}: stage {name}: {source} gives a {type(network).__name__}; expected an "
            "nn.Module"
        )
    return network


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    path = str(folder.resolve())
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)


def _script(path: Path, spec: NetworkSpec) -> nn.Module:
    """A TorchScript file as a module that can be traced."""
    try:
        from torch._export.converter import TS2EPConverter

        script = torch.jit.load(str(path), map_location="cpu").eval()
        example = torch.zeros(2, *spec.input.shape[1:])
        module = TS2EPConverter(script, (example,)).convert().module()
    except Exception as error:  # torch raises whatever its converter meets in the file
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise InputError(
            f"{path} cannot be converted from TorchScript ({reason.strip()[:160]}): give an ONNX "
            "file, or the module itself"
        ) from error
    for name in ("train", "eval"):  # which torch has raise, though this one is in eval for good
        vars(module).pop(name, None)
    return module


class OnnxModule(nn.Module):
    """An ONNX file of the user's as a module, run by ONNX Runtime: the reference of its gates."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._engine = engine_from_onnx(path, "onnxruntime", cache=False)
        self._input = next(iter(self._engine.inputs))

    def forward(self, value: Tensor) -> tuple[Tensor, ...]:
        found = self._engine.run({self._input: np.ascontiguousarray(value.numpy())})
        return tuple(torch.from_numpy(array) for array in found.values())


def _write_onnx(form: StageForm, source: Path, path: Path) -> StageFile:
    """The user's file with our names, and with the normalisation of an image in front."""
    model = onnx.load(source)
    if len(model.graph.input) != 1 or len(model.graph.output) != len(form.outputs):
        raise InputError(
            f"{source} takes {[value.name for value in model.graph.input]} and gives "
            f"{[value.name for value in model.graph.output]}; expected one input and outputs for "
            f"{list(form.outputs)}"
        )
    if [entry.version for entry in model.opset_import if not entry.domain] != [OPSET]:
        model = onnx.version_converter.convert_version(model, OPSET)
    (given,) = form.inputs
    _rename(model.graph, model.graph.input[0].name, NORMALISED if form.image else given.name)
    for value, name in zip(tuple(model.graph.output), form.outputs, strict=True):
        _rename(model.graph, value.name, name)
    if form.image is not None:
        model = _behind_normalisation(model, form)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    engine = engine_from_onnx(path, "onnxruntime", cache=False)
    file = StageFile(path, (), tuple(engine.inputs.values()), tuple(engine.outputs.values()))
    if not all(spec.batched for spec in (*file.inputs, *file.outputs)):
        raise InputError(
            f"{source} has a fixed batch: {'; '.join(map(str, (*file.inputs, *file.outputs)))}: "
            "export it with a free first dimension"
        )
    return file


def _behind_normalisation(model: onnx.ModelProto, form: StageForm) -> onnx.ModelProto:
    assert form.image is not None
    with tempfile.TemporaryDirectory() as folder:
        front = Path(folder) / "front.onnx"
        export_graph(ImageNormalisation(form.image), form.inputs, ["values"], front)
        before = onnx.load(front)
    before.ir_version = model.ir_version
    joined = [("values", NORMALISED)]
    model = onnx.compose.merge_models(before, model, joined, prefix1="image.")
    _rename(model.graph, "image.image", "image")
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    if old == new:
        return
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    if new in {*names, *(output for node in graph.node for output in node.output)}:
        _rename(graph, new, f"{new}.inside")
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for tensor in graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name == old:
                    field[index] = new
