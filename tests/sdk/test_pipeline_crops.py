"""The pipeline with networks over crops, on real frames: what becomes of a Person."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crop_graphs import MadeUp, make_bundle
from crop_stages import GENERATOR, body_arrays, lifter, pose2d, pose3d

from pchmr import Pipeline
from pchmr.camera import Camera
from pchmr.lens import Lens
from pchmr_engines.bundle import Bundle, write_bundle

pytestmark = pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")


def with_people(folder: Path, open_bundle: Bundle, *stages: MadeUp) -> Bundle:
    """BlazePose's detector and landmarks before made-up networks over crops."""
    made_up = make_bundle(folder / "made-up", stages, body_arrays(), "h36m17")
    found = (open_bundle.stage(name) for name in ("detector", "landmarks"))
    people = (
        replace(
            stage,
            parity_data=None,
            graphs=tuple(replace(graph, parity={}) for graph in stage.graphs),
        )
        for stage in found
    )
    manifest = replace(made_up.manifest, stages=(*people, *made_up.manifest.stages))
    own = {ref.file: made_up.root for ref in made_up.manifest.files()}
    files = {ref.file: own.get(ref.file, open_bundle.root) / ref.file for ref in manifest.files()}
    return write_bundle(folder / "bundle", manifest, files)


@pytest.fixture(scope="module")
def crop_bundle(open_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_people(tmp_path_factory.mktemp("crops"), open_bundle, GENERATOR, pose2d(), lifter())


@pytest.mark.parametrize("topology", ["serial", "parallel", "template", "mesh-only"])
def test_two_people_before_one_camera(
    topology: str,
    crop_bundle: Bundle,
    load_open: Callable[..., Pipeline],
    two_people: np.ndarray,
) -> None:
    """A batch of two of at most four; each is placed where their crop lies."""
    with load_open(topology, bundle=crop_bundle, max_people=4) as pipe:
        people = pipe(two_people)
        alone = load_open(topology, bundle=crop_bundle, max_people=1)(two_people)
    assert len(people) == 2
    for person in people:
        assert person.skeleton == "h36m17"
        assert person.keypoints_2d.shape == (33, 3)
        assert person.vertices.shape == person.generator_vertices.shape == (48, 3)
        assert person.joints.shape == (17, 3)
        assert np.isfinite(person.vertices).all()
        if topology != "template":  # heat maps of noise place nobody
            assert person.valid
            seen = person.camera.project(person.generator_vertices).mean(0)
            x0, y0, x1, y1 = person.bbox
            assert x0 - 50 < seen[0] < x1 + 50
            assert y0 - 50 < seen[1] < y1 + 50
    first = min(people, key=lambda person: np.abs(np.subtract(person.bbox, alone[0].bbox)).sum())
    np.testing.assert_allclose(first.vertices, alone[0].vertices, rtol=1e-4, atol=1e-4)


def test_branches_side_by_side_change_nothing(
    crop_bundle: Bundle, load_open: Callable[..., Pipeline], two_people: np.ndarray
) -> None:
    options = {"bundle": crop_bundle, "max_people": 2}
    with load_open(**options, side_by_side=True) as beside, load_open(**options) as plain:
        for one, other in zip(beside(two_people), plain(two_people), strict=True):
            np.testing.assert_array_equal(one.vertices, other.vertices)


def test_a_longer_lens_puts_people_farther_away(
    crop_bundle: Bundle, load_open: Callable[..., Pipeline], two_people: np.ndarray
) -> None:
    height, width = two_people.shape[:2]
    focal_px = Camera.from_size(width, height).fx
    near, far = (
        load_open("mesh-only", bundle=crop_bundle, camera=Lens(scale * focal_px))(two_people)[0]
        for scale in (1, 2)
    )
    assert far.camera.fx == 2 * near.camera.fx
    ratio = far.vertices[:, 2].mean() / near.vertices[:, 2].mean()
    assert ratio == pytest.approx(2, abs=0.1)


def test_posenet_needs_no_lifter(
    open_bundle: Bundle, load_open: Callable[..., Pipeline], two_people: np.ndarray, tmp_path: Path
) -> None:
    """Joints of the image itself, as deep as the mesh."""
    bundle = with_people(tmp_path, open_bundle, GENERATOR, pose3d())
    (person,) = load_open("parallel", bundle=bundle)(two_people)
    assert person.target_joints is not None
    np.testing.assert_allclose(person.target_joints[0], person.joints[0], atol=0.05)
