"""Any ONNX person detector: its picture in, its answer as upright boxes out.

    pipe = Pipeline.load("open", detector="yolox_s.onnx", detector_format="yolox", max_people=4)

What a file takes and gives is one of `FORMATS`. The tracker's landmarks follow whom it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pchmr_engines.backends.onnxruntime import open_session
from pchmr_engines.engine import Engine
from pchmr_engines.errors import EngineError, InputError

from ..blazepose import Landmarks
from ..crops import Box, Roi, box_iou, clip_box
from .detector_formats import FORMATS, Arrays

PAD = 114  # the grey around a picture that is not as wide and high as the network wants
_ROI_MARGIN = 1.25
_SAME_BOX_IOU = 0.5
_LEAST_PX = 8.0

Run = Callable[[np.ndarray], Arrays]


@dataclass(frozen=True)
class BoxDetection:
    """A person as a detector of boxes sees one. box: x0, y0, x1, y1 px, tight. score: 0..1."""

    score: float
    box: Box

    @property
    def roi(self) -> Roi:
        """An upright square, rough, to look for landmarks in."""
        x0, y0, x1, y1 = self.box
        return Roi(((x0 + x1) / 2, (y0 + y1) / 2), _ROI_MARGIN * max(x1 - x0, y1 - y0))

    def shows(self, landmarks: Landmarks) -> bool:
        """Whether this is who these landmarks are of."""
        points = landmarks.keypoints_2d[:, :2]
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return box_iou(self.box, (x0, y0, x1, y1)) >= _SAME_BOX_IOU


class BoxDetector:
    """Role detector: a frame -> boxes of the people in it.

    run: a picture (1, 3, H, W) or (1, H, W, 3) of `shape` and `dtype` -> the network's outputs.
    format: a name of `FORMATS`. min_score: of a person. max_iou: of two people's boxes. person:
    index of people among the classes.

    Raises: InputError for an unknown format, a shape that is no picture's, or other outputs.
    """

    def __init__(
        self,
        run: Run,
        shape: tuple[int, ...],
        dtype: str,
        format: str,
        min_score: float = 0.4,
        max_iou: float = 0.6,
        person: int = 0,
    ) -> None:
        if format not in FORMATS:
            raise InputError(f"detector format {format!r}; expected one of {', '.join(FORMATS)}")
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise InputError(f"a detector takes {shape}; expected (1, 3, H, W) or (1, H, W, 3)")
        self._run, self._format, self._dtype = run, FORMATS[format], dtype
        self._planes = shape[1] == 3
        self._size = (shape[2], shape[3]) if self._planes else (shape[1], shape[2])
        self._min_score, self._max_iou, self._person = min_score, max_iou, person
        grey = np.full((*self._size, 3), PAD, np.uint8)
        outputs = self._run(self._picture(grey)[0])
        try:
            boxes, scores = self._format.decode(outputs, self._size, person)
            fits = boxes.shape == (len(scores), 4)
        except (IndexError, ValueError):
            fits = False
        if not fits:
            raise InputError(
                f"the detector gives {[output.shape for output in outputs]}, which is not what "
                f"format {format!r} says: choose another of {', '.join(FORMATS)}"
            )

    def __call__(self, image: np.ndarray) -> list[BoxDetection]:
        """People in a (H, W, 3) uint8 BGR frame, best first."""
        height, width = image.shape[:2]
        picture, scale, left_top = self._picture(image)
        boxes, scores = self._format.decode(self._run(picture), self._size, self._person)
        sure = np.flatnonzero(scores >= self._min_score)
        boxes, scores = (boxes[sure] - np.tile(left_top, 2)) / scale, scores[sure]
        order = range(len(sure)) if self._format.suppressed else self._best(boxes, scores)
        found = [
            BoxDetection(float(scores[i]), clip_box(tuple(boxes[i].tolist()), width, height))
            for i in order
        ]
        return sorted(filter(_is_large, found), key=lambda person: -person.score)

    def look_closer(self, image: np.ndarray) -> list[BoxDetection]:
        """Nobody: such detectors see small people in the whole frame."""
        return []

    def _best(self, boxes: np.ndarray, scores: np.ndarray) -> Sequence[int]:
        """Of boxes that overlap the surest."""
        extents = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        return cv2.dnn.NMSBoxes(extents.tolist(), scores.tolist(), self._min_score, self._max_iou)

    def _picture(self, image: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """The network's input, network pixels a frame's pixel, and where the frame begins in it."""
        height, width = image.shape[:2]
        scale = min(self._size[0] / height, self._size[1] / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (
            ((self._size[0] - rows) // 2, (self._size[1] - columns) // 2)
            if self._format.centred
            else (0, 0)
        )
        picture = np.full((*self._size, 3), PAD, np.uint8)
        inside = picture[top : top + rows, left : left + columns]
        inside[:] = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
        values: np.ndarray = picture[..., ::-1] if self._format.rgb else picture
        if self._dtype != "uint8":
            mean, std = (np.array(x, np.float32) for x in (self._format.mean, self._format.std))
            values = (values - mean) / std
        values = values.transpose(2, 0, 1) if self._planes else values
        return (
            np.ascontiguousarray(values[None], self._dtype),
            scale,
            np.array([left, top], np.float64),
        )


def _is_large(person: BoxDetection) -> bool:
    x0, y0, x1, y1 = person.box
    return x1 - x0 >= _LEAST_PX and y1 - y0 >= _LEAST_PX


def box_detector(engine: Engine, settings: Mapping[str, Any], threads: int) -> BoxDetector:
    """A detector of a bundle. settings: format and, if need be, min_score, max_iou, person."""
    context = engine.context(1, threads=threads)
    context.freeze()
    ((name, spec),) = engine.inputs.items()

    def run(picture: np.ndarray) -> Arrays:
        np.copyto(context.buffers[name], picture)
        context.enqueue()
        return [context.buffers[output] for output in engine.outputs]

    known = ("format", "min_score", "max_iou", "person")
    options = {key: settings[key] for key in known if key in settings}
    return BoxDetector(run, spec.sized(1), spec.dtype, **options)


def detector_from_onnx(path: str | os.PathLike[str], format: str, threads: int) -> BoxDetector:
    """A detector in a file of the user's own, on ONNX Runtime: as many boxes come as it finds.

    Sides that the file leaves open become 640 pixels.

    Raises: InputError, MissingDependency.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; expected a person detector in ONNX")
    try:
        session = open_session(path, threads)
    except EngineError as error:
        raise InputError(f"{path} is no ONNX detector: {error}") from error
    given = session.get_inputs()[0]
    shape = tuple(side if isinstance(side, int) else 640 for side in given.shape[1:])
    dtype = {"tensor(uint8)": "uint8", "tensor(float16)": "float16"}.get(given.type, "float32")

    def run(picture: np.ndarray) -> Arrays:
        try:
            return session.run(None, {given.name: picture})
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} does not run on one picture: {reason}") from error

    return BoxDetector(run, (1, *shape), dtype, format)
