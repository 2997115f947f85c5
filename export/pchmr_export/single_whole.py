"""The whole of a recipe, or of the open default, as one module, with rows to try it on.

whole = whole_of_recipe(recipe, "serial")
whole.form(*inputs), whole.expected
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pchmr.bodies import body_from_arrays
from pchmr.prepost.synthetic import synthetic_image
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights
from pchmr_training.open_streams import OpenLifter, OpenMeshStream, OpenPoseStream, OpenView
from pchmr_training.pchmr import ParallelPCHMR, SerialPCHMR
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import View

from .custom_stage import is_file
from .recipe import Recipe
from .recipe_body import BETAS, RecipeBody, make_body
from .single_forms import INPUTS, OUTPUTS, Form, FromCrops, FromLandmarks, affine_name
from .single_rows import landmark_rows, made_up_camera, real_people
from .stage_build import is_temporal, load_network
from .torch_composition import (
    Clip,
    calibration_of,
    clip_view,
    convention,
    crop_stages,
    person_crops,
    torch_composition,
)
from .torch_programs import OPEN_MODULES

FRAMES = 11  # of the demo video, of which every fifth is a row


@dataclass(frozen=True)
class Whole:
    """form: the graph's module, from `inputs` to `OUTPUTS`. rows: real inputs by name; expected:
    what the PyTorch composition gives for them, in float64. facts: for whoever opens the file."""

    form: Form
    inputs: tuple[TensorSpec, ...]
    rows: Mapping[str, NDArray[Any]]
    expected: Mapping[str, NDArray[Any]]
    facts: Mapping[str, str]


def whole_of_recipe(recipe: Recipe, topology: str, trust: bool = False) -> Whole:
    """Serial or parallel PC-HMR of a recipe's networks.

    Raises: InputError for a topology that its stages do not make, or networks of several frames.
    """
    if topology not in ("serial", "parallel") or topology not in recipe.topologies:
        known = ", ".join(t for t in recipe.topologies if t in ("serial", "parallel")) or "neither"
        raise InputError(f"{recipe.name}: no single file of {topology!r}; its stages allow {known}")
    names = ["generator", "lifter"]
    if topology == "parallel":
        names = ["generator", "pose3d"] if "pose3d" in recipe.stages else [*names, "pose2d"]
    for name in names:
        _check_stage(recipe, name)
    body = make_body(recipe)
    networks = {name: load_network(recipe, name, trust) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApproximateConversion)  # the recipe names them
        composition = torch_composition(recipe, body, networks, topology).eval()
    stages = dict(zip(("image", "pose_image"), crop_stages(names, topology), strict=False))
    images = {image: convention(networks[stage]) for image, stage in stages.items()}
    lifter: Any = networks["lifter"].spec.input if "lifter" in networks else None
    form = FromCrops(composition, images, lifter is not None and lifter.normalise == "screen")

    clip = _clip()
    camera = made_up_camera(real_people(FRAMES)[0].person)
    rows: dict[str, NDArray[Any]] = {}
    for image, stage in stages.items():
        crops = person_crops(recipe, networks, stage, clip)
        rows[image] = np.stack([crop.pixels for crop in crops])
        affines = [cv2.invertAffineTransform(crop.affine) for crop in crops]
        rows[affine_name(image)] = np.stack(affines).astype(np.float32)
    rows |= {name: value for name, value in camera.items() if name in form.inputs}
    focal, centre = (torch.from_numpy(rows[name]).double() for name in ("focal", "centre"))
    view = replace(clip_view(recipe, networks, topology, clip), focal_px=focal, centre=centre)
    licences = {name: recipe.stages[name].licence or networks[name].spec.licence for name in names}
    facts = _facts(recipe.name, topology, body, licences, form)
    return Whole(form, tuple(form.inputs.values()), rows, _expected(form, view), facts)


def whole_of_open(name: str, topology: str) -> Whole:
    """Serial or parallel PC-HMR of "open" or "open-plus". Raises: InputError for another form."""
    if topology not in ("serial", "parallel"):
        raise InputError(f"{name}: no single file of {topology!r}; expected serial or parallel")
    bundle = Bundle.load(name)
    assert bundle.manifest.body is not None
    (pair,), arrays = bundle.manifest.calibrations, bundle.body()
    parts = (arrays[f"{pair.prefix}{part}"] for part in ("indices", "values", "offsets"))
    model, weights = body_from_arrays(arrays, BETAS), SparseWeights(*parts)
    body = RecipeBody(model, arrays, bundle.manifest.body.provenance, weights, {}, pair)
    layer = SmplLayer(model, torch.float64)
    networks: dict[str, Any] = {part: OPEN_MODULES[part]() for part in ("generator", "lifter")}
    mesh_stream = OpenMeshStream(networks["generator"], layer)
    calibration = calibration_of(body, layer)
    own = topology == "parallel" and "pose_landmarks" in bundle.stages
    if topology == "serial":
        lifter = OpenLifter(networks["lifter"])
        form = FromLandmarks(SerialPCHMR(mesh_stream, lifter, calibration), own)
    else:
        stream = OpenPoseStream(networks["lifter"], _carry(pair.settings["carry"]))
        form = FromLandmarks(ParallelPCHMR(mesh_stream, stream, calibration), own)
    seen = real_people(FRAMES)[::5]
    found = landmark_rows(seen, made_up_camera(seen[0].person))
    rows = {key: found[key] for key in form.inputs}
    view = form.view({key: torch.from_numpy(values) for key, values in rows.items()})
    licences = {part: bundle.stages[part].provenance.licence for part in networks}
    facts = _facts(name, topology, body, licences, form)
    return Whole(form.eval(), tuple(form.inputs.values()), rows, _expected(form, view), facts)


def _check_stage(recipe: Recipe, name: str) -> None:
    """Raises: InputError for a stage whose network cannot be a part of a larger graph."""
    stage = recipe.stages[name]
    spec, takes = stage.spec, stage.takes
    temporal = spec is not None and is_temporal(spec)
    if takes is not None:
        temporal = takes.features is not None or bool(
            takes.keypoints and takes.keypoints.frames > 1
        )
    if temporal:
        raise InputError(
            f"{recipe.name}: stage {name} ({stage.network or stage.source}) sees several frames, a "
            "single file is of one: export a bundle, whose graph of that stage takes its state as "
            "inputs, or choose a network of single frames, such as spin_hmr or semgcn_nonlocal"
        )
    if stage.source is not None and is_file(stage.source):
        raise InputError(
            f"{recipe.name}: stage {name} is the file {stage.source}; a single file is made of "
            "PyTorch modules: give its module as source, or export a bundle"
        )


def _clip() -> Clip:
    """A person of the demo video in some of its frames, and a made-up picture."""
    people = real_people(FRAMES)[::5]
    images = [person.image for person in people]
    height, width = images[0].shape[:2]
    made_up = np.ascontiguousarray(synthetic_image("single file", (height, width)))
    box = (0.3 * width, 0.1 * height, 0.6 * width, 0.9 * height)
    return Clip([*images, made_up], [*(seen.person.bbox for seen in people), box])


@torch.inference_mode()
def _expected(form: Form, view: View | OpenView) -> dict[str, NDArray[Any]]:
    found = form.answer(view)
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


def _carry(rows: Mapping[str, Mapping[str, float]]) -> Tensor:
    """(24, 33) of `open_bundle.CARRY`."""
    joints, landmarks = get_skeleton("smpl24"), get_skeleton("blazepose33")
    carry = torch.zeros(len(joints), len(landmarks))
    for joint, weights in rows.items():
        for landmark, weight in weights.items():
            carry[joints.index(joint), landmarks.index(landmark)] = weight
    return carry


def _facts(
    name: str, topology: str, body: RecipeBody, licences: Mapping[str, str], form: Form
) -> dict[str, str]:
    pair = body.calibration
    skeleton = get_skeleton(pair.skeleton)
    return {
        "name": name,
        "topology": topology,
        "frame": "camera: x right, y down, z away; metres; pixels without lens distortion",
        "inputs": json.dumps({key: INPUTS[key] for key in form.inputs}),
        "outputs": json.dumps(dict(OUTPUTS)),
        "skeleton": skeleton.name,
        "joints": " ".join(skeleton.joints),
        "faces": f"not inside: array f of body.npz in a bundle, or of {body.provenance.source}",
        "licences": json.dumps({**licences, "body": body.provenance.licence}),
        "calibration": "trained" if pair.settings.get("trained") else "initial weights, untrained",
        "conversions": json.dumps(pair.settings.get("conversions", [])),
    }
