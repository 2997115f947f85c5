"""A bundle's networks by role, as the pieces that stages are made of; what is missing is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pchmr_engines import manifest
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import BundleError

from .crop_camera import CropCamera
from .stages.base import KeypointEngine, Stage
from .stages.blazepose import Detector, LandmarkNetwork, PersonDetector
from .stages.detectors import box_detector
from .stages.network import CropNetwork, NetworkStage
from .stages.temporal import temporal_stage

_FOCAL_PX = 5000.0  # of a perspective camera that names none


@dataclass(frozen=True)
class BundleNetworks:
    """backend: of every engine. threads: CPU threads of the large networks; small ones run best on
    one. max_people: rows that a batch holds at most."""

    bundle: Bundle
    backend: str
    threads: int
    max_people: int

    def find(self, role: str) -> manifest.Stage | None:
        """The bundle's first stage of a role."""
        stages = self.bundle.manifest.stages
        return next((stage for stage in stages if stage.role == role), None)

    def need(self, role: str) -> manifest.Stage:
        """The same. Raises: BundleError when there is none."""
        stage = self.find(role)
        if stage is None:
            held = ", ".join(f"{s.name} ({s.role})" for s in self.bundle.manifest.stages)
            raise BundleError(
                f"bundle {self.bundle.manifest.name!r} has no {role}, which the topology needs; "
                f"it has {held}: choose another topology, or export the bundle with one"
            )
        return stage

    def engine(self, stage: manifest.Stage, threads: int | None = None) -> Engine:
        return self.bundle.engine(stage.name, self.backend, threads or self.threads)

    def detector(self, stage: manifest.Stage) -> Detector:
        """BlazePose's, or one of boxes, whose settings name one of `detector_formats.FORMATS`."""
        engine = self.engine(stage)
        if "format" not in stage.settings:
            return PersonDetector(engine, self.threads)
        return box_detector(engine, stage.settings, self.threads)

    def landmarks(self, stage: manifest.Stage) -> LandmarkNetwork:
        """A network over the tracker's turned crops."""
        return LandmarkNetwork(self.engine(stage), self.max_people, self.threads)

    def keypoints(self, stage: manifest.Stage) -> KeypointEngine:
        """A network over the tracker's landmarks: G or L of the open default."""
        landmarks = stage.settings["landmarks"]
        return KeypointEngine(self.engine(stage, 1), landmarks, self.max_people, 1)

    def crops(self, stage: manifest.Stage) -> CropNetwork:
        """A network over upright crops."""
        crop, scale = crop_of(stage), stage.settings.get("box_scale", 1.0)
        return CropNetwork(self.engine(stage), crop, self.max_people, self.threads, scale)

    def arrays(
        self,
        name: str,
        stage: manifest.Stage,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
    ) -> Stage:
        """A network over the board's arrays. inputs, outputs: its names -> the board's."""
        check_outputs(stage, outputs)
        if stage.settings.keys() & {"state", "window"}:
            engine, threads = self.engine(stage), self.threads
            return temporal_stage(
                name, engine, stage.settings, inputs, outputs, self.max_people, threads
            )
        return NetworkStage(name, self.engine(stage, 1), inputs, outputs, self.max_people, 1)


def takes_landmarks(stage: manifest.Stage) -> bool:
    """Whether a generator or a lifter takes the tracker's landmarks, as the open default's do."""
    return "landmarks" in stage.settings


def takes_rois(stage: manifest.Stage | None) -> bool:
    """Whether a network takes the tracker's turned crops, as BlazePose's own do."""
    return stage is not None and stage.crop is not None and stage.crop.affine == "roi"


def gives_vertices(generator: manifest.Stage) -> bool:
    """Whether a mesh generator gives a mesh in place of the body's pose and shape."""
    return any(spec.name == "vertices" for spec in generator.outputs)


def crop_of(stage: manifest.Stage) -> manifest.Crop:
    """Raises: BundleError for a stage without a crop."""
    if stage.crop is None:
        raise BundleError(f"stage {stage.name!r} ({stage.role}) has no crop; expected an image's")
    return stage.crop


def skeleton_of(stage: manifest.Stage) -> str:
    """Raises: BundleError for a stage that names no skeleton."""
    if stage.skeleton is None:
        raise BundleError(f"stage {stage.name!r} ({stage.role}) names no skeleton of its joints")
    return stage.skeleton


def lifter_skeletons(lifter: manifest.Stage) -> tuple[str, str]:
    """Joint orders of what a lifter takes and gives. Raises: BundleError where one is not said."""
    if "keypoints" not in lifter.settings:
        raise BundleError(
            f"stage {lifter.name!r} (lifter) does not say which joints it takes; expected the name "
            "of a skeleton as 'keypoints' in its settings"
        )
    return lifter.settings["keypoints"], skeleton_of(lifter)


def crop_camera(generator: manifest.Stage) -> CropCamera:
    """The camera of a mesh generator's `cam`; its size is the crop's where the settings name none.

    Raises: BundleError where they name no camera.
    """
    settings, crop = generator.settings, generator.crop
    kind = settings.get("camera")
    size = settings.get("camera_size", crop.size[0] if crop else None)
    if kind not in ("perspective", "weak") or not size:
        raise BundleError(
            f"stage {generator.name!r} has camera {kind!r} and camera_size {size!r}; expected "
            "'perspective' or 'weak', and pixels, in its settings"
        )
    return CropCamera(size, settings.get("focal_px", _FOCAL_PX) if kind == "perspective" else None)


def check_shapes(stage: manifest.Stage, **expected: tuple[int, ...]) -> None:
    """Raises: BundleError for outputs of other shapes (of a row and frame) than the body's."""
    dims = 2 if "window" in stage.settings else 1  # before them: B, and the frames of a window
    for spec in stage.outputs:
        shape = expected.get(spec.name, spec.shape[dims:])
        if spec.shape[dims:] != shape:
            raise BundleError(
                f"stage {stage.name!r} gives {spec}, but the bundle's body has "
                f"({', '.join(map(str, shape))}): export it with the body the network was made for"
            )


def check_outputs(stage: manifest.Stage, wanted: Collection[str]) -> None:
    """Raises: BundleError for a stage that lacks outputs."""
    given = [spec.name for spec in stage.outputs]
    if not set(wanted) <= set(given):
        raise BundleError(
            f"stage {stage.name!r} ({stage.role}) gives {', '.join(given)}; expected "
            f"{', '.join(wanted)}: export it with these outputs"
        )
