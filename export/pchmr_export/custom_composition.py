"""Custom stages in the PyTorch composition, as `pchmr_training` has registered ones."""

from typing import Any

import torch
from torch import Tensor, nn

from pchmr.prepost.cameras import CROP_FOCAL_PX
from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton
from pchmr_training.mesh_streams import GENERATORS, CropCamera, NetworkMeshStream
from pchmr_training.networks import KeypointInput
from pchmr_training.networks.spin_hmr import MeshParameters
from pchmr_training.open_default.views import ray_rotation
from pchmr_training.pchmr import Mesh, Target
from pchmr_training.pose_streams import JointConversion, NetworkLifter
from pchmr_training.smpl import SmplLayer
from pchmr_training.view import View

from .stage_forms import LoadedNetwork, StageForm


def windows(rows: int, length: int, keep: tuple[int, int]) -> Tensor:
    """(windows, length) frames of a clip as the runtime's windows hold them: they follow each other
    by what they keep, and the clip's first and last frame go on beyond its ends."""
    first, end = keep
    index = torch.arange(-first, rows + length).clamp(0, rows - 1)
    return index.unfold(0, length, end - first)


class CustomMeshStream(NetworkMeshStream):
    """A generator of the user's own, from a crop's image or from an encoder's features."""

    def __init__(
        self,
        form: StageForm,
        encoder: LoadedNetwork | None,
        layer: SmplLayer,
        skeleton: str,
        keypoints: str,
    ) -> None:
        nn.Module.__init__(self)
        self.form, self.network, self.layer = form, form.module, layer
        self.skeleton, self.keypoints = skeleton, keypoints
        self.encoder = None if encoder is None else _encode(encoder)
        self.camera = _camera(form)

    def outputs_of(self, view: View) -> dict[str, Tensor]:
        """What the generator gives, by name."""
        given, settings = view.crop.image, self.form.settings
        if self.encoder is not None:
            given = self.encoder(given)
        if "window" not in settings:
            return self._named(self.network(given))
        first, end = keep = settings["keep"]
        answer = self._named(self.network(given[windows(view.rows, settings["window"], keep)]))
        return {key: x[:, first:end].flatten(0, 1)[: view.rows] for key, x in answer.items()}

    def _named(self, answer: Any) -> dict[str, Tensor]:
        values = (answer,) if isinstance(answer, Tensor) else answer
        return dict(zip(self.form.outputs, values, strict=True))

    def parameters_of(self, view: View) -> MeshParameters:
        answer = self.outputs_of(view)
        return MeshParameters(*(answer[name] for name in ("rotmats", "betas", "cam")))

    def forward(self, view: View) -> Mesh:
        if "vertices" not in self.form.outputs:
            return super().forward(view)
        answer = {k: x.to(self.layer.v_template) for k, x in self.outputs_of(view).items()}
        seen, cam = answer["vertices"], answer["cam"]
        pixels = self.camera.project(self.layer.regress(self.keypoints, seen), cam)
        pixels = view.crop.to_frame(pixels)
        off = self.camera.off_axis(view.crop.affine, view) / view.focal
        turn = ray_rotation(torch.cat([off, torch.ones_like(off[:, :1])], 1)).to(seen)
        root = self.layer.regress(self.skeleton, seen)[:, get_skeleton(self.skeleton).root, None]
        vertices = (seen - root) @ turn.mT + root
        return Mesh(
            seen.new_zeros(seen.shape[0], 0, 3, 3),
            seen.new_zeros(seen.shape[0], 0),
            vertices,
            self.layer.regress(self.skeleton, vertices),
            self.camera.translation(cam, view),
            torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1),
        )


class CustomLifter(NetworkLifter):
    """A lifter of the user's own, of single frames or of windows."""

    def __init__(self, loaded: LoadedNetwork, skeleton: str, keypoints: str | None) -> None:
        nn.Module.__init__(self)
        assert loaded.form is not None
        assert isinstance(loaded.spec.input, KeypointInput)
        taken = loaded.spec.input.skeleton
        self.spec, self.network, self.form = loaded.spec, loaded.network, loaded.form
        self.before = JointConversion(keypoints or taken, taken)
        self.within = JointConversion(taken, loaded.spec.skeleton)
        self.after = JointConversion(loaded.spec.skeleton, skeleton)

    def forward(self, keypoints_2d: Tensor, view: View) -> Target:
        points = self._normalised(self.before(keypoints_2d[..., :2]), view).float()
        confidence = self.within.confidence(self.before.confidence(keypoints_2d[..., 2]))
        joints = self._lift(points, view).to(keypoints_2d)
        return Target(self.after(joints), self.after.confidence(confidence))

    def _lift(self, points: Tensor, view: View) -> Tensor:
        settings = self.form.settings
        if "window" not in settings:
            return _first(self.network(points))
        first, end = keep = settings["keep"]
        answer = _first(self.network(points[windows(view.rows, settings["window"], keep)]))
        kept = answer[:, first:end] if answer.ndim == 4 else answer[:, None]
        return kept.flatten(0, 1)[: view.rows]


class CustomPose3D(nn.Module):
    """Joints in metres over crops, turned onto the crop's viewing ray."""

    def __init__(self, loaded: LoadedNetwork, skeleton: str) -> None:
        super().__init__()
        self.network, self.size = loaded.network, loaded.spec.input.size  # type: ignore[union-attr]
        self.after = JointConversion(loaded.spec.skeleton, skeleton)

    def forward(self, view: View, mesh: Mesh) -> Target:
        crop = view.pose_crop or view.crop
        height, width = self.size
        affine = crop.affine.to(mesh.vertices)
        middle = affine.new_tensor([width / 2, height / 2])
        off = view.rays(affine[..., :2] @ middle + affine[..., 2])
        turn = ray_rotation(torch.cat([off, torch.ones_like(off[:, :1])], 1)).to(affine)
        joints = _first(self.network(crop.image)).to(mesh.vertices)
        return Target(self.after(joints @ turn.mT))


def _first(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else answer[0]


def _encode(encoder: LoadedNetwork) -> Any:
    """Image -> features, of a registered encoder or of one of the user's own."""
    if encoder.form is not None:
        return lambda image: _first(encoder.network(image))
    rules = {"spin_hmr": "vibe", "hmr_tf": "hmmr_tf"}
    encode = GENERATORS[rules[encoder.spec.name]].encode
    assert encode is not None
    return lambda image: encode(encoder.network, image)


def _camera(form: StageForm) -> CropCamera:
    settings = form.settings
    if settings.get("focal_px", CROP_FOCAL_PX) != CROP_FOCAL_PX:
        raise InputError(
            f"a generator with focal_px = {settings['focal_px']}: the PyTorch composition knows "
            f'{CROP_FOCAL_PX:g}, or camera = "weak"'
        )
    return CropCamera(settings["camera_size"], settings["camera"] == "weak")
