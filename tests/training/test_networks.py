"""Our networks give what the originals gave: fixtures of the parity kit."""

from pathlib import Path

import pytest
import torch

from pchmr_training.networks.fixtures import find_parity_kit, verify_fixture

CHEAP = (
    "cpn50_256x192",
    "cpn_tf50_256x192",
    "hmr_tf",
    "hrnet_w32_256x192",
    "pose2mesh_lifter17",
    "posenet_r50_18j",
    "semgcn_linear16",
    "semgcn_nonlocal",
    "semgcn_plain",
    "spin_hmr",
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
    "pose2mesh_lifter19",
    "posenet_r50_21j",
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
    spec, ratios = verify_fixture(kit / "fixtures" / f"{name}.npz")
    assert spec.name == name
    assert max(ratios.values()) <= 1, ratios
