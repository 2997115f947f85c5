"""BlazePose's arithmetic around its two networks: anchors, detections, ROIs, landmarks.

Follows MediaPipe 0.10.21's CPU graph `pose_landmark_cpu`, in pixels of the full frame, so that
images need not be square.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr_kernels import person
from pchmr_kernels.heatmaps import refine_peaks

from .crops import (
    Box,
    Floats,
    Roi,
    clip_box,
    crop_to_image,
    letterbox_roi,
    region_rows,
    roi_box,
    same_roi,
    transform_points,
)

__all__ = [
    "DETECTOR_SIZE",
    "LANDMARK_SIZE",
    "Detection",
    "LandmarkDecoder",
    "Landmarks",
    "closer_rois",
    "decode_detections",
    "refine_landmarks",
    "roi_from_alignment",
    "ssd_anchors",
    "weighted_nms",
]

DETECTOR_SIZE = 224
LANDMARK_SIZE = 256
_STRIDES = (8, 16, 32, 32, 32)
_ANCHORS_PER_CELL = 2
_ROI_MARGIN = 1.25
_REFINE_RADIUS = 4  # heatmap cells: a 9 x 9 window
_SMALLEST_ROI_PX = 1.0
_CLOSER = 0.6  # side of a closer look, in longer sides of the frame


@dataclass(frozen=True)
class Detection:
    """A person as the detector sees one.

    score: 0..1. keypoints: (4, 2) float32, pixels: middle of the hips, a point on the circle
    around them that holds the body and lies above its head, and the same two for the upper body.
    box: the upright box of that circle inside the frame, pixels: the network finds no tighter one.
    """

    score: float
    box: Box
    keypoints: NDArray[np.float32]

    @property
    def roi(self) -> Roi:
        """The turned square the landmark network wants."""
        return roi_from_alignment(self.keypoints[0], self.keypoints[1])

    def shows(self, landmarks: "Landmarks") -> bool:
        """Whether this is who these landmarks are of."""
        return same_roi(self.roi, landmarks.next_roi)


class Landmarks:
    """A person as the landmark network sees one; order and names are skeleton `blazepose33`.

    raw: (n,) uint8, the bytes of one `pchmr_kernels.person.FOUND`. roi: what the network saw.
    """

    __slots__ = ("_record", "raw", "roi")

    def __init__(self, raw: NDArray[np.uint8], roi: Roi) -> None:
        self.raw, self.roi = raw, roi
        self._record = np.ndarray((), person.FOUND, raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return Landmarks, (self.raw, self.roi)

    @classmethod
    def of(
        cls,
        keypoints_2d: Floats,
        presence: Floats,
        depth_px: Floats,
        auxiliary: Floats,
        world: Floats,
        score: float,
        roi: Roi,
    ) -> "Landmarks":
        """From what the properties give."""
        raw = np.zeros(person.FOUND.itemsize, np.uint8)
        record = np.ndarray((), person.FOUND, raw)
        found = keypoints_2d, presence, depth_px, auxiliary, world, score
        for name, value in zip(person.FOUND.names or (), found, strict=False):
            record[name] = value
        record["region"] = region_rows([roi])
        record["next_region"] = region_rows([roi_from_alignment(*record["auxiliary"])])
        return cls(raw, roi)

    @property
    def keypoints_2d(self) -> NDArray[np.float32]:
        """(33, 3): x px, y px, visibility 0..1 (in the frame and not hidden)."""
        return self._record["keypoints_2d"]

    @property
    def presence(self) -> NDArray[np.float32]:
        """(33,), 0..1: inside the frame, hidden or not."""
        return self._record["presence"]

    @property
    def depth_px(self) -> NDArray[np.float32]:
        """(33,), away from the camera, about the hips, in the scale of x and y."""
        return self._record["depth_px"]

    @property
    def auxiliary(self) -> NDArray[np.float32]:
        """(2, 2), pixels: middle of the hips and a point above the head."""
        return self._record["auxiliary"]

    @property
    def world(self) -> NDArray[np.float32]:
        """(33, 3), metres about the middle of the hips, x right, y down, z away, as the camera is
        held: the ROI's turn is undone."""
        return self._record["world"]

    @property
    def score(self) -> float:
        """0..1, the network's belief that a person is in `roi`; 0 where one of the image points is
        no number."""
        return float(self._record["score"])

    @property
    def next_roi(self) -> Roi:
        """Where to look for this person in the next frame."""
        x, y, size, angle = self._record["next_region"].tolist()
        return Roi((x, y), size, angle)


@cache
def ssd_anchors() -> NDArray[np.float32]:
    """(2254, 2) float32: x, y of the anchors' centres in detector pixels, read-only.

    Two a cell for each of the grids of stride 8, 16, 32, 32, 32; equal neighbours share a grid.
    """
    grids = []
    for stride in dict.fromkeys(_STRIDES):
        centres = (np.arange(DETECTOR_SIZE // stride, dtype=np.float32) + 0.5) * stride
        grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
        grids.append(np.repeat(grid, _ANCHORS_PER_CELL * _STRIDES.count(stride), axis=0))
    anchors = np.concatenate(grids)
    anchors.flags.writeable = False
    return anchors


def decode_detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    threshold: float = 0.5,
    roi: Roi | None = None,
) -> list[Detection]:
    """People in a frame of `width` x `height`, best first, from the detector's output.

    boxes: (2254, 12): centre, width and height of a box, then 4 keypoints, pixels about the
    anchor. scores: (2254, 1) logits. roi: the part of the frame the detector saw, one of
    `closer_rois`; the whole frame, `letterbox_roi(width, height)`, by default.
    """
    probability = _sigmoid(np.clip(scores[:, 0], -100.0, 100.0))
    kept = np.flatnonzero(probability >= threshold)
    if not len(kept):
        return []
    values = boxes[kept].astype(np.float64).reshape(-1, 6, 2)
    values[:, (0, 2, 3, 4, 5)] += ssd_anchors()[kept, None]
    half = values[:, 1] / 2
    corners = np.concatenate([values[:, 0] - half, values[:, 0] + half], 1)
    affine = crop_to_image(roi or letterbox_roi(width, height), DETECTOR_SIZE)
    people = []
    for score, points in weighted_nms(corners, probability[kept], values[:, 2:]):
        keypoints = transform_points(affine, points).astype(np.float32)
        radius = math.dist(keypoints[0], keypoints[1])
        circle = Roi((float(keypoints[0, 0]), float(keypoints[0, 1])), 2 * radius)
        people.append(Detection(score, clip_box(roi_box(circle), width, height), keypoints))
    return people


def closer_rois(width: int, height: int) -> list[Roi]:
    """Overlapping squares that cover a frame: people too small in the whole are larger in them.

    On the demo video's single frames the detector and the landmark network together find somebody
    in 28 of 46 by the whole frame, in 43 with these.
    """
    size = _CLOSER * max(width, height)
    rows, columns = _tile_centers(height, size), _tile_centers(width, size)
    return [Roi((x, y), size) for y in rows for x in columns]


def _tile_centers(length: int, size: float) -> list[float]:
    """Middles of the fewest tiles over `length` that overlap by a third of `size`, or of one."""
    if length <= size:
        return [length / 2]
    steps = math.ceil(1.5 * (length - size) / size - 1e-9)
    return [size / 2 + (length - size) * step / steps for step in range(steps + 1)]


def weighted_nms(
    boxes: Floats, scores: Floats, values: Floats, min_iou: float = 0.3
) -> list[tuple[float, NDArray[np.float64]]]:
    """Best scores, each with the score-weighted mean of the `values` whose boxes overlap its own.

    boxes: (N, 4) x0, y0, x1, y1. scores: (N,). values: (N, ...). Best first. A box that overlaps
    not even itself (it has no area) stands alone.
    """
    merged = []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = np.argsort(-scores, kind="stable")
    while len(left):
        best = left[0]
        low = np.maximum(boxes[left, :2], boxes[best, :2])
        high = np.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = np.maximum(high - low, 0.0).prod(1)
        overlaps = shared > min_iou * (area[left] + area[best] - shared)
        overlaps[0] = True
        group = left[overlaps]
        merged.append((float(scores[best]), np.average(values[group], 0, scores[group])))
        left = left[~overlaps]
    return merged


def roi_from_alignment(center: Floats, above: Floats) -> Roi:
    """The square around a body from the middle of its hips and the point above its head.

    center, above: (2,) pixels. The square is turned so that `above` is straight up in it.
    """
    x, y = float(center[0]), float(center[1])
    dx, dy = float(above[0]) - x, float(above[1]) - y
    size = max(2 * _ROI_MARGIN * math.hypot(dx, dy), _SMALLEST_ROI_PX)
    return Roi((x, y), size, math.atan2(dx, -dy))


class LandmarkDecoder:
    """People from the landmark network's output arrays, which it reads at every call.

    landmarks: (B, 39, 5): x, y, z in crop pixels, logits of visibility and presence.
    presence: (B, 1), already 0..1: the logistic is in the network. world: (B, 39, 3) metres, z
    away from the camera. heatmaps: (B, 64, 64, 39) logits; with them the image points are refined
    as MediaPipe does, without they are the network's own regression (about 2 crop pixels off).
    """

    def __init__(
        self,
        landmarks: NDArray[np.float32],
        presence: NDArray[np.float32],
        world: NDArray[np.float32],
        heatmaps: NDArray[np.float32] | None = None,
    ) -> None:
        self._decode = person.LandmarkDecoder(
            *(landmarks, presence, world, heatmaps, LANDMARK_SIZE, _REFINE_RADIUS)
        )

    def __call__(
        self, rois: Sequence[Roi], regions: NDArray[np.float64] | None = None
    ) -> list[Landmarks]:
        """One person a ROI, from the first rows. regions: `region_rows` of them, if at hand."""
        found = self._decode(region_rows(rois) if regions is None else regions)
        return [Landmarks(raw, roi) for raw, roi in zip(found, rois, strict=True)]


def refine_landmarks(points: Floats, heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Crop points moved to the centre of mass of the heatmap in a window about each.

    A point outside the crop, or whose window peaks below one half, stays.
    points: (N, 2) crop pixels. heatmap: (H, W, N) logits.
    """
    cell = LANDMARK_SIZE / heatmap.shape[1]
    return refine_peaks(points.astype(np.float32), heatmap, cell, _REFINE_RADIUS)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
