"""Bundles of networks over crops: the runtime's stages give what the PyTorch modules give."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from crop_graphs import (
    Head,
    MadeUp,
    array_graph,
    cell_colours,
    heatmap_graph,
    image_graph,
    make_bundle,
)
from seeded_body import person
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pchmr.assembly import GIVEN, Assembly
from pchmr.bodies import Body, BodyModel, body_from_arrays
from pchmr.bundle_networks import BundleNetworks
from pchmr.camera import Camera
from pchmr.executor import Executor
from pchmr.prepost import Crop as PersonCrop
from pchmr.prepost import crop_person
from pchmr.prepost.cpn import decode_cpn
from pchmr.prepost.hrnet import decode_hrnet
from pchmr.stages.base import Board, Row
from pchmr_engines.manifest import Crop as CropSpec
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.mesh_streams import GENERATORS, CropCamera, NetworkMeshStream
from pchmr_training.networks.spin_hmr import MeshParameters
from pchmr_training.pchmr import Calibrated, ParallelPCHMR, SerialPCHMR
from pchmr_training.pose_streams import (
    JointConversion,
    NetworkLifter,
    NetworkPose3D,
    NetworkPoseStream,
)
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat
from pchmr_training.view import Crop, View

SIZE = (1280, 720)
BOXES = np.array([[500.0, 80, 760, 700], [20, 300, 200, 690], [1150.0, 20, 1280, 400]])
LIMIT_M = 5e-5
SMPL_POSE = np.zeros((24, 3))
SMPL_POSE[0] = (3.0, 0.2, 0.1)  # y up to y down


@dataclass(frozen=True)
class MeshKind:
    """A mesh network of the paper as the runtime sees it."""

    name: str
    rule: str
    camera: CropCamera

    @property
    def crop(self) -> CropSpec:
        return CropSpec((self.camera.size, self.camera.size), "rgb", self.rule)

    @property
    def settings(self) -> dict[str, Any]:
        kind = "weak" if self.camera.weak else "perspective"
        return {"camera": kind, "camera_size": self.camera.size}


KINDS = {
    name: MeshKind(name, rule, GENERATORS[name].camera)
    for name, rule in (("spin_hmr", "spin"), ("hmr_tf", "hmr_tf"), ("hmr2", "hmr2"))
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    return person()


@pytest.fixture(scope="module")
def body(arrays: dict[str, Any]) -> Body:
    return body_from_arrays(arrays)


@pytest.fixture(scope="module")
def layer(body: Body) -> SmplLayer:
    return SmplLayer(body, torch.float64)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (36, 64, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(20, 0).repeat(20, 1))


def mesh_heads() -> dict[str, Head]:
    rest = rotvec_to_rotmat(torch.from_numpy(SMPL_POSE)).numpy()
    return {
        "rotmats": Head.random(1, rest, 0.05),
        "betas": Head.random(2, np.zeros(10), 1.0),
        "cam": Head.random(3, np.array([0.9, 0.0, 0.1]), 0.1),
    }


class TorchHeads(nn.Module):
    """The graphs of `crop_graphs` in torch: crops (N, H, W, 3) -> MeshParameters, or one head."""

    def __init__(self, *heads: Head) -> None:
        super().__init__()
        self.heads, self.dtype = heads, nn.Parameter(torch.zeros(()))  # a lifter asks for it

    def forward(self, inputs: Tensor) -> Any:
        flat = inputs.numpy()
        flat = cell_colours(flat) if flat.ndim == 4 else flat.reshape(len(flat), -1)
        answers = [torch.from_numpy(head(flat.astype(np.float32))) for head in self.heads]
        return MeshParameters(*answers) if len(answers) > 1 else answers[0]


def crops_of(image: np.ndarray, spec: CropSpec) -> list[PersonCrop]:
    size = spec.size[1], spec.size[0]
    return [crop_person(image, tuple(box), spec.affine, size) for box in BOXES]


def torch_crop(crops: list[PersonCrop]) -> Crop:
    pixels = np.stack([crop.pixels for crop in crops])
    affine = np.stack([cv2.invertAffineTransform(crop.affine) for crop in crops])
    return Crop(torch.from_numpy(pixels), torch.from_numpy(affine))


def torch_stream(kind: MeshKind, layer: SmplLayer, skeleton: str, joints: str) -> NetworkMeshStream:
    network = TorchHeads(*mesh_heads().values())
    stream = NetworkMeshStream(kind.name, network, layer, skeleton, joints)
    stream.rule = replace(stream.rule, read=lambda output: output)
    return stream


def generator_of(kind: MeshKind) -> MadeUp:
    graph = image_graph(kind.crop.size, mesh_heads())
    return MadeUp("generator", "mesh-generator", graph, "smpl24", kind.crop, kind.settings)


def lifter_of(taken: str, lifted: str, normalise: str = "screen") -> tuple[MadeUp, Head]:
    given, joints = len(get_skeleton(taken)), len(get_skeleton(lifted))
    rest = np.random.default_rng(4).normal(scale=0.3, size=(joints, 3))
    head = Head.random(5, rest, 0.4, 2 * given)
    graph = array_graph("keypoints", (given, 2), {"joints": head})
    settings = {"keypoints": taken, "normalise": normalise, "unit": "m"}
    return MadeUp("lifter", "lifter", graph, lifted, settings=settings), head


def run(
    folder: Path,
    stages: list[MadeUp],
    arrays: dict[str, Any],
    skeleton: str,
    topology: str,
    image: np.ndarray,
    max_people: int = 4,
    boxes: np.ndarray = BOXES,
) -> Board:
    """The board after the runtime's stages, as its pipeline strings them."""
    bundle = make_bundle(folder, stages, arrays, skeleton)
    networks = BundleNetworks(bundle, "onnxruntime", 1, max_people)
    assembly = Assembly(networks, topology, BodyModel(body_from_arrays(bundle.body())))
    rows = [Row(0, 0, row, row) for row in range(len(boxes))]
    board = Board(image, Camera.from_size(*SIZE), rows, [])
    board["box"] = boxes
    board["keypoints"] = np.ones((len(boxes), 33, 3), np.float32)
    board["crop_rotation"] = np.tile(np.eye(3), (len(boxes), 1, 1))
    Executor(assembly.stages(), GIVEN, False).run(board)
    return board


def calibration(layer: SmplLayer, skeleton: str) -> CalibrationModule:
    options = Options(shape_compensation=False)
    return CalibrationModule.from_body(layer, skeleton, options).pruned(4)


def assert_equal(board: Board, got: Calibrated) -> None:
    """To 0.05 mm a coordinate, and the calibration does move the mesh."""
    for key, ours in (
        ("vertices", got.mesh.vertices),
        ("source", got.mesh.source),
        ("target", got.target.joints),
        ("calibrated", got.vertices),
    ):
        np.testing.assert_allclose(board[key], ours, atol=LIMIT_M, err_msg=key)
    assert np.abs(board["calibrated"] - board["vertices"]).max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("lifter", "joints"),
    [("semgcn_plain", "semgcn16"), ("pose2mesh_lifter17", "h36m17")],
)
def test_serial(
    kind: MeshKind,
    lifter: str,
    joints: str,
    layer: SmplLayer,
    arrays: dict[str, Any],
    image: np.ndarray,
    tmp_path: Path,
) -> None:
    """Three people in a batch of four, by every mesh network's crop and camera."""
    normalise = "pose2mesh" if lifter.startswith("pose2mesh") else "screen"
    stage, head = lifter_of(joints, joints, normalise)
    board = run(tmp_path / "b", [generator_of(kind), stage], arrays, joints, "serial", image)

    in_mm = replace(head, weight=1000 * head.weight, bias=1000 * head.bias)
    network = TorchHeads(in_mm if normalise == "pose2mesh" else head)
    stream = torch_stream(kind, layer, joints, joints)
    module = SerialPCHMR(stream, NetworkLifter(lifter, network, joints), calibration(layer, joints))
    view = View(torch_crop(crops_of(image, kind.crop)), SIZE)
    got = module(view)
    assert_equal(board, got)
    np.testing.assert_allclose(board["translation"], got.mesh.translation, rtol=1e-5)
    np.testing.assert_allclose(board["rotmats"], got.mesh.rotmats, atol=1e-5)
    np.testing.assert_allclose(
        board["mesh_keypoints"][..., :2], got.mesh.keypoints_2d[..., :2], atol=1e-2
    )
    assert board["placed"].all()
    # A person's mesh does not depend on who else is in the batch.
    for row, box in enumerate(BOXES):
        alone = run(
            tmp_path / str(row),
            [generator_of(kind), stage],
            arrays,
            joints,
            "serial",
            image,
            1,
            box[None],
        )
        np.testing.assert_allclose(alone["calibrated"][0], board["calibrated"][row], atol=1e-5)


@dataclass
class OfficialDecoding:
    """A 2D stream with the networks' own decoding, which has no gradient."""

    weight: np.ndarray
    decoder: str

    def __call__(self, view: View) -> Tensor:
        assert view.pose_crop is not None
        pixels = view.pose_crop.image.permute(0, 3, 1, 2).float()
        cells = avg_pool2d(pixels, 4)
        maps = torch.einsum("bchw,jc->bjhw", cells, torch.from_numpy(self.weight).float()) / 255
        decode = {"hrnet": decode_hrnet, "cpn": decode_cpn}[self.decoder]
        inverse = view.pose_crop.affine.numpy()
        crops = [
            PersonCrop(np.zeros((1, 1, 3)), cv2.invertAffineTransform(affine)) for affine in inverse
        ]
        found = [decode(m, crop) for m, crop in zip(maps.numpy(), crops, strict=True)]
        return torch.from_numpy(np.stack(found))


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["hrnet", "cpn"])
def test_parallel_with_a_2d_network(
    decoder: str, layer: SmplLayer, arrays: dict[str, Any], image: np.ndarray, tmp_path: Path
) -> None:
    """HRNet or CPN beside SPIN; COCO's joints are guessed at for a lifter of Human3.6M's."""
    kind, size = KINDS["spin_hmr"], (192, 256)
    crop = CropSpec(size, "rgb", decoder)
    weight = np.random.default_rng(6).normal(size=(17, 3))
    scores = {"hrnet": 1.0, "cpn": 255.0}[decoder]
    pose2d = MadeUp(
        "pose2d",
        "pose2d",
        heatmap_graph(size, scores * weight),
        "coco17",
        crop,
        {"decoder": decoder},
    )
    lifter, head = lifter_of("h36m17", "h36m17")
    with pytest.warns(ApproximateConversion, match="coco17 -> h36m17"):
        board = run(
            tmp_path / "b",
            [generator_of(kind), pose2d, lifter],
            arrays,
            "h36m17",
            "parallel",
            image,
        )
    # As of VideoPose3D, but a single frame.
    torch_lifter = NetworkLifter("semgcn_plain", TorchHeads(head), "semgcn16")
    with pytest.warns(ApproximateConversion):
        torch_lifter.before = JointConversion("coco17", "h36m17")
    torch_lifter.within = torch_lifter.after = JointConversion("h36m17", "h36m17")
    stream = NetworkPoseStream(OfficialDecoding(scores * weight, decoder), torch_lifter)
    module = ParallelPCHMR(
        torch_stream(kind, layer, "h36m17", "h36m17"), stream, calibration(layer, "h36m17")
    )
    view = View(
        torch_crop(crops_of(image, kind.crop)), SIZE, pose_crop=torch_crop(crops_of(image, crop))
    )
    got = module(view)
    np.testing.assert_allclose(board["confidence"], got.target.confidence, atol=1e-4)
    assert_equal(board, got)


@torch.no_grad()
def test_parallel_with_posenet(
    layer: SmplLayer, arrays: dict[str, Any], image: np.ndarray, tmp_path: Path
) -> None:
    """PoseNet has no root depth: it is the mesh's. Its eighteenth joint is dropped, exactly."""
    kind, crop = KINDS["hmr2"], CropSpec((256, 256), "rgb", "posenet")
    cells = 32 + np.random.default_rng(7).normal(scale=8.0, size=(18, 3))
    head = Head.random(8, cells, 3.0)
    pose3d = MadeUp(
        "pose3d",
        "pose3d",
        image_graph(crop.size, {"coord": head}),
        "posenet18",
        crop,
        {"decoder": "posenet"},
    )
    board = run(tmp_path / "b", [generator_of(kind), pose3d], arrays, "h36m17", "parallel", image)
    module = ParallelPCHMR(
        torch_stream(kind, layer, "h36m17", "h36m17"),
        NetworkPose3D("posenet_r50_18j", TorchHeads(head), "h36m17"),
        calibration(layer, "h36m17"),
    )
    view = View(
        torch_crop(crops_of(image, kind.crop)), SIZE, pose_crop=torch_crop(crops_of(image, crop))
    )
    assert_equal(board, module(view))


@torch.no_grad()
@pytest.mark.parametrize(
    ("self_rotation", "compensates"), [(True, False), (False, True), (True, True)]
)
def test_perceptrons(
    self_rotation: bool,
    compensates: bool,
    layer: SmplLayer,
    arrays: dict[str, Any],
    image: np.ndarray,
    tmp_path: Path,
) -> None:
    """Self-rotation and shape compensation, as trained ones would be: Table 3, V and VI."""
    kind = KINDS["spin_hmr"]
    stage, head = lifter_of("h36m17", "h36m17", "pose2mesh")
    options = Options(self_rotation=self_rotation, shape_compensation=compensates)
    torch.manual_seed(0)
    module = CalibrationModule.from_body(layer, "h36m17", options).pruned(4)
    learnt = {
        name: value
        for name, value in module.named_parameters()
        if name not in ("logits", "W_support")
    }
    for value in learnt.values():
        value += 0.05 * torch.randn_like(value)
    state = {f"h36m17_perceptron.{name}": value.float().numpy() for name, value in learnt.items()}
    board = run(
        tmp_path / "b", [generator_of(kind), stage], {**arrays, **state}, "h36m17", "serial", image
    )
    in_mm = replace(head, weight=1000 * head.weight, bias=1000 * head.bias)
    stream = torch_stream(kind, layer, "h36m17", "h36m17")
    lifter = NetworkLifter("pose2mesh_lifter17", TorchHeads(in_mm), "h36m17")
    view = View(torch_crop(crops_of(image, kind.crop)), SIZE)
    assert_equal(board, SerialPCHMR(stream, lifter, module)(view))
    plain = SerialPCHMR(stream, lifter, calibration(layer, "h36m17"))(view).vertices
    assert np.abs(board["calibrated"] - plain.numpy()).max() > 1e-3
