"""Frames and options a pipeline is hardly made for: it finds nobody, converts them, or says why."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr import Pipeline
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.errors import BundleError, EngineError, InputError

TOPOLOGIES = ("serial", "parallel", "template", "mesh-only")
Image = NDArray[np.uint8]
GetPipeline = Callable[[str], Pipeline]
Load = Callable[..., Pipeline]


def test_nobody_there(pipelines: GetPipeline) -> None:
    assert pipelines("parallel")(np.full((480, 640, 3), 127, np.uint8)) == []


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_half_a_body(topology: str, pipelines: GetPipeline, astronaut: Image) -> None:
    """Legs that cannot be seen are made up, not trusted, and do not drag the mesh."""
    (person,) = pipelines(topology)(astronaut)
    assert np.isfinite(person.vertices).all()
    assert person.keypoints_2d[27:29, 2].max() < 0.5  # ankles
    assert person.bbox[3] <= 512
    if topology in ("parallel", "template"):
        ankles = [7, 8]
        assert person.joint_confidence[ankles].max() < 0.5
        assert person.joint_confidence[[16, 17]].min() > 0.8  # shoulders
    if topology != "template":
        bones = np.linalg.norm(person.joints[[7, 8]] - person.joints[[4, 5]], axis=1)
        assert (bones > 0.25).all()
        assert (bones < 0.6).all()


def test_no_more_people_than_asked_for(load_open: Load, two_people: Image) -> None:
    (person,) = load_open("mesh-only", max_people=1)(two_people)
    assert person.valid
    assert len(load_open("mesh-only", max_people=3)(two_people)) == 2


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda image: image.astype(np.uint16) * 257, id="16 bit"),
        pytest.param(lambda image: image.astype(np.float32) / 255, id="float"),
        pytest.param(
            lambda image: np.concatenate([image, np.full_like(image[..., :1], 255)], -1), id="alpha"
        ),
        pytest.param(lambda image: np.asfortranarray(image), id="columns first"),
        pytest.param(lambda image: image[:, ::-1][:, ::-1], id="a view"),
    ],
)
def test_other_layouts_of_the_same_picture(
    convert: Callable[[Image], np.ndarray], pipelines: GetPipeline, astronaut: Image
) -> None:
    (expected,) = pipelines("parallel")(astronaut)
    (person,) = pipelines("parallel")(convert(astronaut))
    np.testing.assert_array_equal(person.vertices, expected.vertices)


def test_grey_pictures(pipelines: GetPipeline, astronaut: Image) -> None:
    grey = astronaut.mean(-1).astype(np.uint8)
    for image in (grey, grey[..., None]):
        (person,) = pipelines("parallel")(image)
        assert person.valid


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        pytest.param(None, "frame is NoneType; expected an array", id="a file OpenCV cannot read"),
        pytest.param(np.zeros((2, 8, 8, 3), np.uint8), r"\(2, 8, 8, 3\) uint8", id="a batch"),
        pytest.param(np.zeros((3, 64, 64), np.uint8), r"\(3, 64, 64\).*channels last", id="CHW"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)", id="empty"),
        pytest.param(np.zeros((8, 8, 3), "U1"), r"\(8, 8, 3\) <U1", id="text"),
    ],
)
def test_what_is_no_frame(frame: np.ndarray, said: str, pipelines: GetPipeline) -> None:
    with pytest.raises(InputError, match=said):
        pipelines("parallel")(frame)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 500), (700, 20)])
def test_tiny_and_narrow_frames_hold_nobody(size: tuple[int, int], pipelines: GetPipeline) -> None:
    assert pipelines("parallel")(np.full((*size, 3), 90, np.uint8)) == []


def test_options_that_do_not_exist(load_open: Load) -> None:
    with pytest.raises(InputError, match=r"topology 'both': bundle 'open' has serial, parallel"):
        load_open("both")
    with pytest.raises(InputError, match="max_people is 0; expected 1 to 64"):
        load_open(max_people=0)
    with pytest.raises(InputError, match="threads is -1; expected 1 or more"):
        load_open(threads=-1)
    with pytest.raises(EngineError, match=r"backend 'abacus' is unknown; expected one of \['auto'"):
        load_open(backend="abacus")
    with pytest.raises(BundleError, match=r"nowhere does not exist.*'open'"):
        Pipeline.load("nowhere")


def test_a_bundle_that_lacks_a_stage(open_bundle: Bundle, load_open: Load, tmp_path: Path) -> None:
    manifest = open_bundle.manifest
    stages = tuple(stage for stage in manifest.stages if stage.name != "lifter")
    manifest = replace(manifest, stages=stages)
    files = {ref.file: open_bundle.root / ref.file for ref in manifest.files()}
    bundle = write_bundle(tmp_path / "small", manifest, files)
    with pytest.raises(BundleError, match="'open' has no lifter, which the topology needs; it has"):
        load_open("serial", bundle=bundle)
    load_open("mesh-only", bundle=bundle)
