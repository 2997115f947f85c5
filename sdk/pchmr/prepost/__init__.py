"""Pre- and postprocessing of the official networks in NumPy, for runtime and training alike.

    inputs, crop = network_input(image, box, convention)
    keypoints = decode_hrnet(heatmaps, crop)

Images are (H, W, 3) uint8 BGR, boxes (x0, y0, x1, y1) pixels, tight around a person, results in
full-frame pixels and metres. Crop rules are `CROPS`, by the name a network's description states.
"""

from .crops import Crop
from .normalise import ImageConvention, normalise
from .rules import CROPS, crop_person, network_input
from .verify import verify_prepost

__all__ = [
    "CROPS",
    "Crop",
    "ImageConvention",
    "crop_person",
    "network_input",
    "normalise",
    "verify_prepost",
]
