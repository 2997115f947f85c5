"""Serial and Parallel PC-HMR as modules: exact targets, real networks, parts refused."""

import pytest
import torch
from made_up_streams import Answers, made_up, mesh_stream, view_of
from torch import nn

from pchmr_engines.errors import InputError
from pchmr_kernels.conversions import ApproximateConversion
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.mesh_streams import NetworkMeshStream
from pchmr_training.networks import get_network
from pchmr_training.networks.videopose3d import VideoPose3D
from pchmr_training.pchmr import GivenPose, ParallelPCHMR, SerialPCHMR, TemplateStream
from pchmr_training.pose_streams import (
    JointConversion,
    NetworkLifter,
    NetworkPose2D,
    NetworkPose3D,
    NetworkPoseStream,
)
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import Crop


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
