"""The steps of a followed frame and of a detection, as the pipeline's stages have them.

    frame -> crops -> landmarks -> points -> generator -> pose -> place -> [lifter -> calibrate]

A region of interest never leaves the device: each frame's landmarks say where the next crop looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pchmr_engines.engine import Engine
from pchmr_kernels import cuda, cuda_crops, cuda_person

from ..blazepose import DETECTOR_SIZE, LANDMARK_SIZE
from .device import Buffer, Device, Form, Stream
from .parts import Parts
from .schedule import Step

NO_NAMES: Mapping[str, str] = {}
ENGINE_COST = 15.0  # of a small kernel's; the landmark networks take longer, which changes nothing
ONLY_OF_THE_TRACKER = ("world_upright", "presence", "depth", "auxiliary", "next_roi")

RESULTS = frozenset(
    {
        *("score", "roi", "keypoints", "world_upright", "presence", "depth", "auxiliary"),
        *("rotmats", "betas", "translation", "placed", "source", "target", "confidence"),
    }
)
"""What goes down after every followed frame; meshes do when they are asked for."""
DETECTIONS = frozenset({"boxes", "scores"})


class Steps:
    """Makes the steps of one batch."""

    def __init__(self, parts: Parts, batch: int) -> None:
        self._parts, self._batch = parts, batch
        body = parts.body
        self._sizes = {
            "batch": batch,
            "joints": len(body.parents),
            "target_joints": len(parts.skeleton.joints),
            "shapes": body.num_betas,
            "terms": len(parts.basis),
            "vertices": len(body.v_template),
            "map_size": parts.map_size,
        }

    def followed(self) -> list[Step]:
        """From a frame and the regions of the one before to the calibrated mesh."""
        parts = self._parts
        tracker = {"landmarks": "landmarks", "presence": "score", "world": "world"}
        steps = [
            self._kernel("crops", "person_crops", LANDMARK_SIZE),
            self._crop("image", "affine", LANDMARK_SIZE, extend=True),
            self._engine("tracker", {"image": "image"}, tracker | self._maps("tracker")),
            self._landmarks("decode", "tracker", {}),
            self._points("generator", "keypoints"),
            self._engine(
                "generator",
                {"keypoints": "generator_points"},
                {"rot6d": "rot6d", "betas": "betas"},
            ),
            self._kernel("pose", "person_pose"),
            self._kernel("shape", "person_shape"),
            self._joints("mesh_landmarks", 33, parts.landmark_joints),
            self._joints("source", self._sizes["target_joints"], parts.source_joints),
            self._kernel("place", "person_place"),
            self._skin(),
        ]
        if parts.topology == "serial":
            steps += [
                self._points("lifter", None),
                self._lifter(),
                self._kernel("target", "person_lifted"),
                self._calibrate(),
            ]
        elif parts.topology == "parallel":
            names = {"keypoints": "keypoints", "world_view": "world_view"}
            if "pose2d" in parts.engines:
                names = {"keypoints": "pose_keypoints", "world_view": "pose_world"}
                steps += self._own_landmarks(names)
            steps += [
                self._points("lifter", names["keypoints"]),
                self._lifter(),
                self._kernel("target", "person_target", 0, names),
                self._calibrate(),
            ]
        return steps

    def detection(self) -> list[Step]:
        """From a frame and where to look in it to the detector's raw answer."""
        outputs = {"boxes": "boxes", "scores": "scores"}
        return [
            self._crop("detector_image", "detector_affine", DETECTOR_SIZE, extend=False),
            self._engine("detector", {"image": "detector_image"}, outputs),
        ]

    # The pose stream's own landmark network, on the same crops

    def _own_landmarks(self, names: Mapping[str, str]) -> list[Step]:
        outputs = {"landmarks": "pose_landmarks", "world": "pose_metric", "presence": "pose_score"}
        outputs |= self._maps("pose2d", "pose_heatmaps")
        given = {"landmarks": "pose_landmarks", "world": "pose_metric", "heatmaps": "pose_heatmaps"}
        given |= dict.fromkeys(ONLY_OF_THE_TRACKER, "")
        return [
            self._engine("pose2d", {"image": "image"}, outputs),
            self._landmarks("pose_decode", "pose2d", {**names, **given}),
        ]

    def _maps(self, role: str, name: str = "heatmaps") -> dict[str, str]:
        return {"heatmaps": name} if "heatmaps" in self._parts.engines[role].outputs else {}

    def _landmarks(self, name: str, role: str, names: Mapping[str, str]) -> Step:
        left = {} if self._maps(role) else {"heatmaps": ""}
        return self._kernel(name, "person_landmarks", LANDMARK_SIZE, {**names, **left})

    # Pieces

    def _points(self, network: str, keypoints: str | None) -> Step:
        """Keypoints, or the mesh's own image, as the crop's camera sees them."""
        names = {"points": f"{network}_points", "columns": f"{network}_columns"}
        taken = len(self._parts.columns[network])
        kernel = "person_projection" if keypoints is None else "person_points"
        if keypoints is not None:
            names["keypoints"] = keypoints
        return self._kernel(f"{network}_points", kernel, 0, names, columns_taken=taken)

    def _lifter(self) -> Step:
        outputs = {"joints": "lifted_joints", "landmarks": "lifted_landmarks"}
        return self._engine("lifter", {"keypoints": "lifter_points"}, outputs)

    def _kernel(
        self,
        step: str,
        kernel: str,
        crop_size: int = 0,
        names: Mapping[str, str] = NO_NAMES,
        **more: int,
    ) -> Step:
        """A kernel of person.cu. names: buffers of its arrays, "" for none, else called alike."""
        spec, sizes = cuda_person.KERNELS[f"pchmr_{kernel}"], {**self._sizes, **more}
        arrays = {n: names.get(n, n) for n in (*spec.reads, *spec.writes) if names.get(n, n)}

        def form(name: str) -> Form:
            dtype, dims = cuda_person.ARRAYS[name]
            shape = tuple(dim if isinstance(dim, int) else sizes[dim] for dim in dims)
            return shape, np.dtype(dtype).name

        def call(on: Callable[[str], Any], stream: Stream) -> None:
            given = {name: on(buffer) for name, buffer in arrays.items()}
            cuda_person.queue(f"pchmr_{kernel}", given, stream, crop_size)

        needs = frozenset(arrays[n] for n in spec.reads if n in arrays)
        gives = {arrays[n]: form(n) for n in spec.writes if n in arrays}
        return Step(step, needs, gives, _launched(call))

    def _crop(self, name: str, affine: str, size: int, extend: bool) -> Step:
        def call(on: Callable[[str], Any], stream: Stream) -> None:
            cuda_crops.crop(on("frame"), on(affine), on(name), extend=extend, stream=stream)

        form: Form = (self._batch, size, size, 3), "uint8"
        return Step(name, frozenset({"frame", affine}), {name: form}, _launched(call))

    def _joints(self, name: str, joints: int, regress: Any) -> Step:
        def call(on: Callable[[str], Any], stream: Stream) -> None:
            regress(on("coefficients"), on("transforms"), on(name), stream)

        form: Form = (self._batch, joints, 3), "float32"
        return Step(name, frozenset({"coefficients", "transforms"}), {name: form}, _launched(call))

    def _skin(self) -> Step:
        def call(on: Callable[[str], Any], stream: Stream) -> None:
            weights = self._parts.lbs_weights
            cuda.blend(on("shaped"), on("transforms"), weights, out=on("vertices"), stream=stream)

        return Step(
            "skin",
            frozenset({"shaped", "transforms"}),
            {"vertices": self._mesh},
            _launched(call),
        )

    def _calibrate(self) -> Step:
        calibrator = self._parts.calibrator

        def call(on: Callable[[str], Any], stream: Stream) -> None:
            calibrator(
                *(on("shaped"), on("transforms"), on("target")),
                source=on("source"),
                confidence=on("confidence"),
                out=on("calibrated"),
                stream=stream,
            )

        needs = frozenset({"shaped", "transforms", "target", "source", "confidence"})
        return Step("calibrate", needs, {"calibrated": self._mesh}, _launched(call))

    @property
    def _mesh(self) -> Form:
        return (self._batch, self._sizes["vertices"], 3), "float32"

    def _engine(self, role: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Step:
        """An engine in a context of its own, over the buffers of those names."""
        engine: Engine = self._parts.engines[role]
        batch = self._batch

        def make(
            device: Device, buffers: Mapping[str, Buffer], stream: Stream
        ) -> Callable[[], None]:
            context = engine.context(batch, stream)
            for name, buffer in {**inputs, **outputs}.items():
                device.bind(context, name, buffers[buffer])
            context.freeze()
            return context.enqueue

        gives = {
            buffer: (engine.outputs[name].sized(batch), engine.outputs[name].dtype)
            for name, buffer in outputs.items()
        }
        return Step(role, frozenset(inputs.values()), gives, make, ENGINE_COST)


def _launched(call: Callable[[Callable[[str], Any], Stream], None]) -> Any:
    """The `make` of a step that is one kernel."""

    def make(device: Device, buffers: Mapping[str, Buffer], stream: Stream) -> Callable[[], None]:
        return lambda: call(lambda name: buffers[name].array, stream)

    return make
