"""Pre- and postprocessing gives what the originals gave: fixtures of the parity kit.

Where the kit is missing, numbers of our own run on the day all of it agreed.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pchmr.prepost import CROPS, Crop, crop_person, verify_prepost
from pchmr.prepost.cpn import decode_cpn
from pchmr.prepost.hrnet import decode_hrnet
from pchmr.prepost.synthetic import synthetic_heatmaps, synthetic_image
from pchmr_engines.errors import InputError

NETWORKS = ("cpn", "hmr2", "hmr_tf", "hrnet", "posenet", "semgcn", "spin", "videopose3d")
SIZES = {"cpn": (384, 288), "hrnet": (256, 192), "posenet": (256, 256), "hmr2": (256, 256)}
# rule -> mean red, green, blue of the crop; scale and shift of its affine along x, then along y
GOLDEN = {
    "cpn": ([117.325, 122.837, 114.459], [0.8944, -70.6584, 0.8930, 63.4047]),
    "hmr2": ([108.365, 114.020, 113.067], [0.7739, -58.1572, 0.7739, 15.9420]),
    "hmr_tf": ([121.036, 116.817, 110.964], [0.3980, 16.0000, 0.3980, 54.0000]),
    "hrnet": ([98.933, 105.132, 100.198], [0.6191, -52.9258, 0.6191, 38.3536]),
    "posenet": ([102.001, 106.368, 100.866], [0.6210, -21.0668, 0.6210, 25.6000]),
    "spin": ([124.186, 130.667, 129.536], [0.6788, -50.9091, 0.6788, 13.5758]),
    "vibe": ([103.420, 109.470, 106.395], [0.6156, -36.0796, 0.6156, 22.8629]),
}
GOLDEN_HRNET = {  # joint -> x px, y px, score
    0: [85.4875, -36.1063, 0.5426],
    1: [106.4855, 26.8879, 0.6544],
    3: [85.4875, -61.95, -0.0233],
    6: [125.8684, 337.0129, 0.7776],
}
GOLDEN_CPN = {
    0: [85.7083, -43.0052, 0.89],
    1: [102.4792, 25.3021, 1.0007],
    3: [288.0764, 276.1354, 0.1281],
    6: [125.9583, 348.9219, 1.048],
}


@pytest.fixture(scope="session")
def prepost() -> Path:
    named = os.environ.get("PCHMR_PARITY")
    kit = Path(named) if named else Path(__file__).parents[3] / "shared" / "networks"
    if not (kit / "prepost").is_dir():
        pytest.skip("not tested: agreement with the originals' crops, decoding and cameras")
    return kit / "prepost"


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_original(prepost: Path, name: str) -> None:
    ratios = verify_prepost(prepost / f"prepost_{name}.npz")
    assert ratios
    assert max(ratios.values()) <= 1, {k: v for k, v in ratios.items() if v > 1}


def golden_crop(rule: str) -> Crop:
    image = synthetic_image("golden", (360, 500))
    return crop_person(image, (150.3, -20.6, 330.8, 310.2), rule, SIZES.get(rule, (224, 224)))


@pytest.mark.parametrize("rule", sorted(CROPS))
def test_golden_crops(rule: str) -> None:
    crop = golden_crop(rule)
    colours, affine = GOLDEN[rule]
    # builds of OpenCV differ by up to 3 levels at single pixels, 0.1 in the mean
    np.testing.assert_allclose(crop.pixels.astype(float).mean((0, 1)), colours, atol=0.2)
    (x, zero, dx), (other_zero, y, dy) = crop.affine
    assert zero == other_zero == 0
    np.testing.assert_allclose([x, dx, y, dy], affine, atol=1e-3)


def test_golden_decoding() -> None:
    maps, _ = synthetic_heatmaps("golden", 1, (64, 48))
    found = decode_hrnet(maps[0], golden_crop("hrnet"))
    for joint, expected in GOLDEN_HRNET.items():
        np.testing.assert_allclose(found[joint], expected, atol=1e-3)
    maps, _ = synthetic_heatmaps("golden", 1, (96, 72), gain=200.0, on_grid=False)
    found = decode_cpn(maps[0], golden_crop("cpn"))
    for joint, expected in GOLDEN_CPN.items():
        np.testing.assert_allclose(found[joint], expected, atol=1e-3)


def write_fixture(path: Path, name: str = "semgcn", **changes: Any) -> Path:
    """A fixture of SemGCN's smallest output, with another name or other expectations."""
    prediction = np.arange(96, dtype=np.float32).reshape(2, 16, 3)
    expected = prediction - prediction[:, :1]
    outputs = {"prediction_root": {"shape": [2, 16, 3], "tol": 1e-6} | changes.pop("output", {})}
    meta = {"name": name, "outputs": outputs}
    arrays = {
        "prediction": prediction,
        "positions32_world": np.zeros((1, 32, 3)),
        "orientation_cam0": np.array([1.0, 0, 0, 0]),
        "translation_cam0": np.array([0.0, 0, -1]),
        "resolution_cam0": np.array([1000, 1000]),
        "intrinsic_raw_cam0": np.array([1000.0, 1000, 500, 500, 0, 0, 0, 0, 0]),
        "intrinsic_cam0": np.array([2.0, 2, 0, 0, 0, 0, 0, 0, 0]),
        "prediction_root": expected,
        **changes,
    }
    meta["outputs"]["intrinsic_cam0"] = {"shape": [9], "tol": 1e-9}
    np.savez(path, meta=json.dumps(meta), **arrays)
    return path


def test_a_fixture_passes_and_its_damage_shows(tmp_path: Path) -> None:
    ratios = verify_prepost(write_fixture(tmp_path / "prepost_semgcn_more.npz"))
    assert ratios == {"prediction_root": 0, "intrinsic_cam0": 0}
    wrong = np.zeros((2, 16, 3))
    damaged = verify_prepost(write_fixture(tmp_path / "wrong.npz", prediction_root=wrong))
    assert damaged["prediction_root"] > 1
    shape = write_fixture(tmp_path / "shape.npz", output={"shape": [32, 3]})
    assert verify_prepost(shape)["prediction_root"] == np.inf
    sums = write_fixture(tmp_path / "sums.npz", output={"stride": 1, "sum": 0.0, "abs_sum": 0.0})
    assert verify_prepost(sums)["prediction_root"] > 1


def test_an_output_we_do_not_know_fails(tmp_path: Path) -> None:
    path = write_fixture(tmp_path / "fixture.npz")
    with np.load(path) as arrays:
        content = dict(arrays)
    meta = json.loads(str(content.pop("meta")))
    meta["outputs"]["another"] = {"shape": [1], "tol": 1}
    np.savez(path, meta=json.dumps(meta), another=np.zeros(1), **content)
    assert verify_prepost(path)["another"] == np.inf


def test_what_is_no_fixture_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: cpn, hmr2"):
        verify_prepost(write_fixture(tmp_path / "prepost_other.npz", name="other"))
    broken = tmp_path / "prepost_semgcn.npz"
    broken.write_bytes(write_fixture(tmp_path / "whole.npz").read_bytes()[:300])
    with pytest.raises(InputError, match=r"prepost_semgcn.npz is not a prepost fixture"):
        verify_prepost(broken)
    np.savez(broken, meta=json.dumps({"name": "semgcn", "outputs": {}}))
    with pytest.raises(InputError, match="no array 'positions32_world'"):
        verify_prepost(broken)
