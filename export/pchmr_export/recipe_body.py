"""The body of a recipe and the calibration's weights, as the bundle's `body.npz` holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.assets import get_asset
from pchmr.bodies import Body, body_from_arrays, load_body
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Calibration, Provenance
from pchmr_engines.store import sha256_of
from pchmr_kernels.skeletons import SKELETONS, get_skeleton
from pchmr_kernels.weights import SparseWeights, from_dense, initial_weights
from pchmr_training.calibration_file import STATE, TrainedCalibration, read_calibration
from pchmr_training.networks.synthetic_body import regressor, synthetic_arrays

from .calibration_weights import trained_calibration
from .open_bundle import open_bundle
from .recipe import Recipe
from .recipe_checks import approximate_conversions

Arrays = dict[str, NDArray[Any]]

BETAS = 10  # of every generator's shape
SMPL_LICENCE = "licence of its authors; give body.licence in the recipe"


@dataclass(frozen=True)
class RecipeBody:
    """arrays: of `body.npz`. weights: of the pair (body, skeleton of `calibration`); perceptrons:
    what was learnt beside them, by name."""

    body: Body
    arrays: Mapping[str, NDArray[Any]]
    provenance: Provenance
    weights: SparseWeights
    perceptrons: Mapping[str, NDArray[Any]]
    calibration: Calibration


def make_body(recipe: Recipe) -> RecipeBody:
    """The body with the regressors that the recipe's stages need, and the calibration's weights.

    Raises: InputError for a file that is no body, a regressor that it lacks, or weights that were
    trained for another body.
    """
    body, provenance = _load(recipe)
    for skeleton in recipe.regressed:
        try:
            body.regressor(skeleton)
        except InputError:
            serial = "" if skeleton == recipe.skeleton else ", or leave out the topology serial"
            raise InputError(
                f"{recipe.name}: body {recipe.body.file} has no regressor for {skeleton}, only for "
                f"{', '.join(body.regressors)}: add body.regressors = "
                f'{{ {skeleton} = "FILE.npy" }}{serial}'
            ) from None
    trained = _trained(recipe, body)
    weights = trained.weights if trained else _initial(recipe, body)
    perceptrons = trained.state if trained else {}
    settings = {
        "trained": trained is not None,
        "conversions": list(approximate_conversions(recipe, recipe.name)),
    }
    prefix = f"calibration_{recipe.skeleton}_"
    arrays = body_arrays(body)
    arrays |= {
        f"{prefix}{part}": getattr(weights, part) for part in ("indices", "values", "offsets")
    }
    arrays |= {f"{prefix}{STATE}{name}": value for name, value in perceptrons.items()}
    calibration = Calibration(recipe.skeleton, prefix, settings)
    return RecipeBody(body, arrays, provenance, weights, perceptrons, calibration)


def _load(recipe: Recipe) -> tuple[Body, Provenance]:
    file, licence = recipe.body.file, recipe.body.licence
    if file == "synthetic":
        made_up = {
            f"regressor_{name}": regressor(f"smpl:{name}", len(SKELETONS[name]))
            for name in SKELETONS
            if name != "smpl24"
        }
        body = body_from_arrays({**synthetic_arrays(), **made_up}, BETAS, "synthetic body")
        return body, Provenance("synthetic: numbers by name in SMPL's layout", "none: made up")
    if file == "open":
        asset = get_asset("makehuman")
        body = body_from_arrays(Bundle.load(open_bundle()).body(), BETAS, "open body")
        credit = f"{asset.licence}: {asset.credit}"
        return body, Provenance(asset.package.requirement, credit)
    path = recipe.path(file)
    extra = {name: recipe.path(text) for name, text in recipe.body.regressors.items()}
    body = load_body(path, BETAS, extra)
    return body, Provenance(path.name, licence or SMPL_LICENCE, sha256_of(path))


def _trained(recipe: Recipe, body: Body) -> TrainedCalibration | None:
    """The recipe's weights, or those that ship for the open body, if there are any."""
    if recipe.calibration.weights is None:
        return trained_calibration(recipe.skeleton, body_arrays(body))
    path = recipe.path(recipe.calibration.weights)
    trained = read_calibration(path)
    vertices = len(body.v_template)
    if trained.skeleton != recipe.skeleton:
        raise InputError(
            f"{path} is for joints of {trained.skeleton}; the recipe calibrates {recipe.skeleton}: "
            "train it for that skeleton, or name the other one as calibration.skeleton"
        )
    if len(trained.weights.indices) != vertices:
        raise InputError(
            f"{path} is for a body of {len(trained.weights.indices)} vertices; {recipe.body.file} "
            f"has {vertices}: train it for this body with  pchmr train calibration"
        )
    if not trained.fits(body.faces, body.regressor(trained.skeleton) @ body.v_template):
        raise InputError(
            f"{path} was trained for another body than {recipe.body.file}, by its triangles and "
            "joints at rest: train it for this one with  pchmr train calibration"
        )
    _check_perceptrons(path, trained, body)
    return trained


def _check_perceptrons(path: Path, trained: TrainedCalibration, body: Body) -> None:
    """Raises: InputError for perceptrons of another number of shape parameters."""
    bones = len(get_skeleton(trained.skeleton).bones)
    width = 6 * len(body.parents) + body.num_betas + 6 * bones  # as `PosePerceptron` has it
    for name, value in trained.state.items():
        if name.endswith("hidden.weight") and value.shape[1] != width:
            raise InputError(
                f"{path}: {name} takes {value.shape[1]} numbers; expected {width}, with "
                f"{body.num_betas} shape parameters: train it for a body of as many"
            )


def _initial(recipe: Recipe, body: Body) -> SparseWeights:
    bones, smpl = get_skeleton(recipe.skeleton), get_skeleton("smpl24")
    rest_joints = body.regressor(bones.name) @ body.v_template
    A, W = initial_weights(body.v_template, rest_joints, body.lbs_weights, smpl, bones)
    return from_dense(A, W, recipe.calibration.bones)


def body_arrays(body: Body) -> Arrays:
    """A body under the keys of SMPL's file, which `body_from_arrays` reads."""
    joints = len(body.parents)
    return {
        "v_template": body.v_template,
        "shapedirs": body.shapedirs,
        "posedirs": body.posedirs
        if body.posedirs.size
        else np.zeros((*body.v_template.shape, 9 * (joints - 1)), np.float32),
        "J_regressor": body.J_regressor,
        "kintree_table": np.array([body.parents, range(joints)], np.int32),
        "weights": body.lbs_weights,
        "f": body.faces,
        **{f"regressor_{name}": rows for name, rows in body.regressors.items()},
    }
