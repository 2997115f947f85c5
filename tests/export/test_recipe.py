"""Recipes: what they say, and each way in which one can be wrong, in a line."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from pchmr_engines.errors import InputError
from pchmr_export.ready import OPEN, list_table, ready_names, ready_recipe, recipe_text
from pchmr_export.recipe import Recipe, read_recipe, recipe_from_tables, with_files
from pchmr_export.recipe_checks import plays
from pchmr_export.strict_toml import read_toml
from pchmr_kernels.skeletons import SKELETONS
from pchmr_training.networks import NETWORKS


def seeded(network: str) -> dict[str, Any]:
    return {"network": network, "checkpoint": "seeded"}


def tables(**changes: Any) -> dict[str, Any]:
    """A recipe in order, with other stages or tables."""
    stages = {"generator": seeded("spin_hmr"), "lifter": seeded("semgcn_plain")}
    stages |= changes.pop("stages", {})
    return {
        "name": "r",
        "body": {"file": "synthetic"},
        "stages": {name: stage for name, stage in stages.items() if stage},
        **changes,
    }


CUSTOM = {
    "kind": "custom",
    "source": "nets.onnx",
    "outputs": ["vertices", "cam"],
    "takes": {"image": {"size": [224, 224], "crop": "spin"}},
}


def test_a_recipe_says_its_parts() -> None:
    recipe = recipe_from_tables(
        tables(stages={"pose2d": seeded("hrnet_w32_256x192")})
        | {"calibration": {"conversions": ["coco17 -> semgcn16"]}},
        "r.toml",
    )
    assert recipe.topologies == ("serial", "parallel", "template", "mesh-only")
    assert recipe.skeleton == "semgcn16"
    assert recipe.conversions() == {
        "lifter": ("coco17", "semgcn16"),
        "target": ("semgcn16", "semgcn16"),
    }


def test_paths_begin_where_the_recipe_lies(tmp_path: Path) -> None:
    text = recipe_text(ready_recipe("spin_hmr+semgcn_plain")).replace('"seeded"', '"a.pt"')
    (tmp_path / "r.toml").write_text(text)
    (tmp_path / "a.pt").touch()
    recipe = read_recipe(tmp_path / "r.toml")
    assert recipe.path(str(recipe.stages["generator"].checkpoint)) == tmp_path / "a.pt"
    with pytest.raises(InputError, match=r"there is no file .*b\.pt"):
        recipe.path("b.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": {"generater": seeded("spin_hmr")}}, "stage 'generater' is unknown; did you "),
        ({"stages": {"generator": {"netwrk": "x"}}}, "netwrk is unknown; did you mean network"),
        ({"stages": {"generator": seeded("spin")}}, "no network is called 'spin'; did you mean s"),
        ({"stages": {"generator": seeded("posenet_r50_18j")}}, "is no generator; known: spin_hmr"),
        ({"stages": {"generator": {"network": "spin_hmr"}}}, "needs a network and a checkpoint"),
        ({"stages": {"lifter": seeded("videopose3d_traj_243")}}, "is no lifter"),
        ({"stages": {"generator": seeded("vibe")}}, 'add a stage encoder with network = "spin_h'),
        ({"stages": {"encoder": seeded("spin_hmr")}}, "nothing takes the features"),
        ({"stages": {"generator": seeded("spin_hmr") | {"precisions": ["fp12"]}}}, "did you mean"),
        (
            {"stages": {"generator": seeded("spin_hmr") | {"precisions": ["fp32", "fp16"]}}},
            "seeded weights are gated in fp32 only, not fp16",
        ),
        (
            {"stages": {"generator": seeded("spin_hmr") | {"precisions": "fp32"}}},
            "precisions is 'fp32'; expected a list",
        ),
        ({"stages": {"generator": None, "lifter": None}}, "make no topology"),
        (
            {"stages": {"lifter": None}, "topologies": ["serial"]},
            "topology serial needs the stages generator and lifter",
        ),
        ({"topologies": ["serail"]}, r"topologies\[0\] is 'serail'; did you mean serial"),
        (
            {"stages": {"pose2d": seeded("hrnet_w32_256x192")}},
            "coco17 -> semgcn16 is approximate, a guess .*; accept it by calibration.conversions",
        ),
        ({"calibration": {"conversions": ["coco17 -> h36m17"]}}, "is named and not needed"),
        ({"calibration": {"skeleton": "humaneva15"}}, "no conversion semgcn16 -> humaneva15"),
        ({"calibration": {"skeleton": "smlp24"}}, "skeleton 'smlp24' is unknown; did you mean smp"),
        ({"body": {"fil": "x"}}, "body.fil is unknown; did you mean file"),
        ({"folder": "x"}, "folder is unknown"),
        ({"stages": {"generator": seeded("spin_hmr") | {"source": "x:y"}}}, 'add kind = "custom"'),
        ({"stages": {"generator": CUSTOM | {"outputs": ["mesh"]}}}, r"expected \['rotmats', 'be"),
        ({"stages": {"generator": CUSTOM | {"takes": {}}}}, "takes has nothing; expected one of"),
        ({"stages": {"generator": CUSTOM | {"checkpoint": "x"}}}, "has a source, and no network"),
        ({"stages": {"lifter": CUSTOM}}, "needs the skeleton of the joints that it gives"),
        ({"stages": {"lifter": CUSTOM | {"skeleton": "h36m17"}}}, "a lifter takes keypoints"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe_from_tables(tables(**changes), "r.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("r.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("name = ", "r.toml is not TOML"), ("stages = {}", "r.toml has no 'name'"), (None, "No such")],
)
def test_a_file_that_is_no_recipe_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_ready_recipes_are_as_their_own_toml_says(tmp_path: Path) -> None:
    names = [name for name in ready_names() if name not in OPEN]
    assert len(names) == len(set(names)) == 50
    for name in names:
        recipe = ready_recipe(name)
        (tmp_path / "r.toml").write_text(recipe_text(recipe))
        again = recipe_from_tables(read_toml(tmp_path / "r.toml"), name)
        assert again == recipe
    assert all(name in list_table() for name in names)


def test_networks_of_every_kind_combine_where_their_joints_meet() -> None:
    """Every pose stream; each either makes a recipe or says in a line why it does not."""
    streams = list(plays("pose3d")) + list(plays("lifter"))
    streams += [f"{a}+{b}" for a, b in itertools.product(plays("pose2d"), plays("lifter"))]
    refused = {}
    for stream in streams:
        try:
            recipe = ready_recipe(f"spin_hmr+{stream}")
            assert recipe.skeleton in SKELETONS
        except InputError as error:
            refused[stream] = str(error)
    assert refused == {}
    played = {
        name
        for kind in ("encoder", "generator", "pose2d", "pose3d", "lifter")
        for name in plays(kind)
    }
    assert NETWORKS.keys() - played == {"videopose3d_traj_243"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opne", "opne is no recipe: .*'opne' is unknown"),
        ("spin_hmr+hmr_tf", "hmr_tf is one too many: spin_hmr is there"),
        ("spin_hmr+videopose3d_traj_243", "one too many: has no part"),
    ],
)
def test_a_name_that_is_no_recipe_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready_recipe(name)


def test_files_of_the_command_line_take_the_place_of_seeded_ones() -> None:
    recipe = ready_recipe("spin_hmr+semgcn_plain")
    changed = with_files(recipe, {"generator": "a.pt"}, "SMPL.pkl", {"h36m17": "J.npy"})
    assert isinstance(changed, Recipe)
    assert changed.stages["generator"].checkpoint == "a.pt"
    assert changed.stages["lifter"].checkpoint == "seeded"
    assert (changed.body.file, dict(changed.body.regressors)) == ("SMPL.pkl", {"h36m17": "J.npy"})
    with pytest.raises(InputError, match="has no such stage; did you mean generator"):
        with_files(recipe, {"generatr": "a.pt"}, None, {})
