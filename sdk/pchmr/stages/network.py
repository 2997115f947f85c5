"""Networks as stages: over people's upright crops, and over arrays of the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pchmr_engines.engine import Context, Engine
from pchmr_engines.manifest import Crop

from ..crops import Box
from ..prepost import Crop as PersonCrop
from ..prepost import crop_person
from ..prepost.boxes import box_to_aspect
from .base import BatchedEngine, Board

_LEAST_PX = 2.0  # of a box inside the frame, so that every crop rule finds something to show


class CropNetwork:
    """A network whose input `image` is upright crops of people, cut by a rule of `prepost.CROPS`.

    box_scale: what boxes are grown by before the rule: those of landmarks end at the eyes and the
    ankles. After `prepare`, `crops` are those of the people and `affine` (P, 2, 3) takes their
    pixels to the frame's.
    """

    def __init__(
        self, engine: Engine, crop: Crop, max_people: int, threads: int, box_scale: float = 1.0
    ) -> None:
        self.outputs = tuple(engine.outputs)
        self._engine = BatchedEngine(engine, max_people, threads)
        self._rule, self._swap = crop.affine, crop.colour == "bgr"
        self._size = crop.size[1], crop.size[0]
        self._box_scale = box_scale
        self.crops: list[PersonCrop] = []
        self.affine = np.empty((0, 2, 3))
        self._context: Context
        self._arrays: dict[str, np.ndarray]

    def prepare(self, image: np.ndarray, boxes: np.ndarray) -> None:
        """Cut (P, 4) tight boxes out of a (H, W, 3) uint8 BGR image into the network's input."""
        people = len(boxes)
        self._context, self._arrays = self._engine.context(people), self._engine.arrays(people)
        height, width = image.shape[:2]
        grown = [_grown(box, self._box_scale, width, height) for box in boxes]
        self.crops = [crop_person(image, box, self._rule, self._size) for box in grown]
        self.affine = np.stack([cv2.invertAffineTransform(crop.affine) for crop in self.crops])
        for crop, row in zip(self.crops, self._arrays["image"], strict=True):
            row[:] = crop.pixels[..., ::-1] if self._swap else crop.pixels

    def enqueue(self) -> None:
        self._context.enqueue()

    def output(self, name: str) -> np.ndarray:
        """(P, ...), overwritten by the next run."""
        return self._arrays[name]

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """(P, J, 2) pixels of each crop in the frame."""
        return affine_points(self.affine, points)


def affine_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (B, J, 2), each row through its own (B, 2, 3) affine."""
    return points @ affine[..., :2].transpose(0, 2, 1) + affine[:, None, :, 2]


def _grown(box: Sequence[float] | np.ndarray, scale: float, width: int, height: int) -> Box:
    """The box grown about its middle, with something of the frame in it."""
    x0, y0, x1, y1 = map(float, box)
    x0, y0 = min(x0, width - _LEAST_PX), min(y0, height - _LEAST_PX)
    box = x0, y0, max(x1, x0 + _LEAST_PX), max(y1, y0 + _LEAST_PX)
    return box if scale == 1 else box_to_aspect(box, (box[2] - box[0]) / (box[3] - box[1]), scale)


class CropStage:
    """A network over crops, its outputs as they are: an encoder, a mesh generator, PoseNet.

    outputs: the network's -> the board's. affine: board name of how each crop lies, (P, 2, 3).
    """

    needs = frozenset({"box"})

    def __init__(
        self, name: str, network: CropNetwork, outputs: Mapping[str, str], affine: str
    ) -> None:
        self.name, self._network, self._outputs, self._affine = name, network, outputs, affine
        self.gives = frozenset({*outputs.values(), affine})

    def prepare(self, board: Board) -> None:
        self._network.prepare(board.image, board["box"])

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        board[self._affine] = self._network.affine
        for output, name in self._outputs.items():
            board[name] = self._network.output(output).copy()


class NetworkStage:
    """A network over arrays of the board, one row a person.

    inputs: the network's -> the board's; outputs likewise. Inputs may be shaped otherwise than the
    network's, as long as a row holds as many numbers.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        max_people: int,
        threads: int,
    ) -> None:
        self.name, self._inputs, self._outputs = name, inputs, outputs
        self.needs, self.gives = frozenset(inputs.values()), frozenset(outputs.values())
        self._engine = BatchedEngine(engine, max_people, threads)
        self._context: Context
        self._arrays: dict[str, np.ndarray]

    def prepare(self, board: Board) -> None:
        people = len(board.rows)
        self._context, self._arrays = self._engine.context(people), self._engine.arrays(people)
        for graph_name, name in self._inputs.items():
            array = self._arrays[graph_name]
            array[:] = board[name].reshape(array.shape)

    def enqueue(self) -> None:
        self._context.enqueue()

    def collect(self, board: Board) -> None:
        for graph_name, name in self._outputs.items():
            board[name] = self._arrays[graph_name].copy()
