"""Pose networks of the registry as lifters and pose streams: 2D estimator, lifter, 3D estimator."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pchmr.prepost.posenet import CELLS, DEPTH_M
from pchmr.prepost.sequences import receptive_pad
from pchmr_engines.errors import InputError
from pchmr_kernels.conversions import get_conversion
from pchmr_kernels.skeletons import get_skeleton

from .mesh_streams import spec_of
from .networks import ImageInput, KeypointInput
from .pchmr import Mesh, Target
from .view import View


class JointConversion(nn.Module):
    """Joints of one skeleton as those of another, by name; warns where that is approximate.

    Raises: ValueError for skeletons without a linear conversion.
    """

    matrix: Tensor
    uses: Tensor

    def __init__(self, source: str, target: str) -> None:
        super().__init__()
        conversion = get_conversion(source, target)
        joints = conversion.uses.shape[1]
        units = np.zeros((joints, joints, 3))
        units[range(joints), range(joints)] = 1
        with np.errstate(invalid="ignore"):
            matrix = conversion(units)[..., 0].T
        probe = np.random.default_rng(0).random((joints, 3))
        if not np.allclose(matrix @ probe, conversion(probe)):
            raise ValueError(f"{source} -> {target} is not linear: convert outside of the module")
        self.register_buffer("matrix", torch.from_numpy(matrix), persistent=False)
        self.register_buffer("uses", torch.from_numpy(conversion.uses), persistent=False)

    def forward(self, joints: Tensor) -> Tensor:
        """(N, J', D) of (N, J, D)."""
        return self.matrix.to(joints) @ joints

    def confidence(self, confidence: Tensor) -> Tensor:
        """(N, J') of (N, J): the least of those each joint is made of."""
        return torch.where(self.uses, confidence[:, None], torch.inf).amin(-1)


class NetworkLifter(nn.Module):
    """A 2D-to-3D lifter: keypoints of `keypoints`, in full-frame pixels, to joints of `skeleton`.

    A video lifter sees every clip edge-padded to its receptive field.
    """

    def __init__(
        self, name: str, network: nn.Module, skeleton: str, keypoints: str | None = None
    ) -> None:
        super().__init__()
        self.spec = spec_of(name, KeypointInput, "lifter")
        taken = self.spec.input.skeleton  # type: ignore[union-attr]
        self.network = network
        self.before = JointConversion(keypoints or taken, taken)
        self.within = JointConversion(taken, self.spec.skeleton)
        self.after = JointConversion(self.spec.skeleton, skeleton)

    def forward(self, keypoints_2d: Tensor, view: View) -> Target:
        parameter = next(self.network.parameters())
        points = self.before(keypoints_2d[..., :2])
        joints = self._lift(self._normalised(points, view).to(parameter), view)
        confidence = self.before.confidence(keypoints_2d[..., 2])
        confidence = self.after.confidence(self.within.confidence(confidence))
        return Target(self.after(joints.to(keypoints_2d)), confidence)

    def _normalised(self, points: Tensor, view: View) -> Tensor:
        if self.spec.input.normalise == "pose2mesh":  # type: ignore[union-attr]
            return (points - points.mean(1, keepdim=True)) / points.std(
                1, correction=0, keepdim=True
            )
        return view.to_screen(points)

    def _lift(self, points: Tensor, view: View) -> Tensor:
        """(N, J, 3) metres of (N, J2, 2)."""
        shape = self.spec.input.shape
        if len(shape) == 4:
            return self._lift_clips(view.to_clips(points)).flatten(0, 1)
        answer = self.network(points.flatten(1) if len(shape) == 2 else points)
        answer = answer.flatten(1).unflatten(1, (-1, 3))
        if self.spec.unit.startswith("mm"):
            answer = answer / 1000
        if self.spec.unit.endswith("without the root"):
            answer = pad(answer, (0, 0, 1, 0))
        return answer

    def _lift_clips(self, points: Tensor) -> Tensor:
        """(clips, frames, J, 3) of (clips, frames, J2, 2)."""
        network: nn.Module = self.network
        before, after = receptive_pad(network.receptive_field, network.causal)  # type: ignore[arg-type]
        frames = points.shape[1]
        index = torch.arange(-before, frames + after).clamp(0, frames - 1)
        padded = points[:, index.to(points.device)]
        if not network.strided:
            return network(padded)
        windows = padded.unfold(1, before + 1 + after, 1).permute(0, 1, 4, 2, 3)
        return network(windows.flatten(0, 1)).reshape(*points.shape[:2], -1, 3)


class NetworkPose2D(nn.Module):
    """A 2D pose network: crop -> keypoints_2d (N, 17, 3), full-frame pixels and score.

    The mean cell around each peak, in place of the networks' own rules of a quarter of a cell, so
    that it has a gradient; the scores are their own.
    """

    def __init__(self, name: str, network: nn.Module, reach: int = 2) -> None:
        super().__init__()
        self.spec, self.network, self.reach = (
            spec_of(name, ImageInput, "2D estimator"),
            network,
            reach,
        )
        if not self.spec.unit.startswith("heat maps"):
            raise InputError(f"{name} gives {self.spec.unit}; expected a network of heat maps")

    def forward(self, view: View) -> Tensor:
        crop = view.pose_crop or view.crop
        output = self.network(crop.image)
        maps = output if isinstance(output, Tensor) else output[0]
        of_cpn = self.spec.name.startswith("cpn")
        cells, peaks = peak_cells(maps, self.reach)
        pixels = 4 * cells + (2 if of_cpn else 0)  # CPN's cells count from their corner
        scores = peaks / 255 + 0.5 if of_cpn else peaks
        return torch.cat([crop.to_frame(pixels), scores[..., None]], -1)


def peak_cells(maps: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Mean cells (N, J, 2: x, y) of what is positive within `reach` of each peak, and its height.

    maps: (N, J, H, W).
    """
    height, width = maps.shape[-2:]
    peaks, index = maps.flatten(2).max(-1)
    y, x = index // width, index % width
    rows, columns = (torch.arange(n, device=maps.device) for n in (height, width))
    near = ((rows - y[..., None]).abs() <= reach)[..., :, None]
    near = near & ((columns - x[..., None]).abs() <= reach)[..., None, :]
    share = torch.where(near, maps.clamp(min=0), 0)
    at_peak = (rows == y[..., None])[..., :, None] & (columns == x[..., None])[..., None, :]
    share = share + 1e-9 * at_peak  # where nothing is positive
    total = share.sum((-2, -1))
    mean_x, mean_y = (share.sum(-2) * columns).sum(-1), (share.sum(-1) * rows).sum(-1)
    return torch.stack([mean_x / total, mean_y / total], -1), peaks


class NetworkPoseStream(nn.Module):
    """2D estimator and lifter: the pose stream of the parallel form."""

    def __init__(self, pose2d: nn.Module, lifter: NetworkLifter) -> None:
        super().__init__()
        self.pose2d, self.lifter = pose2d, lifter

    def forward(self, view: View, mesh: Mesh) -> Target:
        return self.lifter(self.pose2d(view), view)


class NetworkPose3D(nn.Module):
    """PoseNet: crop -> joints before the full frame's camera, the root as deep as the mesh's."""

    def __init__(self, name: str, network: nn.Module, skeleton: str) -> None:
        super().__init__()
        self.spec = spec_of(name, ImageInput, "3D estimator")
        if not self.spec.unit.startswith("cells"):
            raise InputError(f"{name} gives {self.spec.unit}; expected cells of depth")
        self.network, self.after = network, JointConversion(self.spec.skeleton, skeleton)
        self.root = get_skeleton(skeleton).root

    def forward(self, view: View, mesh: Mesh) -> Target:
        crop = view.pose_crop or view.crop
        cells = self.network(crop.image).to(mesh.vertices)
        size: int = self.spec.input.size[0]  # type: ignore[union-attr]
        pixels = crop.to_frame(cells[..., :2] * size / CELLS)
        root = mesh.translation[:, None, 2:] + mesh.source[:, self.root, None, 2:]
        z = root + (cells[..., 2:] / CELLS * 2 - 1) * DEPTH_M / 2
        return Target(self.after(torch.cat([view.rays(pixels) * z, z], -1)))
