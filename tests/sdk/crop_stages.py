"""Made-up networks over crops, and a tiny body that they are about, for bundles of tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from crop_graphs import Head, MadeUp, array_graph, heatmap_graph, image_graph, make_bundle
from tiny_body import tiny_arrays

from pchmr.assembly import Assembly
from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.bundle_networks import BundleNetworks
from pchmr_engines.bundle import Bundle
from pchmr_engines.manifest import Crop
from pchmr_kernels.skeletons import get_skeleton

SMPL = get_skeleton("smpl24")
SQUARE = Crop((224, 224), "rgb", "spin")
CAMERA = {"camera": "perspective", "camera_size": 224}
UPRIGHT = np.diag([1.0, -1.0, -1.0])


def mesh_heads() -> dict[str, Head]:
    rest = np.tile(np.eye(3), (24, 1, 1))
    rest[0] = UPRIGHT
    return {
        "rotmats": Head.random(1, rest, 0.02),
        "betas": Head.random(2, np.zeros(10), 0.5),
        "cam": Head.random(3, np.array([0.8, 0.0, 0.3]), 0.05),
    }


GENERATOR = MadeUp(
    "generator",
    "mesh-generator",
    image_graph(SQUARE.size, mesh_heads()),
    "smpl24",
    SQUARE,
    CAMERA,
)


def lifter(taken: str = "h36m17", lifted: str = "h36m17") -> MadeUp:
    given, joints = len(get_skeleton(taken)), h36m_rest()[: len(get_skeleton(lifted))]
    head = Head.random(5, joints, 0.1, 2 * given)
    graph = array_graph("keypoints", (given, 2), {"joints": head})
    return MadeUp("lifter", "lifter", graph, lifted, settings={"keypoints": taken})


def pose2d(decoder: str = "hrnet") -> MadeUp:
    weight = np.random.default_rng(6).normal(size=(17, 3))
    graph = heatmap_graph((96, 128), weight)
    crop = Crop((96, 128), "rgb", "hrnet")
    return MadeUp("pose2d", "pose2d", graph, "coco17", crop, {"decoder": decoder})


def pose3d(decoder: str = "posenet", skeleton: str = "posenet18") -> MadeUp:
    rest = h36m_rest()
    joints = np.concatenate([rest, rest[8:9]])
    crop = Crop((256, 256), "rgb", "posenet")
    if decoder == "posenet":
        joints = 32 + 25 * joints
    head = Head.random(7, joints, 0.01)
    return MadeUp(
        "pose3d",
        "pose3d",
        image_graph(crop.size, {"coord": head}),
        skeleton,
        crop,
        {"decoder": decoder},
    )


def h36m_rest() -> np.ndarray:
    """(17, 3): the tiny body's joints as Human3.6M's, y down."""
    return (
        body_from_arrays(body_arrays()).regressor("h36m17") @ tiny_arrays()["v_template"] @ UPRIGHT
    )


def body_arrays() -> dict[str, np.ndarray]:
    """The tiny body, which regresses Human3.6M's joints as some of SMPL's, or near them."""
    arrays = tiny_arrays()
    near = {"spine": "spine2", "thorax": "neck", "nose": "head"}
    rows = [SMPL.index(near.get(name, name)) for name in get_skeleton("h36m17").joints]
    regressor = arrays["J_regressor"][rows].astype(np.float32)
    nose = get_skeleton("h36m17").index("nose")
    regressor[nose] = (regressor[nose] + arrays["J_regressor"][SMPL.index("neck")]) / 2
    return {**arrays, "regressor_h36m17": regressor}


def without(stage: MadeUp, *settings: str) -> MadeUp:
    kept = {key: value for key, value in (stage.settings or {}).items() if key not in settings}
    return replace(stage, settings=kept)


def assemble(
    folder: Path, stages: list[MadeUp], topology: str, *skeletons: str, **options: Any
) -> Assembly:
    bundle = make_bundle(folder, stages, body_arrays(), *(skeletons or ("h36m17",)))
    return assembly_of(bundle, topology, **options)


def assembly_of(bundle: Bundle, topology: str, **options: Any) -> Assembly:
    model = BodyModel(body_from_arrays(bundle.body()))
    return Assembly(BundleNetworks(bundle, "onnxruntime", 1, 4), topology, model, **options)
