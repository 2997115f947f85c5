"""What docs/checkpoints.md says of files and networks is what the code has; its code runs."""

import re
from pathlib import Path
from pkgutil import resolve_name

import cv2
import numpy as np
import pytest
import torch
from seeded_body import write_synthetic_body
from test_networks import CHEAP, EXPENSIVE

from pchmr.prepost import CROPS
from pchmr_kernels.skeletons import SKELETONS
from pchmr_training.checkpoints import WRAPPERS
from pchmr_training.mesh_streams import GENERATORS
from pchmr_training.networks import NETWORKS, ImageInput, KeypointInput, NetworkSpec
from pchmr_training.networks.seeding import seeded_state
from pchmr_training.networks.synthetic_body import regressor

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
# Of the code blocks, the extras, the verbs; places in a file; rules for 2D joints.
OTHERS = {
    *("load_body", "spec", "NetworkMeshStream", "NetworkLifter", "encoder"),
    *("train", "flush", "verify", "bare", "screen", "pose2mesh"),
}
Rows = list[tuple[NetworkSpec, list[str]]]


def rows(title: str) -> Rows:
    """(network, the other cells) of a section's first table."""
    table = PAGE.split(f"\n## {title}\n")[1].split("\n|", 1)[1].split("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [
        (NETWORKS[name], cells) for first, *cells in lines for name in re.findall(r"`(\w+)`", first)
    ]


def is_ambiguous(spec: NetworkSpec) -> bool:
    twins = [other for other in NETWORKS.values() if other.shapes == spec.shapes]
    return len(twins) > 1 or spec.wrappers == ("model_traj",)


def test_files_name_every_network_its_container_and_licence() -> None:
    table = rows("Files")
    assert [spec.name for spec, _ in table] == list(dict.fromkeys(spec.name for spec, _ in table))
    assert {spec.name for spec, _ in table} == NETWORKS.keys()
    for spec, (_, container, needed, licence) in table:
        place = container.strip("`")
        assert (place == "TensorFlow bundle") == spec.tensorflow, spec.name
        assert place in (*spec.wrappers, "TensorFlow bundle", "bare"), spec.name
        assert needed == ("yes" if is_ambiguous(spec) else "no"), spec.name
        assert spec.licence.startswith(licence), spec.name


def test_images_are_as_the_networks_take_them() -> None:
    table = rows("Images")
    images = {n: s.input for n, s in NETWORKS.items() if isinstance(s.input, ImageInput)}
    assert {spec.name for spec, _ in table} == images.keys()
    for spec, (size, numbers, order, crop, _) in table:
        given = images[spec.name]
        assert size.split(",")[0] == f"{given.size[0]}x{given.size[1]}"
        assert order == f"{given.colour.upper()}, {given.layout}"
        assert crop == f"`{given.crop}`"
        assert ("p not divided" in numbers) == (given.value_range == (0.0, 255.0))
        if stated := re.search(r"\(p - \((.*)\)\)/255", numbers):
            mean = [float(value) / 255 for value in stated[1].split(",")]
            np.testing.assert_allclose(mean, given.mean, atol=1e-9)


def test_joints_in_and_out_are_the_networks_own() -> None:
    takers = {n: s.input for n, s in NETWORKS.items() if isinstance(s.input, KeypointInput)}
    table = rows("2D joints")
    assert {spec.name for spec, _ in table} == takers.keys()
    for spec, cells in table:
        given = takers[spec.name]
        assert cells == [f"`{given.skeleton}`", f"`{given.normalise}`"]
    table = rows("What they give")
    assert {spec.name for spec, _ in table} == NETWORKS.keys()
    for spec, (_, skeleton, unit) in table:
        assert skeleton == f"`{spec.skeleton}`"
        assert unit.startswith("**mm**") == spec.unit.startswith("mm"), spec.name


def test_every_name_exists() -> None:
    known = {*NETWORKS, *SKELETONS, *CROPS, *WRAPPERS, *OTHERS}
    spans = set(re.findall(r"`([^`\n]+)`", PROSE))
    assert not {span for span in spans if re.fullmatch(r"[A-Za-z]\w+", span)} - known
    dotted = {span for span in spans if re.fullmatch(r"pchmr[\w.]+", span)}
    assert len(dotted) > 10
    for name in dotted:
        assert callable(resolve_name(name)), name
    section = PROSE.split("## What goes together")[1].split("\n\n")[1].splitlines()[2]
    assert set(re.findall(r"`(\w+)`", section.split(" | ")[1])) == GENERATORS.keys()


def test_what_it_calls_untested_has_no_fixture() -> None:
    listed = PROSE.split("Networks without a fixture")[1].split("- Crops")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == NETWORKS.keys() - {*CHEAP, *EXPENSIVE}


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page loads, with seeded weights."""
    for file, network, container in (
        ("model_checkpoint.pt", "spin_hmr", "model"),
        ("pretrained_h36m_cpn.bin", "videopose3d_h36m_243", "model_pos"),
    ):
        weights = seeded_state(NETWORKS[network].shapes)
        state = {key: torch.from_numpy(value) for key, value in weights.items()}
        torch.save({container: state}, tmp_path / file)
    write_synthetic_body(tmp_path)
    np.save(tmp_path / "J_regressor_h36m.npy", regressor("smpl:J_regressor_h36m", 17))
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_folder")
def test_its_code_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    said = [
        line.split("# ")[1] for block in blocks for line in block.splitlines() if "print(" in line
    ]
    assert capsys.readouterr().out.splitlines() == [text.removesuffix(" metres") for text in said]
