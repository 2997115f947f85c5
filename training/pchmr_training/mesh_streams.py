"""Mesh networks of the registry as mesh streams: image or clip -> body -> its own image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pchmr.prepost.cameras import CROP_FOCAL_PX
from pchmr_engines.errors import InputError

from .networks import NETWORKS, FeatureInput, ImageInput, NetworkSpec
from .networks.hmr_tf import split_theta
from .networks.spin_hmr import MeshParameters
from .open_default.views import ray_rotation
from .pchmr import Mesh
from .smpl import SmplLayer, rotvec_to_rotmat
from .view import View


@dataclass(frozen=True)
class CropCamera:
    """How a mesh network's cam = (s, tx, ty) shows points over a crop of `size` pixels: through a
    lens of 5000 px, or weakly, s (X + t) in -1..1."""

    size: int
    weak: bool = False

    def project(self, points: Tensor, cam: Tensor) -> Tensor:
        """Crop pixels (N, J, 2) of points (N, J, 3)."""
        s, t = cam[:, None, :1], cam[:, None, 1:]
        moved = points[..., :2] + t
        if self.weak:
            return (s * moved + 1) * (self.size / 2)
        depth = points[..., 2:] + 2 * CROP_FOCAL_PX / (self.size * s + 1e-9)
        return CROP_FOCAL_PX * moved / depth + self.size / 2

    def translation(self, cam: Tensor, view: View) -> Tensor:
        """(N, 3) metres in the full frame's camera, where the crop is a small part of it."""
        affine = view.crop.affine.to(cam)
        s, t = cam[:, :1], cam[:, 1:]
        half_side = s * affine[:, 0, :1] * self.size / 2  # pixels a metre
        return torch.cat([t + self.off_axis(affine, view) / half_side, view.focal / half_side], 1)

    def off_axis(self, affine: Tensor, view: View) -> Tensor:
        """(N, 2) pixels from the middle of the frame to the crop's."""
        centre = affine[..., :2].sum(-1) * self.size / 2 + affine[..., 2]
        return view.from_middle(centre)


def _axis_angle(theta: Tensor) -> MeshParameters:
    cam, pose, betas = split_theta(theta)
    return MeshParameters(rotvec_to_rotmat(pose.unflatten(-1, (24, 3))), betas, cam)


@dataclass(frozen=True)
class _Generator:
    """camera; read: what a network's output says; encode: features of an image, by its encoder."""

    camera: CropCamera
    read: Callable[..., MeshParameters] = lambda output: output
    encode: Callable[[Any, Tensor], Tensor] | None = None


def _hmr_features(network: nn.Module, image: Tensor) -> Tensor:
    return network.get_submodule("resnet_v2_50")(image.permute(0, 3, 1, 2))


GENERATORS: Mapping[str, _Generator] = {
    "spin_hmr": _Generator(CropCamera(224)),
    "hmr2": _Generator(CropCamera(256)),
    "hmr_tf": _Generator(CropCamera(224, weak=True), _axis_angle),
    "vibe": _Generator(CropCamera(224), encode=lambda network, image: network.feature(image)),
    "hmmr_tf": _Generator(
        CropCamera(224, weak=True), lambda output: _axis_angle(output.omega), _hmr_features
    ),
}


def spec_of(
    name: str, kind: type, role: str, known: Mapping[str, object] | None = None
) -> NetworkSpec:
    """The network called `name`. Raises: InputError when it cannot play that role."""
    spec = NETWORKS.get(name)
    if spec is None or not isinstance(spec.input, kind) or (known and name not in known):
        names = known or [n for n, s in NETWORKS.items() if isinstance(s.input, kind)]
        raise InputError(f"{name!r} is no {role}; known are {', '.join(names)}")
    return spec


class NetworkMeshStream(nn.Module):
    """A mesh network and the body: image -> mesh (Eq. 1-2), turned onto the crop's viewing ray.

    skeleton: of the source joints. keypoints: skeleton of the mesh's own image, by default the
    same. encoder: the image network whose features a video network takes.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        layer: SmplLayer,
        skeleton: str,
        keypoints: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        spec = spec_of(name, (ImageInput, FeatureInput), "mesh generator", GENERATORS)  # type: ignore[arg-type]
        if isinstance(spec.input, FeatureInput) and encoder is None:
            raise InputError(f"{name} takes features: give its encoder, {spec.input.encoder}")
        self.rule, self.network, self.encoder = GENERATORS[name], network, encoder
        self.layer, self.skeleton, self.keypoints = layer, skeleton, keypoints or skeleton

    def parameters_of(self, view: View) -> MeshParameters:
        """Theta and camera of every row."""
        if self.rule.encode is None or self.encoder is None:
            return self.rule.read(self.network(view.crop.image))
        features = view.to_clips(self.rule.encode(self.encoder, view.crop.image))
        answer = self.rule.read(self.network(features))
        return MeshParameters(*(value.flatten(0, 1) for value in answer))

    def forward(self, view: View) -> Mesh:
        camera = self.rule.camera
        rotmats, betas, cam = (x.to(self.layer.v_template) for x in self.parameters_of(view))
        posed = self.layer(rotmats, betas)
        seen = camera.project(self.layer.regress(self.keypoints, posed.vertices), cam)
        seen = view.crop.to_frame(seen)

        off = camera.off_axis(view.crop.affine, view) / view.focal
        turn = ray_rotation(torch.cat([off, torch.ones_like(off[:, :1])], 1)).to(rotmats)
        pelvis = posed.joints[:, :1]
        vertices = (posed.vertices - pelvis) @ turn.mT + pelvis
        rotmats = torch.cat([(turn @ rotmats[:, 0])[:, None], rotmats[:, 1:]], 1)
        return Mesh(
            rotmats,
            betas,
            vertices,
            self.layer.regress(self.skeleton, vertices),
            camera.translation(cam, view),
            torch.cat([seen, torch.ones_like(seen[..., :1])], -1),
        )
