"""Our networks give what the originals gave: fixtures of the parity kit, and a few own values.

The own values (`golden_networks.json`) were written by this code when it passed every fixture; they
hold where the kit is missing. Weights and inputs follow from names, so no file is needed.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.cli import networks as networks_verb
from pchmr_training.networks import (
    NETWORKS,
    FeatureInput,
    ImageInput,
    KeypointInput,
    get_network,
    spin_hmr,
    vibe,
)
from pchmr_training.networks.cost import count_macs, count_parameters
from pchmr_training.networks.fixtures import (
    Fixture,
    find_parity_kit,
    seeded_network,
    verify_fixture,
)
from pchmr_training.networks.rotations import rot6d_to_rotmat, rotmat_to_rotvec
from pchmr_training.networks.seeding import seeded_input, seeded_tensor
from pchmr_training.networks.semgcn import GROUPED, SemGCN, SemGraphConv
from pchmr_training.networks.videopose3d import VideoPose3D

CHEAP = (
    "cpn50_256x192",
    "cpn_tf50_256x192",
    "hmr_tf",
    "hrnet_w32_256x192",
    "posenet_r50_18j",
    "semgcn_linear16",
    "semgcn_nonlocal",
    "semgcn_plain",
    "smpl",
    "spin_hmr",
    "vibe",
    "videopose3d_causal_27",
    "videopose3d_h36m_243",
    "videopose3d_h36m_243_optimized1f",
    "videopose3d_humaneva15_27",
    "videopose3d_traj_243",
)
EXPENSIVE = (
    "cpn101_384x288",
    "cpn50_384x288",
    "cpn_tf101_384x288",
    "cpn_tf50_384x288",
    "hmmr_tf",
    "hmr2",
    "hrnet_w48_384x288",
    "pose2mesh_lifter17",
    "pose2mesh_lifter19",
    "posenet_r50_21j",
)
GOLDEN = json.loads((Path(__file__).parent / "golden_networks.json").read_text(encoding="utf-8"))
# Without it every coordinate of PoseNet would be the middle, 31.5.
SCALES = {"posenet_r50_18j": {"head.final_layer.weight": 100.0}}


@pytest.fixture(scope="session")
def kit() -> Path:
    folder = find_parity_kit()
    if folder is None:
        pytest.skip("not tested: agreement with the original networks (no $PCHMR_PARITY)")
    return folder


@pytest.mark.parametrize(
    "name", [*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in EXPENSIVE)]
)
def test_the_network_gives_what_the_original_gave(kit: Path, name: str) -> None:
    ratios = verify_fixture(kit / "fixtures" / f"{name}.npz")
    assert max(ratios.values()) <= 1, ratios


def test_every_fixture_of_the_kit_is_in_a_test(kit: Path) -> None:
    assert {path.stem for path in (kit / "fixtures").glob("*.npz")} == {*CHEAP, *EXPENSIVE}


def golden_values(name: str) -> dict[str, list[float]]:
    """Of each output the greatest magnitude and five values, on seeded weights and input."""
    spec = get_network(name)
    image = isinstance(spec.input, ImageInput)
    kind = ("image" if spec.input.layout == "NCHW" else "image_nhwc") if image else "uniform"
    inputs = torch.from_numpy(seeded_input(f"golden:{name}", spec.input.shape, kind))
    network, _ = seeded_network(spec, SCALES.get(name))
    with torch.inference_mode():
        outputs = spec.run(network, inputs)
    flat = {key: value.flatten().double() for key, value in outputs.items()}
    return {
        key: [value.abs().max().item(), *value[:: max(1, len(value) // 5)][:5].tolist()]
        for key, value in flat.items()
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_the_network_gives_what_it_gave_when_it_was_verified(name: str) -> None:
    values = golden_values(name)
    assert values.keys() == GOLDEN[name].keys()
    for output, expected in GOLDEN[name].items():
        np.testing.assert_allclose(
            values[output], expected, rtol=0, atol=1e-4 * expected[0], err_msg=output
        )


def test_seeded_values_are_the_kit_s() -> None:
    """First values of the kit's `first_values`."""
    weights = seeded_tensor("gconv_input.0.gconv.W", (2, 2, 128)).ravel()[:3]
    np.testing.assert_allclose(weights, [0.5635963, -1.3708556, 1.1231021], atol=1e-7)
    kernel = seeded_tensor("resnet_v2_50/conv1/weights", (7, 7, 3, 64)).ravel()[:3]
    np.testing.assert_allclose(kernel, [0.1684607, 0.0982471, -0.164368], atol=1e-7)
    gain = seeded_tensor("expand_bn.weight", (1024,))[:3]
    np.testing.assert_allclose(gain, [0.7212201, 0.4322022, 0.3758379], atol=1e-7)
    assert seeded_tensor("bn1.num_batches_tracked", ()).dtype == np.int64


# Mistakes that the fixtures must catch


def worst_with(kit: Path, name: str, spoil: Callable[[nn.Module], nn.Module]) -> float:
    """Worst error / tolerance of a fixture after a mistake was made in its network."""
    fixture = Fixture.read(kit / "fixtures" / f"{name}.npz")
    spec = fixture.find_network()
    network = spoil(seeded_network(spec)[0])
    (inputs,) = fixture.inputs().values()
    with torch.inference_mode():
        outputs = spec.run(network.eval(), torch.from_numpy(inputs))
    return max(fixture.ratios({key: value.numpy() for key, value in outputs.items()}).values())


def reverse_edges(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, SemGraphConv):
            module.edges = module.edges[::-1]
    return network


def leave_grouped(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if hasattr(module, "restored"):
            module.restored = list(range(16))
    return network


def widen_norms(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 1e-4
    return network


def look_both_ways(network: nn.Module) -> nn.Module:
    assert isinstance(network, VideoPose3D)
    network.causal = False
    return network


def add_relu(network: nn.Module) -> nn.Module:
    regressor = network.get_submodule("regressor")
    regressor.fc1 = nn.Sequential(regressor.fc1, nn.ReLU())
    return network


@pytest.mark.parametrize(
    ("name", "spoil", "at_least"),
    [
        ("semgcn_plain", reverse_edges, 1e3),
        ("semgcn_nonlocal", leave_grouped, 1e2),
        ("videopose3d_causal_27", widen_norms, 3),
        ("videopose3d_causal_27", look_both_ways, 1e3),
        ("vibe", add_relu, 1e3),
    ],
)
def test_mistakes_do_not_pass(
    kit: Path, name: str, spoil: Callable[[nn.Module], nn.Module], at_least: float
) -> None:
    assert worst_with(kit, name, spoil) > at_least


@pytest.mark.parametrize("module", [spin_hmr, vibe])
def test_the_other_layout_of_six_numbers_does_not_pass(
    kit: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "rot6d_to_rotmat", lambda x, **_: rot6d_to_rotmat(x, layout="columns")
    )
    name = module.__name__.rpartition(".")[2]
    assert worst_with(kit, name, lambda network: network) > 1e3


def test_keys_that_differ_from_the_original_s_are_named(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "keys").mkdir()
    shutil.copy(kit / "fixtures" / "semgcn_plain.npz", tmp_path / "fixtures")
    listed = json.loads((kit / "keys" / "semgcn_plain.json").read_text(encoding="utf-8"))
    listed["entries"][0] |= {"shape": [2, 3, 128]}
    listed["entries"][1] |= {"key": "gconv_input.0.gconv.edges"}
    (tmp_path / "keys" / "semgcn_plain.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"3 keys of semgcn_plain differ: gconv_input\.0\.gconv\.W is \(2, 2, 128\), expected "
        r"\(2, 3, 128\); missing gconv_input\.0\.gconv\.edges; unexpected gconv_input\.0\.gconv\.e",
    ):
        verify_fixture(tmp_path / "fixtures" / "semgcn_plain.npz")


# The verb


def test_verify_passes_finds_renamed_fixtures_and_fails_on_unknown_ones(
    kit: Path, tmp_path: Path
) -> None:
    shutil.copytree(kit / "keys", tmp_path / "keys")
    (tmp_path / "fixtures").mkdir()
    shutil.copy(kit / "fixtures" / "semgcn_plain.npz", tmp_path / "fixtures")
    shutil.copy(kit / "fixtures" / "semgcn_nonlocal.npz", tmp_path / "fixtures" / "another.npz")
    command = ["verify", "--fixtures", str(tmp_path)]
    result = CliRunner().invoke(networks_verb, command)
    assert result.exit_code == 0, result.output
    assert "2 of 2 fixtures agree" in result.output

    meta = json.dumps({"name": "nothing", "keys": "none.json", "inputs": {}, "outputs": {}})
    np.savez(tmp_path / "fixtures" / "nothing.npz", meta=meta)
    np.savez(tmp_path / "semgcn_plain_empty.npz", meta=meta)
    np.savez(tmp_path / "listed.npz", meta="[1, 2]")
    np.savez(tmp_path / "other.npz", pose=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    result = CliRunner().invoke(networks_verb, command)
    assert result.exit_code == 1
    assert "CANNOT RUN: nothing.npz: no registered network has its name" in result.output
    assert "broken.npz is not a parity fixture" in result.output
    assert "listed.npz is not a parity fixture" in result.output
    assert "other.npz is not a parity fixture: it has no 'meta'" in result.output
    assert "2 of 7 fixtures agree" in result.output


def test_verify_says_what_it_can_not_compare(kit: Path, tmp_path: Path) -> None:
    """Also where a value's number of elements, or what an input is made of, is not as stated."""
    with np.load(kit / "fixtures" / "semgcn_linear16.npz") as arrays:
        pose, meta = arrays["pose"], json.loads(str(arrays["meta"]))
    stem, odd = tmp_path / "semgcn_linear16", {"keypoints": {"seed": "", "shape": [1], "kind": "?"}}
    np.savez(f"{stem}_a.npz", pose=pose, meta=json.dumps({**meta, "outputs": {}}))
    np.savez(f"{stem}_b.npz", meta=json.dumps(meta))
    np.savez(f"{stem}_c.npz", pose=pose[:7], meta=json.dumps(meta))
    np.savez(f"{stem}_d.npz", pose=pose, meta=json.dumps({**meta, "inputs": odd}))
    result = CliRunner().invoke(networks_verb, ["verify", "--fixtures", str(tmp_path)])
    assert result.exit_code == 1
    assert "semgcn_linear16_a.npz states no outputs and holds pose" in result.output
    assert "semgcn_linear16_b.npz states pose and holds no values" in result.output
    assert result.output.count("CANNOT RUN") == 4
    result = CliRunner().invoke(networks_verb, ["verify", "--fixtures", str(tmp_path / "none")])
    assert "there is no folder" in str(result.exception)


def test_verify_fails_where_a_value_is_off(kit: Path, tmp_path: Path) -> None:
    with np.load(kit / "fixtures" / "semgcn_plain.npz") as arrays:
        content = dict(arrays)
    content["pose"] = content["pose"] + 1e-3
    np.savez(tmp_path / "semgcn_plain.npz", **content)
    result = CliRunner().invoke(networks_verb, ["verify", "--fixtures", str(tmp_path)])
    assert result.exit_code == 1
    assert "pose  FAIL" in result.output


def test_a_kit_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slip in its name would skip every test of parity."""
    monkeypatch.setenv("PCHMR_PARITY", "/not/there")
    with pytest.raises(InputError, match="PCHMR_PARITY is '/not/there', which is no folder"):
        find_parity_kit()


@pytest.mark.slow
def test_the_list_shows_every_network_beside_the_original() -> None:
    result = CliRunner().invoke(networks_verb)
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in NETWORKS)
    assert "Table 2 of the paper" in result.output


# Cost, conventions, forms


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds_are_the_original_s(name: str) -> None:
    spec = NETWORKS[name]
    assert count_parameters(spec) == spec.parameters
    if spec.gmacs is not None:
        assert count_macs(spec) / 1e9 == pytest.approx(spec.gmacs, rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_and_outputs_are_of_known_skeletons(name: str) -> None:
    spec = NETWORKS[name]
    get_skeleton(spec.skeleton)
    if isinstance(spec.input, KeypointInput):
        joints = len(get_skeleton(spec.input.skeleton))
        assert 2 * joints == math.prod(spec.input.shape) / spec.input.frames
    elif isinstance(spec.input, FeatureInput):
        assert spec.input.encoder in NETWORKS


def test_input_traps() -> None:
    images = {name: s.input for name, s in NETWORKS.items() if isinstance(s.input, ImageInput)}
    wide = {name for name, given in images.items() if given.value_range == (0.0, 255.0)}
    assert wide == {"posenet_r50_18j", "posenet_r50_21j"}
    blue_first = {name for name, given in images.items() if given.colour == "bgr"}
    assert blue_first == {"cpn_tf50_256x192", "cpn_tf50_384x288", "cpn_tf101_384x288"}
    for name in blue_first:
        own = images[name.replace("_tf", "")]
        assert images[name].mean == own.mean[::-1]
    last_channel = {name for name, given in images.items() if given.layout == "NHWC"}
    assert last_channel == {*blue_first, "hmr_tf"}


def test_the_regressor_of_spin_has_the_left_leg_first_and_the_lifters_the_right() -> None:
    assert get_skeleton("spin_h36m17").joints[1] == "left_hip"
    lifters = [spec for name, spec in NETWORKS.items() if name.startswith("videopose3d_h36m")]
    assert all(get_skeleton(spec.skeleton).joints[1] == "right_hip" for spec in lifters)
    assert all(spec.skeleton == spec.input.skeleton == "h36m17" for spec in lifters)  # type: ignore[union-attr]
    assert NETWORKS["videopose3d_coco_243"].input.skeleton == "coco17"  # type: ignore[union-attr]


def test_groups_of_semgcn_are_neighbours_in_space() -> None:
    joints = get_skeleton("semgcn16").joints
    named = [(joints[a], joints[b]) for a, b in zip(GROUPED[::2], GROUPED[1::2], strict=True)]
    assert ("right_knee", "right_ankle") in named
    assert ("left_elbow", "left_wrist") in named
    assert ("left_shoulder", "right_shoulder") in named


@pytest.mark.parametrize("causal", [False, True])
def test_the_strided_form_is_the_dilated_one_on_a_window(causal: bool) -> None:
    torch.manual_seed(0)
    dilated = VideoPose3D(widths=(3, 3, 3), channels=32, causal=causal).eval()
    strided = VideoPose3D(widths=(3, 3, 3), channels=32, causal=causal, strided=True).eval()
    strided.load_state_dict(dilated.state_dict())
    keypoints = torch.rand(2, 27, 17, 2)
    with torch.inference_mode():
        torch.testing.assert_close(dilated(keypoints), strided(keypoints), rtol=0, atol=1e-6)


def test_a_frame_depends_on_its_window_and_on_nothing_else() -> None:
    torch.manual_seed(0)
    network = VideoPose3D(widths=(3, 3, 3), channels=32).eval()
    keypoints = torch.rand(1, 40, 17, 2)
    changed = keypoints.clone()
    changed[:, 27:] += 1
    with torch.inference_mode():
        same = (network(keypoints) == network(changed)).all(-1).all(-1)[0]
    assert same.tolist() == [True] + [False] * 13


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, 1.0, math.pi - 1e-4, math.pi])
def test_rotation_vectors_come_back(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64))
    skew = torch.linalg.cross(axis[:, None], torch.eye(3, dtype=torch.float64)[None]).mT
    rotmat = torch.linalg.matrix_exp(angle * skew).requires_grad_()
    rotvec = rotmat_to_rotvec(rotmat)
    expected = angle * axis
    if angle == math.pi and (rotvec * expected).sum() < 0:
        expected = -expected  # half a turn either way
    torch.testing.assert_close(rotvec, expected, rtol=0, atol=1e-7)
    rotvec.sum().backward()
    assert rotmat.grad is not None
    assert torch.isfinite(rotmat.grad).all()


def test_networks_train() -> None:
    """Gradients reach every weight in training mode."""
    network = SemGCN(non_local=True).train()
    network(torch.rand(4, 16, 2)).square().mean().backward()
    assert all(value.grad is not None for value in network.parameters())
