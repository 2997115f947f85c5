"""The body of a recipe and the calibration's weights: whose they are, and whose they cannot be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_cases import example_theta

from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.camera import Camera
from pchmr.perceptrons import Perceptrons
from pchmr.stages.base import Board
from pchmr.stages.calibrate import CalibrateStage
from pchmr_engines.errors import InputError
from pchmr_export.ready import ready_recipe
from pchmr_export.recipe import BodyRecipe, CalibrationRecipe, Recipe
from pchmr_export.recipe_body import make_body
from pchmr_export.torch_composition import calibration_of
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.weights import SparseWeights
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.calibration_file import TrainedCalibration, digest_of, write_calibration
from pchmr_training.networks.synthetic_body import regressor, synthetic_arrays
from pchmr_training.smpl import SmplLayer


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Serial with semgcn16's joints, on a body file without a regressor for them."""
    np.savez(tmp_path / "body.npz", **synthetic_arrays())
    np.save(tmp_path / "h36m.npy", regressor("smpl:J_regressor_h36m", 17))
    ready = ready_recipe("spin_hmr+semgcn_plain")
    return replace(ready, folder=tmp_path, body=BodyRecipe("body.npz", {"h36m17": "h36m.npy"}))


def write_weights(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with trained weights; what they are for may be changed."""
    body = body_from_arrays(synthetic_arrays())
    rest = make_body(recipe).body.regressor("semgcn16") @ body.v_template
    rows = changes.pop("vertices", len(body.v_template))
    values = np.tile(np.float32([0.75, 0.25]), (rows, 1))
    weights = SparseWeights(np.tile(np.int32([2, 5]), (rows, 1)), values, values / 2)
    known = {"skeleton": "semgcn16", "rest_joints": rest, "faces": digest_of(body.faces)}
    write_calibration(
        recipe.folder / "weights.npz", TrainedCalibration(weights=weights, **(known | changes))
    )
    return replace(recipe, calibration=CalibrationRecipe(weights="weights.npz"))


def perceptrons(recipe: Recipe) -> dict[str, Any]:
    """State of self-rotation and shape compensation, as training would leave it."""
    layer = SmplLayer(make_body(recipe).body)
    torch.manual_seed(0)
    module = CalibrationModule.from_body(layer, recipe.skeleton, Options(self_rotation=True))
    return {
        name: (value + 0.02 * torch.randn_like(value)).detach().numpy()
        for name, value in module.named_parameters()
        if name not in ("logits", "W_support")
    }


def test_initial_weights_are_called_untrained(recipe: Recipe) -> None:
    made = make_body(recipe)
    assert made.calibration.settings == {"trained": False, "conversions": []}
    assert made.provenance.checkpoint_sha256 is not None
    again = body_from_arrays(dict(made.arrays))
    np.testing.assert_allclose(
        again.regressor("semgcn16"), made.body.regressor("semgcn16"), atol=1e-6
    )
    indices = made.arrays["calibration_semgcn16_indices"]
    assert indices.shape == (6890, recipe.calibration.bones)


def test_trained_weights_are_taken_as_they_are(recipe: Recipe) -> None:
    made = make_body(write_weights(recipe))
    assert made.calibration.settings["trained"] is True
    np.testing.assert_array_equal(made.weights.indices[0], [2, 5])
    np.testing.assert_allclose(made.weights.values[0], [0.75, 0.25], atol=1e-3)


@torch.no_grad()
def test_trained_perceptrons_reach_the_bundle_and_the_composition(recipe: Recipe) -> None:
    state = perceptrons(recipe)
    made = make_body(write_weights(recipe, state=state))
    prefix = made.calibration.prefix
    stored = {key for key in made.arrays if key.startswith(f"{prefix}perceptron.")}
    assert stored == {f"{prefix}perceptron.{name}" for name in state}

    layer = SmplLayer(made.body, torch.float64)
    module = calibration_of(made, layer)
    rotmats, betas = (x.double() for x in example_theta(layer))
    vertices = layer(rotmats, betas).vertices
    source = layer.regress("semgcn16", vertices)
    target = source + 0.1 * torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
    expected = module(vertices, source, target, rotmats=rotmats, betas=betas)

    model = BodyModel(body_from_arrays(dict(made.arrays)))
    learnt = Perceptrons.read(made.arrays, prefix, model, made.weights)
    stage = CalibrateStage(Calibrator(module.skeleton, made.weights), learnt)
    board = Board(np.zeros((2, 2, 3), np.uint8), Camera.from_size(2, 2), [], [])
    board["confidence"] = np.ones(source.shape[:2], np.float32)
    given = {"vertices": vertices, "source": source, "target": target}
    for name, value in {**given, "rotmats": rotmats, "betas": betas}.items():
        board[name] = value.float().numpy()
    stage.prepare(board)
    stage.enqueue()
    stage.collect(board)
    np.testing.assert_allclose(board["calibrated"], expected, atol=1e-4)
    module.shape_compensation = None
    plain = module(vertices, source, target, rotmats=rotmats, betas=betas)
    assert (plain - expected).abs().max() > 1e-2


def test_perceptrons_of_another_shape_space_are_refused_in_a_line(recipe: Recipe) -> None:
    state = perceptrons(recipe)
    key = "shape_compensation.perceptron.hidden.weight"
    state[key] = state[key][:, :-4]
    with pytest.raises(InputError, match=r"hidden.weight takes 240 numbers; expected 244, with 10"):
        make_body(write_weights(recipe, state=state))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vertices": 100}, r"weights.npz is for a body of 100 vertices; body.npz has 6890"),
        ({"skeleton": "h36m17"}, "is for joints of h36m17; the recipe calibrates semgcn16"),
        ({"faces": "0" * 64}, "was trained for another body than body.npz"),
    ],
)
def test_weights_of_another_body_are_refused_in_a_line(
    changes: dict[str, Any], message: str, recipe: Recipe
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_body(write_weights(recipe, **changes))
    assert "\n" not in str(caught.value)


def test_a_regressor_that_is_missing_is_named(recipe: Recipe) -> None:
    bare = replace(recipe, body=BodyRecipe("body.npz"))
    with pytest.raises(InputError, match=r"no regressor for semgcn16, only for smpl24: add body"):
        make_body(bare)


def test_the_conversions_of_the_recipe_are_kept() -> None:
    recipe = ready_recipe("spin_hmr+hrnet_w32_256x192+semgcn_plain")
    made = make_body(recipe)
    assert made.calibration.settings["conversions"] == ["coco17 -> semgcn16"]
    assert set(recipe.regressed) == {"semgcn16"}
