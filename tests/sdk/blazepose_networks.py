"""The tests' own use of BlazePose, without the pipeline's stages."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pchmr.blazepose import (
    DETECTOR_SIZE,
    LANDMARK_SIZE,
    Detection,
    LandmarkDecoder,
    Landmarks,
    closer_rois,
    decode_detections,
)
from pchmr.crops import Roi, letterbox_roi, region_rows
from pchmr.tracking import RoiTracker, Tracked
from pchmr_engines import Engine
from pchmr_kernels.crops import RegionCrops


class BlazePose:
    """BlazePose's two networks with the arithmetic around them, and nothing else."""

    def __init__(self, detector: Engine, landmark: Engine) -> None:
        self.detector, self.landmark = detector, landmark
        self.poses = 0

    def detect(self, image: NDArray[np.uint8], roi: Roi | None = None) -> list[Detection]:
        height, width = image.shape[:2]
        crop = np.zeros((1, DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
        RegionCrops(crop)(image, region_rows([roi or letterbox_roi(width, height)]))
        out = self.detector.run({"image": crop})
        return decode_detections(out["boxes"][0], out["scores"][0], width, height, roi=roi)

    def pose(self, image: NDArray[np.uint8], rois: Sequence[Roi]) -> list[Landmarks]:
        self.poses += len(rois)
        crops = np.zeros((len(rois), LANDMARK_SIZE, LANDMARK_SIZE, 3), np.uint8)
        RegionCrops(crops, extend=True)(image, region_rows(rois))
        out = self.landmark.run({"image": crops})
        maps = out["heatmaps"]
        return LandmarkDecoder(out["landmarks"], out["presence"], out["world"], maps)(rois)

    def step(self, tracker: RoiTracker, image: NDArray[np.uint8]) -> list[Tracked]:
        height, width = image.shape[:2]
        return tracker.step(
            lambda: self.detect(image),
            lambda rois: self.pose(image, rois),
            lambda: [d for roi in closer_rois(width, height) for d in self.detect(image, roi)],
        )
