"""The open default as modules: the runtime's numbers, and gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import pchmr_export
import pchmr_training
from pchmr.bodies import Body, BodyModel
from pchmr.camera import Camera
from pchmr.executor import Executor
from pchmr.pipeline import GIVEN
from pchmr.stages.base import Board, KeypointEngine, Row
from pchmr.stages.body import BodyStage, PlaceStage
from pchmr.stages.calibrate import CalibrateStage, ImageTarget
from pchmr.stages.keypoint_generator import KeypointGenerator
from pchmr.stages.lifter import KeypointLifter, MeshLifter
from pchmr_engines import engine_from_onnx
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule
from pchmr_training.open_default.networks import KEYPOINTS, load_network
from pchmr_training.open_streams import OpenLifter, OpenMeshStream, OpenPoseStream, OpenView
from pchmr_training.pchmr import Calibrated, ParallelPCHMR, SerialPCHMR
from pchmr_training.smpl import SmplLayer

Arrays = dict[str, NDArray[Any]]
GRAPHS = Path(pchmr_export.__file__).parent / "data"
WEIGHTS = Path(pchmr_training.__file__).parent / "data"
SMPL = get_skeleton("smpl24")


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    """BlazePose's landmarks in five frames of the demo video, a second apart or so."""
    with np.load(Path(__file__).with_name("recorded_keypoints.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def carry() -> NDArray[np.float32]:
    """Hips and shoulders follow their landmarks, some joints by half."""
    rows = np.zeros((24, 33), np.float32)
    landmarks = get_skeleton("blazepose33")
    for side in ("left", "right"):
        for part, share in (("hip", 1.0), ("shoulder", 1.0), ("knee", 0.5), ("wrist", 0.7)):
            rows[SMPL.index(f"{side}_{part}"), landmarks.index(f"{side}_{part}")] = share
    return rows


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {
        name: load_network(name, WEIGHTS / f"{name}.safetensors")[0]
        for name in ("generator", "lifter")
    }


@pytest.fixture(scope="module")
def open_forms(
    networks: dict[str, Any], body: Body, carry: NDArray[np.float32]
) -> dict[str, nn.Module]:
    layer = SmplLayer(body)
    mesh_stream = OpenMeshStream(networks["generator"], layer)
    calibration = CalibrationModule.from_body(layer, "smpl24")
    pose_stream = OpenPoseStream(networks["lifter"], torch.from_numpy(carry))
    return {
        "serial": SerialPCHMR(mesh_stream, OpenLifter(networks["lifter"]), calibration),
        "parallel": ParallelPCHMR(mesh_stream, pose_stream, calibration),
    }


@pytest.fixture(scope="module")
def open_view(recorded: Arrays) -> OpenView:
    names = ("keypoints", "world", "crop_rotation", "crop_size")
    fx, fy, cx, cy = torch.from_numpy(recorded["camera"]).double()
    arrays = (torch.from_numpy(recorded[name]).double() for name in names)
    return OpenView(*arrays, focal=torch.stack([fx, fy]), centre=torch.stack([cx, cy]))


def run_runtime(
    form: str, recorded: Arrays, body: Body, carry: NDArray[np.float32], module: CalibrationModule
) -> Board:
    """The runtime's own stages, as its pipeline strings them, on the recorded landmarks."""
    people = len(recorded["keypoints"])
    board = Board(
        np.zeros((2, 2, 3), np.uint8),
        Camera(*map(float, recorded["camera"])),
        [Row(0, 0, row, row) for row in range(people)],
        [],
    )
    for name in ("keypoints", "world"):
        board[name] = recorded[name]
    for name in ("crop_rotation", "crop_size"):
        board[name] = recorded[name].astype(np.float64)

    def network(name: str) -> KeypointEngine:
        engine = engine_from_onnx(GRAPHS / f"{name}.onnx", backend="onnxruntime", threads=1)
        return KeypointEngine(engine, KEYPOINTS, people, 1)

    bones = int((module.A > 0).sum(1).max())
    nobody = torch.zeros(0, 24, 3)
    weights, _ = module.to_sparse(torch.zeros(0, 300, 3), nobody, nobody, bones)
    pose = (
        [MeshLifter(network("lifter"))]
        if form == "serial"
        else [
            KeypointLifter(network("lifter"), "keypoints"),
            ImageTarget(carry, "keypoints", "world"),
        ]
    )
    stages = [
        KeypointGenerator(network("generator")),
        BodyStage(BodyModel(body), "smpl24"),
        PlaceStage("landmarks", 0),
        *pose,
        CalibrateStage(Calibrator(SMPL, weights)),
    ]
    Executor(stages, GIVEN, parallel=False).run(board)
    return board


@torch.no_grad()
@pytest.mark.parametrize("form", ["serial", "parallel"])
def test_open_default_agrees_with_the_runtime(
    form: str,
    open_forms: dict[str, nn.Module],
    open_view: OpenView,
    recorded: Arrays,
    body: Body,
    carry: NDArray[np.float32],
) -> None:
    """To 0.1 mm, from recorded keypoints to the calibrated mesh."""
    module = open_forms[form]
    got: Calibrated = module(open_view)
    board = run_runtime(form, recorded, body, carry, module.calibration)
    for name, ours in (
        ("vertices", got.mesh.vertices),
        ("translation", got.mesh.translation),
        ("target", got.target.joints),
        ("calibrated", got.vertices),
    ):
        np.testing.assert_allclose(ours, board[name], atol=1e-4, err_msg=name)
    assert np.abs(board["calibrated"] - board["vertices"]).max() > 0.01


@pytest.mark.parametrize("form", ["serial", "parallel"])
def test_open_default_is_fine_tuned_end_to_end(
    form: str, open_forms: dict[str, nn.Module], open_view: OpenView
) -> None:
    """A loss on the calibrated mesh reaches G, L, A and W."""
    module = open_forms[form]
    module.zero_grad()
    module(open_view).vertices.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for part in ("mesh_stream", "calibration"):
        assert any(p.grad.abs().max() > 0 for p in module.get_submodule(part).parameters())
