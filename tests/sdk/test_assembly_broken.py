"""What is said of bundles whose stages cannot be put together."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crop_graphs import Head, MadeUp, image_graph, make_bundle
from crop_stages import (
    GENERATOR,
    SQUARE,
    assemble,
    body_arrays,
    lifter,
    mesh_heads,
    pose2d,
    pose3d,
    without,
)

from pchmr.assembly import Assembly
from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.bundle_networks import BundleNetworks, check_shapes
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import BundleError, InputError
from pchmr_engines.manifest import Provenance, Stage


def test_the_frames_of_a_window_have_the_body_s_shapes() -> None:
    def windows(betas: int) -> Stage:
        outputs = (TensorSpec("betas", ("B", 8, betas), "float32"),)
        made = Provenance("made up", "none")
        return Stage("generator", "mesh-generator", (), (), outputs, made, settings={"window": 20})

    check_shapes(windows(10), betas=(10,))
    with pytest.raises(BundleError, match=r"gives betas \(B, 8, 16\) float32, but the bundle's"):
        check_shapes(windows(16), betas=(10,))


def two_heads() -> Mapping[str, Head]:
    return {name: head for name, head in mesh_heads().items() if name != "cam"}


def sixteen_betas() -> Mapping[str, Head]:
    return {"betas": Head.random(2, np.zeros(16), 0.5)}


BROKEN: dict[str, tuple[list[MadeUp], str, str]] = {
    "no generator": ([lifter()], "serial", "has no mesh-generator, which the topology needs"),
    "no camera": (
        [without(GENERATOR, "camera"), lifter()],
        "serial",
        "stage 'generator' has camera None .*expected 'perspective' or 'weak'",
    ),
    "no cam": (
        [replace(GENERATOR, graph=image_graph(SQUARE.size, two_heads())), lifter()],
        "mesh-only",
        "gives rotmats, betas; expected rotmats, betas, cam",
    ),
    "another body": (
        [replace(GENERATOR, graph=image_graph(SQUARE.size, {**mesh_heads(), **sixteen_betas()}))],
        "mesh-only",
        r"gives betas \(B, 16\) float32, but the bundle's body has \(10\): export it with",
    ),
    "no keypoints": (
        [GENERATOR, without(lifter(), "keypoints")],
        "serial",
        "does not say which joints it takes",
    ),
    "no skeleton": ([GENERATOR, replace(lifter(), skeleton=None)], "serial", "names no skeleton"),
    "decoder": (
        [GENERATOR, pose2d("dark"), lifter()],
        "parallel",
        "decoder 'dark'; known are hrnet",
    ),
    "decoder 3D": (
        [GENERATOR, pose3d("cells")],
        "parallel",
        "decoder 'cells'; expected posenet or",
    ),
    "normalise": (
        [GENERATOR, replace(lifter(), settings={"keypoints": "h36m17", "normalise": "none"})],
        "serial",
        "normalise 'none'; known are screen, pose2mesh",
    ),
    "joints that do not meet": (
        [GENERATOR, lifter("h36m17", "semgcn16")],
        "serial",
        "no conversion semgcn16 -> h36m17; semgcn16 converts to",
    ),
}


@pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")
@pytest.mark.parametrize(("stages", "topology", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_missing_is_named(
    stages: list[MadeUp], topology: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=message):
        assemble(tmp_path / "b", stages, topology).stages()


def test_a_body_without_the_joints(tmp_path: Path) -> None:
    arrays = {key: value for key, value in body_arrays().items() if key != "regressor_h36m17"}
    bundle = make_bundle(tmp_path / "b", [GENERATOR, lifter()], body_arrays(), "h36m17")
    model = BodyModel(body_from_arrays(arrays))
    assembly = Assembly(BundleNetworks(bundle, "onnxruntime", 1, 1), "serial", model)
    with pytest.raises(InputError, match="no regressor for 'h36m17'; it has smpl24"):
        assembly.stages()
