"""Recipes and command lines that cannot be meant: one line each, before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import seeded

from pchmr_engines.errors import InputError
from pchmr_export.ready import OPEN, list_table, ready_recipe
from pchmr_export.recipe import Recipe, recipe_from_tables
from pchmr_export.recipe_body import make_body

Run = Callable[..., tuple[int, str, str]]
SERIAL = {"generator": seeded("spin_hmr"), "lifter": seeded("semgcn_plain")}
POSE3D = {"generator": seeded("spin_hmr"), "pose3d": seeded("posenet_r50_18j")}


def recipe(stages: dict[str, Any] = SERIAL, **changes: Any) -> Recipe:
    tables = {"name": "r", "body": {"file": "synthetic"}, "stages": stages, **changes}
    return recipe_from_tables(tables, "r.toml")


def takes(stage: str, **given: Any) -> dict[str, Any]:
    """A recipe with a custom stage that takes this."""
    outputs = ["joints"] if stage == "lifter" else ["rotmats", "betas", "cam"]
    custom = {"kind": "custom", "source": "x.onnx", "outputs": outputs, "skeleton": "h36m17"}
    return {"stages": SERIAL | {stage: custom | {"takes": given}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": {"generator": seeded("spin_hmr"), "pose2d": seeded("hrnet_w32_256x192")}},
            "no topology runs the stage pose2d: mesh-only do without; leave it out, or",
        ),
        (
            {"stages": {**SERIAL, "pose3d": seeded("posenet_r50_18j")}, "topologies": ["serial"]},
            "no topology runs the stage pose3d: serial do without",
        ),
        ({"calibration": {"bones": 0}}, "calibration.bones is 0; expected 1 to 8"),
        ({"calibration": {"bones": 9}}, "calibration.bones is 9; expected 1 to 8"),
        (
            {"body": {"file": "open", "regressors": {"h36m17": "J.npy"}}},
            "the open body brings its own regressors: leave body.regressors out",
        ),
        (
            {"body": {"file": "SMPL.pkl", "regressors": {"h36m": "J.npy"}}},
            "body.regressors: skeleton 'h36m' is unknown; did you mean h36m17",
        ),
        (
            {
                "stages": SERIAL
                | {"generator": seeded("spin_hmr") | {"settings": {"camra": "weak"}}}
            },
            "generator.settings.camra is unknown; did you mean camera",
        ),
        (
            {
                "stages": SERIAL
                | {"lifter": seeded("semgcn_plain") | {"settings": {"box_scale": 1}}}
            },
            "lifter.settings.box_scale is unknown; known: keep, rate_hz, window",
        ),
        (
            {"stages": SERIAL | {"generator": seeded("SPIN_hmr")}},
            "no network is called 'SPIN_hmr'; did you mean spin_hmr",
        ),
        ({"stages": "all"}, "stages is 'all'; expected a table"),
        (takes("generator", image={"size": [224, 0], "crop": "spin"}), r"image.size has 0; expect"),
        (takes("generator", image={"size": [9, 9], "crop": "spinn"}), "crop is 'spinn'; did you m"),
        (takes("lifter", keypoints={"skeleton": "h36m17", "frames": 0}), "frames has 0; expected "),
        (
            takes("lifter", keypoints={"skeleton": "h36m17", "normalise": "scren"}),
            "keypoints.normalise is 'scren'; did you mean screen",
        ),
        (takes("generator", features={"width": 0}), "features.width has 0; expected whole numbers"),
    ],
)
def test_a_recipe_that_cannot_be_meant(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spin_hmr+hrnet_w32_256x192", r"as in spin_hmr\+hrnet_w32_256x192\+videopose3d_coco_243$"),
        ("semgcn_nonlocal", r"there is nothing to lift: .* as in spin_hmr\+semgcn_nonlocal$"),
        ("open+semgcn_nonlocal", "open is a bundle of its own, to which nothing is added"),
    ],
)
def test_a_name_that_lacks_a_part_is_told_a_whole_one(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ready_recipe(name)
    if " as in " in str(caught.value):
        assert ready_recipe(str(caught.value).split(" as in ")[1]).topologies


def test_a_template_stands_where_posenet_sees_it() -> None:
    assert recipe(POSE3D).topologies == ("parallel", "template", "mesh-only")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*, only a folder$"):
        recipe().path(str(tmp_path))


def test_serial_can_be_left_out_where_a_regressor_is_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "body.npz", **_body_with("h36m17"))
    stages = {
        "generator": seeded("spin_hmr"),
        "pose2d": seeded("hrnet_w32_256x192"),
        "lifter": seeded("videopose3d_coco_243"),
    }
    body = {"file": str(tmp_path / "body.npz")}
    with pytest.raises(
        InputError, match=r"coco17 = .FILE.npy. \}, or leave out the topology serial"
    ):
        make_body(recipe(stages, body=body))
    without = recipe(stages, body=body, topologies=["parallel"])
    assert make_body(without).calibration.skeleton == "h36m17"


def _body_with(skeleton: str) -> dict[str, np.ndarray]:
    """The synthetic body's file with a regressor of one skeleton."""
    arrays = make_body(recipe()).arrays
    kept = {name: x for name, x in arrays.items() if not name.startswith(("regressor", "calib"))}
    return {**kept, f"regressor_{skeleton}": arrays[f"regressor_{skeleton}"]}


def test_the_list_is_sorted_and_fits_a_terminal() -> None:
    table, _, legend = list_table().partition("\n\n")
    names = [line.split()[0] for line in table.splitlines()[1:]]
    assert names == [*OPEN, *sorted(names[len(OPEN) :])]
    assert max(map(len, [*table.splitlines(), *legend.splitlines()])) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["spin_hmr+videopose3d_coco_243"] == ["s", "h36m17,", "coco17"]
    assert rows["hmr2+hrnet_w48_384x288+semgcn_nonlocal"] == ["s", "p", "t", "semgcn16", "*"]
    assert rows["vibe+posenet_r50_18j"] == ["p", "t", "posenet18"]
