"""A clip through the runtime's temporal stages gives the meshes of the PyTorch modules on the clip.

Official networks with seeded weights, exported; the rest of the bundle is made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from crop_graphs import Head, MadeUp, cell_colours, image_graph, make_bundle
from seeded_body import person
from torch import Tensor, nn

from pchmr.assembly import GIVEN, Assembly
from pchmr.bodies import Body, BodyModel, body_from_arrays
from pchmr.bundle_networks import BundleNetworks
from pchmr.camera import Camera
from pchmr.executor import Executor
from pchmr.prepost import crop_person
from pchmr.stages.base import Board, Row
from pchmr_engines.manifest import Crop as CropSpec
from pchmr_engines.manifest import Stage
from pchmr_export.streaming_export import StreamingStage, export_streaming
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import get_network
from pchmr_training.networks.fixtures import seeded_network
from pchmr_training.networks.hmr_tf import split_theta
from pchmr_training.networks.spin_hmr import MeshParameters
from pchmr_training.pchmr import Calibrated, ParallelPCHMR, SerialPCHMR
from pchmr_training.pose_streams import NetworkLifter, NetworkPoseStream
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat
from pchmr_training.view import Crop, View

LIMIT_MM = 0.05
SIZE, SPIN = (640, 360), CropSpec((224, 224), "rgb", "spin")
FRAME_NS = 20_000_000  # VideoPose3D's 50 frames a second
SPANS = ((0, 30), (6, 11))
"""Of two people: the first frame, and how many."""
BOXES = np.array([[200.0, 20, 330, 340], [20, 60, 120, 330]])
MESHES = ("vertices", "source", "target", "calibrated")
GENERATOR_SETTINGS = {"camera": "perspective", "camera_size": 224}
LIFTER_SETTINGS = {"keypoints": "h36m17", "normalise": "screen", "unit": "m"}
STANDING = np.zeros((24, 3))
STANDING[0] = (3.0, 0.2, 0.1)


@dataclass(frozen=True)
class Exported(MadeUp):
    """A stage of a network of the registry, in its streaming form."""

    form: StreamingStage | None = None

    @property
    def stage(self) -> Stage:
        assert self.form is not None
        file = self.form.file
        return replace(super().stage, inputs=file.inputs, outputs=file.outputs)


class Heads(nn.Module):
    """The graphs of `crop_graphs` in torch: crops (N, H, W, 3) -> one head, or mesh parameters."""

    def __init__(self, *heads: Head) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, crops: Tensor) -> Any:
        answers = [torch.from_numpy(head(cell_colours(crops.numpy()))) for head in self.heads]
        return MeshParameters(*answers) if len(answers) > 1 else answers[0]

    feature = forward


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    torch.set_num_threads(1)
    return person()


@pytest.fixture(scope="module")
def body(arrays: dict[str, Any]) -> Body:
    return body_from_arrays(arrays)


@pytest.fixture(scope="module")
def layer(body: Body) -> SmplLayer:
    return SmplLayer(body, torch.float64)


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SPANS[0][1], 18, 32, 3), np.uint8)
    return [np.ascontiguousarray(image.repeat(20, 0).repeat(20, 1)) for image in coarse]


def streaming(name: str, stage: str, folder: Path) -> tuple[nn.Module, Exported]:
    """A network of the registry, and the stage of its streaming form."""
    spec = get_network(name)
    network, _ = seeded_network(spec)
    if name == "vibe":  # near a standing body before the camera, whatever it is shown
        regressor: Any = network.regressor
        for part in (regressor.decpose, regressor.decshape, regressor.deccam):
            part.weight.data *= 0.05
            part.bias.data *= 0.05
        standing = rotvec_to_rotmat(torch.from_numpy(STANDING)).float()
        regressor.init_pose.data = standing[..., :2].reshape(1, -1)
        regressor.init_cam.data = torch.tensor([[0.9, 0.0, 0.1]])
    form = export_streaming(network, spec, folder / f"{name}.fp32.onnx")
    role = {"generator": "mesh-generator"}.get(stage, stage)
    own = GENERATOR_SETTINGS if stage == "generator" else LIFTER_SETTINGS
    graph = form.file.path.read_bytes()
    settings = {**own, **form.settings}
    made = Exported(stage, role, graph, spec.skeleton, settings=settings, form=form)
    return network.requires_grad_(False), made


def play(
    folder: Path,
    stages: Sequence[MadeUp],
    arrays: dict[str, Any],
    topology: str,
    clip: Sequence[np.ndarray],
    names: Sequence[str] = MESHES,
) -> tuple[int, list[dict[str, np.ndarray]]]:
    """How many frames late the boards came, and each person's arrays over their frames."""
    bundle = make_bundle(folder, stages, arrays, "h36m17")
    networks = BundleNetworks(bundle, "onnxruntime", 1, 2)
    assembly = Assembly(networks, topology, BodyModel(body_from_arrays(bundle.body())))
    executor = Executor(assembly.stages(), GIVEN, False)
    boards: list[Board] = []
    for frame, image in enumerate(clip):
        here = [i for i, (first, count) in enumerate(SPANS) if first <= frame < first + count]
        time = frame * FRAME_NS
        rows = [Row(frame, time, i, i) for i in here]
        board = Board(image, Camera.from_size(*SIZE), rows, [], t_ns=time)
        board["box"] = BOXES[here]
        boards += executor.run(board)
    late = executor.owed
    assert late == executor.look_ahead
    boards += executor.flush()
    assert [board.t_ns for board in boards] == [frame * FRAME_NS for frame in range(len(clip))]
    people = []
    for track in range(len(SPANS)):
        own = [(b, i) for b in boards for i, row in enumerate(b.rows) if row.track == track]
        people.append({name: np.stack([b[name][i] for b, i in own]) for name in names})
    return late, people


def view_of(track: int, clip: Sequence[np.ndarray]) -> View:
    """A person's clip, as the modules see it."""
    first, count = SPANS[track]
    crops = [
        crop_person(image, tuple(BOXES[track]), SPIN.affine, SPIN.size)
        for image in clip[first : first + count]
    ]
    pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops]))
    affine = np.stack([cv2.invertAffineTransform(crop.affine) for crop in crops])
    return View(Crop(pixels, torch.from_numpy(affine)), SIZE, frames=count)


def assert_equal(found: dict[str, np.ndarray], expected: Calibrated) -> None:
    """A person's meshes, mm a vertex; the calibration moves them, and they move over time."""
    for name, right in (
        ("vertices", expected.mesh.vertices),
        ("target", expected.target.joints),
        ("calibrated", expected.vertices),
    ):
        apart = 1000 * np.linalg.norm(found[name] - right.numpy(), axis=-1)
        assert apart.max() < LIMIT_MM, name
    assert np.abs(found["calibrated"] - found["vertices"]).max() > 0.01
    assert np.ptp(found["calibrated"], axis=0).max() > 0.01


def calibration(layer: SmplLayer) -> CalibrationModule:
    options = Options(shape_compensation=False)
    return CalibrationModule.from_body(layer, "h36m17", options).pruned(4)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("lifter", "look_ahead"), [("videopose3d_h36m_27", 13), ("videopose3d_causal_27", 0)]
)
def test_serial_with_vibe_and_videopose3d(
    lifter: str,
    look_ahead: int,
    layer: SmplLayer,
    arrays: dict[str, Any],
    clip: list[np.ndarray],
    tmp_path: Path,
) -> None:
    """The mesh stream's memory, then the lifter's of the meshes' own image; edges repeated."""
    vibe, generator = streaming("vibe", "generator", tmp_path)
    videopose3d, lift = streaming(lifter, "lifter", tmp_path)
    features = Head.random(1, np.zeros(2048), 1.0)
    encoder = MadeUp(
        "encoder", "encoder", image_graph(SPIN.size, {"features": features}), crop=SPIN
    )
    late, people = play(tmp_path / "b", [encoder, generator, lift], arrays, "serial", clip)
    assert late == look_ahead
    stream = NetworkMeshStream("vibe", vibe, layer, "h36m17", encoder=Heads(features))
    module = SerialPCHMR(stream, NetworkLifter(lifter, videopose3d, "h36m17"), calibration(layer))
    for track, found in enumerate(people):
        assert_equal(found, module(view_of(track, clip)))


@torch.no_grad()
def test_parallel_with_videopose3d(
    layer: SmplLayer, arrays: dict[str, Any], clip: list[np.ndarray], tmp_path: Path
) -> None:
    """The mesh of a single frame waits for the pose stream, which sees the image itself."""
    videopose3d, lift = streaming("videopose3d_h36m_9", "lifter", tmp_path)
    rest = rotvec_to_rotmat(torch.from_numpy(STANDING)).numpy()
    mesh = {
        "rotmats": Head.random(1, rest, 0.05),
        "betas": Head.random(2, np.zeros(10), 1.0),
        "cam": Head.random(3, np.array([0.9, 0.0, 0.1]), 0.1),
    }
    pixels = Head.random(4, np.full((17, 3), 112.0), 60.0)
    generator = MadeUp(
        "generator",
        "mesh-generator",
        image_graph(SPIN.size, mesh),
        "smpl24",
        SPIN,
        GENERATOR_SETTINGS,
    )
    pose2d = MadeUp(
        "pose2d",
        "pose2d",
        image_graph(SPIN.size, {"keypoints": pixels}),
        "h36m17",
        SPIN,
        {"decoder": "keypoints"},
    )
    late, people = play(tmp_path / "b", [generator, pose2d, lift], arrays, "parallel", clip)
    assert late == 4

    def keypoints(view: View) -> Tensor:
        seen = torch.from_numpy(pixels(cell_colours(view.crop.image.numpy())))
        return torch.cat([view.crop.to_frame(seen[..., :2]), seen[..., 2:].double()], -1)

    stream = NetworkMeshStream("spin_hmr", Heads(*mesh.values()), layer, "h36m17")
    lifter = NetworkLifter("videopose3d_h36m_9", videopose3d, "h36m17")
    pose: Any = NetworkPoseStream(keypoints, lifter)  # type: ignore[arg-type]
    module = ParallelPCHMR(stream, pose, calibration(layer))
    for track, found in enumerate(people):
        assert_equal(found, module(view_of(track, clip)))


@pytest.mark.slow
@torch.no_grad()
def test_hmmr_in_windows(arrays: dict[str, Any], clip: list[np.ndarray], tmp_path: Path) -> None:
    """Every frame is in the middle 8 of one window of 20, its clip's edges repeated."""
    hmmr, generator = streaming("hmmr_tf", "generator", tmp_path)
    features = Head.random(1, np.zeros(2048), 1.0)
    encoder = MadeUp(
        "encoder", "encoder", image_graph(SPIN.size, {"features": features}), crop=SPIN
    )
    names = ("crop_rotmats", "betas", "cam")
    late, people = play(tmp_path / "b", [encoder, generator], arrays, "mesh-only", clip, names)
    assert late == 13
    for track, found in enumerate(people):
        view = view_of(track, clip)
        seen = Heads(features)(view.crop.image)
        expected = []
        for first in range(0, view.frames, 8):
            window = torch.arange(first - 6, first + 14).clamp(0, view.frames - 1)
            expected.append(hmmr(seen[window][None]).omega[0, 6:14])
        cam, pose, betas = split_theta(torch.cat(expected)[: view.frames])
        rotmats = rotvec_to_rotmat(pose.unflatten(-1, (24, 3)))
        for name, right in zip(names, (rotmats, betas, cam), strict=True):
            assert np.ptp(found[name], axis=0).max() > 0.01
            np.testing.assert_allclose(found[name], right, atol=2e-4, err_msg=name)
