"""Serial and Parallel PC-HMR as modules: the runtime's numbers, registered parts, gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from seeded_body import person
from torch import Tensor, nn

import pchmr_export
import pchmr_training
from pchmr.bodies import Body, BodyModel, body_from_arrays
from pchmr.camera import Camera
from pchmr.executor import Executor
from pchmr.pipeline import GIVEN
from pchmr.prepost import cameras
from pchmr.prepost.posenet import cells_to_depth
from pchmr.prepost.sequences import pixels_to_screen
from pchmr.stages.base import Board, KeypointEngine, Row
from pchmr.stages.body import BodyStage, PlaceStage
from pchmr.stages.calibrate import CalibrateStage, ImageTarget
from pchmr.stages.keypoint_generator import KeypointGenerator
from pchmr.stages.lifter import KeypointLifter, MeshLifter
from pchmr_engines import engine_from_onnx
from pchmr_engines.errors import InputError
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.mesh_streams import GENERATORS, NetworkMeshStream
from pchmr_training.networks import get_network
from pchmr_training.networks.hmmr_tf import Omega
from pchmr_training.networks.rotations import rotmat_to_rotvec
from pchmr_training.networks.spin_hmr import MeshParameters
from pchmr_training.networks.videopose3d import VideoPose3D
from pchmr_training.open_default.networks import KEYPOINTS, load_network
from pchmr_training.open_streams import OpenLifter, OpenMeshStream, OpenPoseStream, OpenView
from pchmr_training.pchmr import Calibrated, GivenPose, ParallelPCHMR, SerialPCHMR, TemplateStream
from pchmr_training.pose_streams import (
    JointConversion,
    NetworkLifter,
    NetworkPose2D,
    NetworkPose3D,
    NetworkPoseStream,
    peak_cells,
)
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat
from pchmr_training.view import Crop, View

F64 = torch.float64
Arrays = dict[str, NDArray[Any]]
GRAPHS = Path(pchmr_export.__file__).parent / "data"
WEIGHTS = Path(pchmr_training.__file__).parent / "data"
SMPL = get_skeleton("smpl24")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def body() -> Body:
    return body_from_arrays({**person(), "posedirs": np.zeros((300, 3, 0))})


@pytest.fixture(scope="module")
def layer(body: Body) -> SmplLayer:
    return SmplLayer(body, F64)


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


class Answers(nn.Module):
    """Stands for a large network: gives what it is told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer, self.scale = answer, nn.Parameter(torch.ones((), dtype=F64))
        self.asked: Tensor

    def forward(self, inputs: Tensor) -> Any:
        self.asked = inputs
        return self.answer(inputs)

    feature = forward


def made_up(rows: int, seed: int = 0) -> MeshParameters:
    draw = torch.Generator().manual_seed(seed)
    rotvec = 0.3 * torch.randn(rows, 24, 3, dtype=F64, generator=draw)
    rotvec[:, 0] = torch.tensor([3.0, 0.2, 0.1])  # y up to y down
    cam = torch.tensor([0.9, 0.0, 0.0]) + 0.1 * torch.randn(rows, 3, dtype=F64, generator=draw)
    betas = torch.randn(rows, 10, dtype=F64, generator=draw)
    return MeshParameters(rotvec_to_rotmat(rotvec), betas, cam)


def view_of(rows: int, frames: int = 1, size: int = 224, **fields: Any) -> View:
    """Crops of 400 px around (900, 300) of full frames of 1280 x 720."""
    scale = 400 / size
    affine = torch.tensor([[scale, 0, 700], [0, scale, 100]], dtype=F64).expand(rows, 2, 3)
    return View(Crop(torch.zeros(rows, 3, size, size), affine), (1280, 720), frames, **fields)


def mesh_stream(name: str, layer: SmplLayer, rows: int, frames: int) -> NetworkMeshStream:
    """The stream of `name` with a network that answers `made_up(rows)` in its own form."""
    given = made_up(rows)
    axis_angle = rotmat_to_rotvec(given.rotmat).flatten(1)
    theta = torch.cat([given.cam, axis_angle, given.betas], 1)
    clips = MeshParameters(*(x.unflatten(0, (-1, frames)) for x in given))
    answers: dict[str, Any] = {
        "hmr_tf": theta,
        "hmmr_tf": Omega(*[theta.unflatten(0, (-1, frames))] * 3),
        "vibe": clips,
    }
    network = Answers(lambda _: answers.get(name, given))
    encoder = Answers(lambda image: torch.zeros(len(image), 2048))
    encoder.resnet_v2_50 = Answers(lambda image: torch.zeros(len(image), 2048))
    return NetworkMeshStream(name, network, layer, "h36m17", encoder=encoder)


@torch.no_grad()
@pytest.mark.parametrize("name", GENERATORS)
def test_mesh_streams(name: str, layer: SmplLayer) -> None:
    """Every mesh network, in clips of three frames: its mesh, its own image, where it stands."""
    rows, frames = 6, 3
    size = GENERATORS[name].camera.size
    view, given = view_of(rows, frames, size), made_up(rows)
    stream = mesh_stream(name, layer, rows, frames)
    mesh = stream(view)
    if GENERATORS[name].encode:
        assert stream.network.asked.shape == (2, 3, 2048)
    posed = layer(given.rotmat, given.betas)
    joints = layer.regress("h36m17", posed.vertices).numpy()
    cam = given.cam.numpy()
    if GENERATORS[name].camera.weak:
        pixels = (cameras.project_weak(joints, cam) + 1) * size / 2
    else:
        shift = cameras.crop_translation(cam, size)
        pixels = cameras.project(joints, shift, cameras.CROP_FOCAL_PX) + size / 2
    expected = pixels * 400 / size + [700, 100]
    np.testing.assert_allclose(mesh.keypoints_2d[..., :2], expected, atol=1e-6)
    centre, side = np.full((rows, 2), [900.0, 300.0]), np.full(rows, 400.0)
    stands = cameras.full_frame_translation(cam, centre, side, (720, 1280), view.focal)
    np.testing.assert_allclose(mesh.translation, stands, rtol=1e-8)
    again = layer(mesh.rotmats, mesh.betas).vertices
    torch.testing.assert_close(mesh.vertices, again)  # Theta is that of the turned mesh
    # Turned onto its ray and placed there, the mesh is seen where the crop shows it.
    placed = (mesh.source + mesh.translation[:, None]).numpy()
    seen = view.focal * placed[..., :2] / placed[..., 2:] + np.array(view.middle)
    assert np.abs(seen - expected).max() < 25
    root = np.abs(seen - expected)[:, 0].max()
    assert root < 5


@torch.no_grad()
def test_lifters_take_and_give_their_own_units(layer: SmplLayer) -> None:
    draw = torch.Generator().manual_seed(0)
    keypoints = 700 * torch.rand(4, 17, 3, dtype=F64, generator=draw)
    view = view_of(4)
    screen = pixels_to_screen(keypoints[..., :2].numpy(), 1280, 720)

    network = Answers(lambda x: torch.arange(51.0, dtype=F64).expand(len(x), 51))
    target = NetworkLifter("pose2mesh_lifter17", network, "h36m17")(keypoints, view)
    asked = network.asked.unflatten(1, (17, 2))
    torch.testing.assert_close(asked.mean(1), torch.zeros(4, 2, dtype=F64))
    torch.testing.assert_close(asked.std(1, correction=0), torch.ones(4, 2, dtype=F64))
    torch.testing.assert_close(target.joints[0, 1], torch.tensor([3, 4, 5], dtype=F64) / 1000)

    network = Answers(lambda x: torch.arange(45.0, dtype=F64).expand(len(x), 45))
    lifter = NetworkLifter("semgcn_linear16", network, "semgcn16", keypoints="h36m17")
    target = lifter(keypoints, view)
    kept = [joint for joint in range(17) if joint != 9]  # without the nose
    np.testing.assert_allclose(network.asked.unflatten(1, (16, 2)), screen[:, kept], atol=1e-12)
    assert not target.joints[:, 0].any()
    torch.testing.assert_close(target.joints[0, 1], torch.tensor([0.0, 1, 2], dtype=F64))

    network = get_network("semgcn_plain").build().eval()
    lifter = NetworkLifter("semgcn_plain", network, "semgcn16", keypoints="h36m17")
    expected = network(torch.from_numpy(screen[:, kept]).float())
    torch.testing.assert_close(lifter(keypoints, view).joints, expected.double())
    with pytest.warns(ApproximateConversion):
        lifter = NetworkLifter("semgcn_plain", network, "semgcn16", keypoints="coco17")
    np.testing.assert_allclose(
        lifter(keypoints, view).confidence[:, 0], keypoints[:, [11, 12], 2].amin(1)
    )


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_video_lifter_sees_each_clip_padded(causal: bool) -> None:
    """Strided and dilated forms agree, and clips do not see one another."""
    torch.manual_seed(0)
    widths = {"widths": (3, 3), "channels": 32, "causal": causal}
    dilated = VideoPose3D(**widths).double().eval()
    strided = VideoPose3D(**widths, strided=True).double().eval()
    strided.load_state_dict(dilated.state_dict())
    keypoints = 500 * torch.rand(10, 17, 3, dtype=F64)
    whole, windows = (
        NetworkLifter("videopose3d_h36m_9", network, "h36m17")(keypoints, view_of(10, 5)).joints
        for network in (dilated, strided)
    )
    torch.testing.assert_close(whole, windows)
    alone = NetworkLifter("videopose3d_h36m_9", dilated, "h36m17")(keypoints[5:], view_of(5, 5))
    torch.testing.assert_close(alone.joints, whole[5:])
    still = NetworkLifter("videopose3d_h36m_9", dilated, "h36m17")(keypoints[:1], view_of(1))
    held = NetworkLifter("videopose3d_h36m_9", dilated, "h36m17")(
        keypoints[:1].expand(9, -1, -1), view_of(9, 9)
    )
    torch.testing.assert_close(still.joints[0], held.joints[4])


@torch.no_grad()
def test_keypoints_from_heat_maps() -> None:
    """A Gaussian between cells; CPN's cells count from their corner, HRNet's from their middle."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in (64, 48)), indexing="ij")
    place = torch.tensor([20.3, 31.8], dtype=F64)
    gauss = torch.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 2)
    maps = gauss.expand(2, 17, 64, 48).clone()
    maps[0, 3] = -1
    cells, peaks = peak_cells(maps, reach=4)
    torch.testing.assert_close(cells[1, 0], place, atol=0.02, rtol=0)
    assert cells.isfinite().all()
    assert peaks[0, 3] == -1
    view = view_of(2, size=256)
    corner = torch.tensor([700.0, 100.0], dtype=F64)
    hrnet = NetworkPose2D("hrnet_w32_256x192", Answers(lambda _: maps), reach=4)(view)
    cpn = NetworkPose2D("cpn50_256x192", Answers(lambda _: (255 * maps, maps)), reach=4)(view)
    scale = 400 / 256
    torch.testing.assert_close(hrnet[1, 0, :2], corner + scale * 4 * cells[1, 0])
    torch.testing.assert_close(cpn[1, 0, :2], corner + scale * (4 * cells[1, 0] + 2))
    torch.testing.assert_close(cpn[1, 0, 2], maps[1, 0].max() + 0.5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "joints", "skeleton", "root"),
    [("posenet_r50_18j", 18, "h36m17", 0), ("posenet_r50_21j", 21, "posenet21_muco", 14)],
)
def test_posenet_stands_where_the_mesh_stands(
    name: str, joints: int, skeleton: str, root: int, layer: SmplLayer
) -> None:
    view = view_of(2, pose_crop=view_of(2, size=256).crop)
    draw = torch.Generator().manual_seed(0)
    cells = 64 * torch.rand(2, joints, 3, dtype=F64, generator=draw)
    kept = len(get_skeleton(skeleton))
    source = torch.rand(2, kept, 3, dtype=F64, generator=draw)
    mesh = mesh_stream("spin_hmr", layer, 2, 1)(view)._replace(source=source)
    target = NetworkPose3D(name, Answers(lambda _: cells), skeleton)(view, mesh)
    depth = cells_to_depth(cells.numpy()) + (mesh.translation + source[:, root])[:, None, 2].numpy()
    pixels = cells[..., :2].numpy() * 4 * 400 / 256 + [700, 100]
    expected = cameras.back_project(pixels, depth, view.focal, np.array(view.middle))
    np.testing.assert_allclose(target.joints, expected[:, :kept], atol=1e-9)


@torch.no_grad()
def test_exact_targets_are_reached(layer: SmplLayer) -> None:
    """Serial with a lifter that knows the truth, parallel with the given pose: the true joints."""
    truth = layer(*made_up(2, seed=9)[:2]).vertices
    joints = layer.regress("h36m17", truth) + 3.0
    calibration = CalibrationModule.from_body(layer, "h36m17")
    stream = mesh_stream("spin_hmr", layer, 2, 1)
    parallel = ParallelPCHMR(stream, GivenPose(), calibration)(view_of(2, joints=joints))
    network = Answers(lambda _: 1000 * joints.flatten(1))
    lifter = NetworkLifter("pose2mesh_lifter17", network, "h36m17")
    serial = SerialPCHMR(stream, lifter, calibration)(view_of(2))
    torch.testing.assert_close(serial.vertices, parallel.vertices)
    template = ParallelPCHMR(
        TemplateStream(layer, "h36m17"),
        GivenPose(),
        CalibrationModule.from_body(layer, "h36m17", Options(prealign="torso")),
    )(view_of(2, joints=joints))
    for result in (parallel, template):
        before, after = (
            (moved - moved[:, :1] - joints + joints[:, :1]).norm(dim=-1).mean()
            for moved in (
                result.mesh.source,
                layer.regress("h36m17", result.vertices),
            )
        )
        assert after < 0.1 * before


def test_registered_networks_end_to_end(layer: SmplLayer) -> None:
    """Untrained but real: SPIN and SemGCN in series, beside HRNet and VideoPose3D; gradients."""
    torch.manual_seed(0)
    spin = get_network("spin_hmr").build().eval()
    spin.init_cam[:] = torch.tensor([0.9, 0.0, 0.0])
    spin.init_pose[:] = torch.eye(3)[:, :2].flatten().repeat(24)
    semgcn = get_network("semgcn_plain").build().eval()
    view = view_of(2, 2, pose_crop=Crop(torch.randn(2, 3, 256, 192), view_of(2).crop.affine))
    view.crop.image.normal_()
    stream = NetworkMeshStream("spin_hmr", spin, layer, "semgcn16")
    calibration = CalibrationModule.from_body(layer, "semgcn16")
    serial = SerialPCHMR(stream, NetworkLifter("semgcn_plain", semgcn, "semgcn16"), calibration)
    serial(view).vertices.square().sum().backward()
    for part in (spin, semgcn):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert gradients
        assert all(g.isfinite().all() for g in gradients)

    videopose3d = VideoPose3D(widths=(3, 3), channels=64).eval()
    hrnet = get_network("hrnet_w32_256x192").build().eval()
    with torch.no_grad():
        pose2d = NetworkPose2D("hrnet_w32_256x192", hrnet)
        with pytest.warns(ApproximateConversion):
            lifter = NetworkLifter("videopose3d_coco_243", videopose3d, "semgcn16")
        parallel = ParallelPCHMR(stream, NetworkPoseStream(pose2d, lifter), calibration)
        assert parallel(view).vertices.isfinite().all()


def test_parts_of_another_kind_are_refused(layer: SmplLayer) -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(InputError, match="'hrnet' is no mesh generator; known are spin_hmr"):
        NetworkMeshStream("hrnet", network, layer, "h36m17")
    with pytest.raises(InputError, match="'spin_hmr' is no lifter"):
        NetworkLifter("spin_hmr", network, "h36m17")
    with pytest.raises(InputError, match="vibe takes features: give its encoder, spin_hmr"):
        NetworkMeshStream("vibe", network, layer, "h36m17")
    with pytest.raises(InputError, match="expected a network of heat maps"):
        NetworkPose2D("posenet_r50_18j", network)
    with pytest.raises(InputError, match="expected cells of depth"):
        NetworkPose3D("hrnet_w32_256x192", network, "h36m17")
    with (
        pytest.warns(ApproximateConversion),
        pytest.raises(ValueError, match="is not linear"),
    ):
        JointConversion("blazepose33", "smpl24")
