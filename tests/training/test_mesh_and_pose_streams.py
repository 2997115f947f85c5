"""What the streams ask of their networks, and where the answers stand."""

import numpy as np
import pytest
import torch
from made_up_streams import Answers, made_up, mesh_stream, view_of

from pchmr.prepost import cameras
from pchmr.prepost.posenet import cells_to_depth
from pchmr.prepost.sequences import pixels_to_screen
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.mesh_streams import GENERATORS
from pchmr_training.networks import get_network
from pchmr_training.networks.videopose3d import VideoPose3D
from pchmr_training.pose_streams import (
    NetworkLifter,
    NetworkPose2D,
    NetworkPose3D,
    peak_cells,
)
from pchmr_training.smpl import SmplLayer

F64 = torch.float64


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
