"""2D pose networks over upright crops: HRNet, CPN, and those that decode their keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pchmr_engines.errors import BundleError

from ..prepost import Crop
from ..prepost.cpn import decode_cpn
from ..prepost.hrnet import decode_hrnet
from .base import Board
from .network import CropNetwork

Decode = Callable[[np.ndarray, Crop], np.ndarray]


def decode_keypoints(points: np.ndarray, crop: Crop) -> np.ndarray:
    """keypoints_2d (J, 3: x px, y px, score), full frame, of a crop's own (J, 3)."""
    return np.concatenate([crop.to_image(points[:, :2]), points[:, 2:]], 1)


DECODERS: Mapping[str, Decode] = {
    "hrnet": decode_hrnet,
    "cpn": decode_cpn,
    "keypoints": decode_keypoints,
}
"""What a network's first output becomes: (heat maps or points of one crop, crop) -> (J, 3)."""


class Pose2DStage:
    """Crop -> pose_keypoints (P, J, 3): full-frame pixels without lens distortion, and score.

    decoder: a name of `DECODERS`; it reads the network's output `output`.

    Raises: BundleError for an unknown decoder.
    """

    name = "pose2d"
    needs = frozenset({"box"})
    gives = frozenset({"pose_keypoints"})

    def __init__(self, network: CropNetwork, decoder: str, output: str) -> None:
        if decoder not in DECODERS:
            raise BundleError(
                f"a pose2d stage has decoder {decoder!r}; known are {', '.join(DECODERS)}"
            )
        self._network, self._decode, self._output = network, DECODERS[decoder], output

    def prepare(self, board: Board) -> None:
        self._network.prepare(board.image, board["box"])

    def enqueue(self) -> None:
        self._network.enqueue()

    def collect(self, board: Board) -> None:
        pairs = zip(self._network.output(self._output), self._network.crops, strict=True)
        keypoints = np.stack([self._decode(answer, crop) for answer, crop in pairs])
        keypoints[..., :2] = board.camera.undistort(keypoints[..., :2])
        board["pose_keypoints"] = keypoints
