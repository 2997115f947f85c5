"""Runs of the fixtures of 2D and 3D joint networks: HRNet, CPN, PoseNet."""

from collections.abc import Sequence

import numpy as np

from pchmr_kernels.skeletons import get_skeleton

from . import cpn, hrnet, posenet
from .crops import Crop, Floats, Size
from .fixtures import Outputs, PrepostFixture
from .flips import average_heatmaps, average_points, mirror_order, unmirror_heatmaps
from .heatmaps import decode_argmax
from .normalise import normalise

COCO = mirror_order(get_skeleton("coco17"))
_CPN_MEAN = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)


def run_hrnet(fixture: PrepostFixture) -> Outputs:
    boxes, size = fixture.boxes, fixture.size
    height, width = fixture.meta["heatmap_hw"]
    cells: Size = (height, width)
    crops = [hrnet.crop_hrnet(fixture.image, box, size) for box in boxes]
    places = [hrnet.center_and_scale(box, size) for box in boxes]
    maps, mirrored = fixture.heatmaps(cells)
    shifted = average_heatmaps(maps, mirrored, COCO, shift=True)
    plain, flipped = _keypoints(maps, crops), _keypoints(shifted, crops)
    outputs = {
        "center": np.array([center for center, _ in places]),
        "scale": np.array([scale for _, scale in places]),
        "affine": np.stack([crop.affine for crop in crops]),
        "affine_inv_heatmap": np.stack([_inverse(hrnet.affine(box, cells)) for box in boxes]),
        "argmax": decode_argmax(maps)[0],
        "keypoints": plain[..., :2],
        "scores": plain[..., 2:],
        "flip_back": unmirror_heatmaps(mirrored, COCO),
        "flip_avg": shifted,
        "keypoints_flip": flipped[..., :2],
        "scores_flip": flipped[..., 2:],
        "keypoints_flip_noshift": _keypoints(average_heatmaps(maps, mirrored, COCO), crops)[
            ..., :2
        ],
        **{f"input{i}": normalise(crop.pixels) for i, crop in enumerate(crops)},
    }
    for name, match in fixture.named(r"(affine|input(\d+))_(\d+)x(\d+)"):
        other = int(match[3]), int(match[4])
        if match[2] is None:
            outputs[name] = np.stack([hrnet.affine(box, other) for box in boxes])
        else:
            crop = hrnet.crop_hrnet(fixture.image, boxes[int(match[2])], other)
            outputs[name] = normalise(crop.pixels)
    return outputs


def _keypoints(maps: Floats, crops: Sequence[Crop]) -> Floats:
    return np.stack([hrnet.decode_hrnet(m, crop) for m, crop in zip(maps, crops, strict=True)])


def _inverse(affine: Floats) -> Floats:
    whole = np.vstack([affine, (0, 0, 1)])
    return np.linalg.inv(whole)[:2]


def run_cpn(fixture: PrepostFixture) -> Outputs:
    outputs: Outputs = {}
    for _, match in fixture.named(r"details_(\d+)x(\d+)"):
        size = int(match[1]), int(match[2])
        suffix = f"_{size[0]}x{size[1]}"
        crops = [cpn.crop_cpn(fixture.image, box, size) for box in fixture.boxes]
        for i, crop in enumerate(crops):
            outputs[f"input{i}{suffix}"] = normalise(crop.pixels, _CPN_MEAN, (1, 1, 1))
        outputs["details" + suffix] = np.array(
            [cpn.rectangle(box, fixture.image_size, size) for box in fixture.boxes]
        )
        cells = size[0] // cpn.STRIDE, size[1] // cpn.STRIDE
        maps, mirrored = fixture.heatmaps(cells, gain=200, on_grid=False)
        average = average_heatmaps(maps, mirrored, COCO)
        outputs["flip_avg" + suffix] = average
        for end, heat in (("", maps), ("_flip", average)):
            pairs = zip(heat, crops, strict=True)
            found = np.stack([cpn.decode_cpn(m, crop) for m, crop in pairs])
            outputs[f"keypoints{suffix}{end}"] = found[..., :2]
            outputs[f"scores{suffix}{end}"] = found[..., 2]
            outputs[f"pose_score{suffix}{end}"] = found[..., 2].mean(-1)
    return outputs


def run_posenet(fixture: PrepostFixture) -> Outputs:
    size, meta = fixture.size, fixture.meta
    crops = [posenet.crop_posenet(fixture.image, box, size) for box in fixture.boxes]
    squares = np.array([posenet.square_box(box, fixture.image_size) for box in fixture.boxes])
    depth = fixture["root_depth"] / 1000
    focal, center = np.array(meta["focal_px"]), np.array(meta["princpt_px"])
    outputs = {
        "bbox": np.concatenate([squares[:, :2], squares[:, 2:] - squares[:, :2]], -1),
        "affine": np.stack([crop.affine for crop in crops]),
        **{
            f"input{i}": normalise(crop.pixels, value_range=(0, 255))
            for i, crop in enumerate(crops)
        },
    }
    for name, skeleton in (("muco21", "posenet21_muco"), ("h36m18", "posenet18")):
        coord, mirrored = fixture[f"coord_{name}"], fixture[f"coord_flipped_{name}"]
        order = mirror_order(get_skeleton(skeleton))
        outputs[f"coord_avg_{name}"] = average_points(
            coord, mirrored, order, width=posenet.CELLS - 1
        )
        people = list(zip(coord, crops, depth, strict=True))
        pixels = np.stack([posenet.cells_to_pixels(cells, crop, size) for cells, crop, _ in people])
        relative = posenet.cells_to_depth(coord)[..., None]
        absolute = (relative + depth[:, None, None]) * 1000
        outputs[f"pixels_{name}"] = pixels
        outputs[f"pixels_eval_{name}"] = np.concatenate([pixels, absolute], -1)
        outputs[f"camera_{name}"] = 1000 * np.stack(
            [posenet.cells_to_camera(c, crop, z, focal, center, size) for c, crop, z in people]
        )
    return outputs
