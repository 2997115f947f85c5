"""Frames through the device: who is followed goes by one graph, who is looked for by another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pchmr_engines.errors import EngineError

from ..blazepose import DETECTOR_SIZE, Detection, Landmarks, closer_rois, decode_detections
from ..camera import Camera
from ..crops import Roi, crop_to_image, letterbox_roi, region_rows
from .device import Buffer, Device
from .parts import Parts, in_graph
from .plan import Plan
from .ranges import span
from .steps import DETECTIONS, RESULTS, Steps

STREAMS = 2


@dataclass(frozen=True)
class _Run:
    """The last run of followed people: whom it was of, and what came down."""

    plan: Plan
    rois: tuple[Roi, ...]
    results: dict[str, np.ndarray]


class Frames:
    """Runs the networks and all between them on one frame at a time. Not thread-safe.

    Memory, contexts and graphs are made at the first frame of a size, a graph for each batch of 1,
    2, 4 ... people; afterwards nothing is allocated. Rows beyond the people repeat the first one.
    graph: one launch a run; by default where all engines can be captured. streams: with one, no
    branch overlaps another, for benchmarks.
    """

    def __init__(
        self,
        parts: Parts,
        device: Device,
        max_people: int,
        graph: bool | None = None,
        streams: int = STREAMS,
    ) -> None:
        self._parts, self.device = parts, device
        self._graph = in_graph(parts.engines.values(), graph)
        self._batches = [1 << n for n in range((max_people - 1).bit_length() + 1)]
        self.streams = [device.stream() for _ in range(streams)]
        self._constants = self._upload(parts.constants())
        self._size: tuple[int, int] | None = None
        self._frame: Buffer
        self._given: dict[str, Buffer] = {}
        self.plans: dict[int, Plan] = {}
        self._detection: Plan
        self._expected: dict[int, tuple[Roi, ...]] = {}
        self._last: _Run | None = None
        self._lens: tuple[float, ...] = ()
        self._frozen_at = 0

    @property
    def torch(self) -> bool:
        """Whether torch runs in it: see `Device.capture`."""
        return self._parts.torch

    def _upload(self, arrays: dict[str, np.ndarray]) -> dict[str, Buffer]:
        buffers = {}
        for name, array in arrays.items():
            buffers[name] = self.device.alloc(name, (array.shape, array.dtype.name))
            self.device.upload(buffers[name], array, self.streams[0])
        self.device.synchronize(self.streams[0])
        return buffers

    def begin(self, image: np.ndarray, camera: Camera) -> None:
        """Send up the next frame, (H, W, 3) uint8 BGR.

        Raises: EngineError for a camera with distortion.
        """
        if camera.distortion:
            raise EngineError(
                "device 'cuda' takes frames without lens distortion: undistort them first, or use "
                "device='cpu'"
            )
        height, width = image.shape[:2]
        self._last = None
        if self._size != (width, height):
            self._prepare(width, height, camera)
        device, first = self.device, self.streams[0]
        with span("upload"):
            if self._lens != camera.lens:
                self._lens = camera.lens
                device.upload(self._given["lens"], np.array(camera.lens), first)
            device.upload(self._frame, image, first)

    def _prepare(self, width: int, height: int, camera: Camera) -> None:
        """Make everything for frames of this size, and freeze it."""
        device = self.device
        device.thaw()
        self._size, self._expected, self.plans = None, {}, {}  # until all of it is there
        self._frame = device.alloc("frame", ((height, width, 3), "uint8"), shared=True)
        self._lens = camera.lens
        lens = self._upload({"lens": np.array(camera.lens)})
        self._given = {**self._constants, "frame": self._frame, **lens}
        for batch in self._batches:
            plan = self._plan(f"followed{batch}", batch)
            self._send(plan, "next_roi", region_rows([letterbox_roi(width, height)] * batch))
            self.plans[batch] = plan
        steps = Steps(self._parts, 1).detection()
        given = {**self._given, **self._upload({"detector_affine": np.zeros((1, 2, 3))})}
        self._detection = Plan(device, "detection", steps, given, DETECTIONS, self.streams)
        for plan in self.plans.values():
            plan.warm_up(self._meshes)
        self._detection.warm_up()
        for plan in (*self.plans.values(), self._detection) if self._graph else ():
            plan.capture(self._parts.torch)
        device.freeze()
        self._size, self._frozen_at = (width, height), device.allocations

    def _plan(self, name: str, batch: int) -> Plan:
        steps = Steps(self._parts, batch).followed()
        return Plan(self.device, name, steps, self._given, RESULTS, self.streams)

    def _send(self, plan: Plan, name: str, array: np.ndarray) -> None:
        self.device.upload(plan.buffers[name], array, self.streams[0])

    def follow(self, rois: Sequence[Roi]) -> list[Landmarks]:
        """Who is in these regions of the frame; their meshes stay on the device.

        Nothing goes up where the regions are those that the last run left.
        """
        batch = 1 << (len(rois) - 1).bit_length()
        plan, rois = self.plans[batch], tuple(rois)
        if self._expected.pop(batch, None) != rois:  # unknown until the run is over
            padded = [*rois, *[rois[0]] * (batch - len(rois))]
            self._send(plan, "next_roi", region_rows(padded))
        results = self._run(plan)
        self._last = _Run(plan, rois, results)
        found = [_landmarks(results, row, roi) for row, roi in enumerate(rois)]
        self._expected[batch] = tuple(person.next_roi for person in found)
        return found

    def _run(self, plan: Plan) -> dict[str, np.ndarray]:
        results = plan.run()
        assert self.device.allocations == self._frozen_at, "memory was allocated for a frame"
        return results

    def detect(self, part: Roi | None = None) -> list[Detection]:
        """People in the frame, or in a part of it, best first."""
        assert self._size is not None
        part = part or letterbox_roi(*self._size)
        affine = crop_to_image(part, DETECTOR_SIZE)[None]
        self._send(self._detection, "detector_affine", affine)
        found = self._run(self._detection)
        return decode_detections(found["boxes"][0], found["scores"][0], *self._size, roi=part)

    def look_closer(self) -> list[Detection]:
        """People in overlapping parts of the frame, where the small are larger."""
        assert self._size is not None
        return [found for part in closer_rois(*self._size) for found in self.detect(part)]

    def results(self, rois: Sequence[Roi], meshes: bool = True) -> dict[str, np.ndarray]:
        """What came down of the people in these regions, a row each, copied.

        They are those of the last run, or run once more where that was of others. meshes: vertices
        and calibrated vertices about the body's own origin, too.
        """
        if self._last is None or not set(rois) <= set(self._last.rois):
            self.follow(rois)
        assert self._last is not None
        rows = [self._last.rois.index(roi) for roi in rois]
        found = {name: array[rows] for name, array in self._last.results.items()}
        for name in self._meshes if meshes else ():
            found[name] = self._last.plan.download(name)[rows]
        return found

    @property
    def _meshes(self) -> tuple[str, ...]:
        return ("vertices",) if self._parts.topology == "mesh-only" else ("vertices", "calibrated")


def _landmarks(results: dict[str, np.ndarray], row: int, roi: Roi) -> Landmarks:
    names = ("keypoints", "presence", "depth", "auxiliary", "world_upright")
    points, presence, depth, auxiliary, world = (
        results[name][row].astype(np.float32) for name in names
    )
    seen = np.isfinite(points).all() and np.isfinite(auxiliary).all()
    score = float(results["score"][row, 0]) if seen else 0.0
    return Landmarks.of(points, presence, depth, auxiliary, world, score, roi)
