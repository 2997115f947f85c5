"""Runs of the fixtures of mesh generators: SPIN, HMR, HMR2."""

import numpy as np

from ..geometry import rot6d_to_rotmat
from . import cameras, hmr, hmr2, spin
from .crops import center_and_size, cut
from .fixtures import Outputs, PrepostFixture
from .normalise import normalise


def run_spin(fixture: PrepostFixture) -> Outputs:
    size, image = fixture.size, fixture.image
    boxes = iter(fixture.boxes)
    jobs = {
        "box": lambda: spin.window_from_box(next(boxes)),
        "openpose": lambda: spin.window_from_keypoints(fixture["openpose"]),
        "whole": lambda: spin.window_from_image(fixture.image_size),
    }
    windows = [jobs[job]() for job in fixture.meta["jobs"]]
    parts = [cut(image, window.rectangle) for window in windows]
    cam, joints = fixture["cam"], fixture["joints3d"]
    center = np.array([window.center for window in windows], float)
    side = np.array([window.side for window in windows])
    corners = np.array([window.rectangle for window in windows])
    translation = cameras.crop_translation(cam, size[1])
    middle = cameras.project(joints, translation, cameras.CROP_FOCAL_PX)
    crop_px = middle + size[1] / 2
    extent = (corners[:, 2:] - corners[:, :2])[:, None]
    fit = fixture["fit_joints2d"]
    focal_full = cameras.full_frame_focal(fixture.image_size, size[1])
    outputs = {
        "center": center,
        "scale": side / 200,
        "rect": corners,
        "crop_min_max": np.array([(part.min(), part.max()) for part in parts]),
        "transform": np.stack([np.vstack([w.affine(size), (0, 0, 1)]) for w in windows]),
        "cam_t": translation,
        "kp2d_norm": middle / (size[1] / 2),
        "kp2d_crop": crop_px,
        "kp2d_full": middle * (side / size[1])[:, None, None] + center[:, None],
        "kp2d_full_rect": corners[:, None, :2] + crop_px * extent / size[1],
        "fit_translation": cameras.fit_translation(
            joints, fit[..., :2], fit[..., 2], cameras.CROP_FOCAL_PX, size[1]
        ),
        "rotmat": rot6d_to_rotmat(fixture["rot6d"]),
    }
    for name, focal in (("f5000", cameras.CROP_FOCAL_PX), ("f5000_full", focal_full)):
        outputs[f"cam_full_{name}"] = cameras.full_frame_translation(
            cam, center, side, fixture.image_size, focal
        )
    for i, window in enumerate(windows):
        for end, plain in (("", False), ("_fix", True)):
            crop = spin.crop_spin(image, window, size, plain=plain)
            outputs[f"input{i}{end}"] = normalise(crop.pixels)
    return outputs


def run_hmr(fixture: PrepostFixture) -> Outputs:
    size = fixture.size
    placements = [  # the last job takes the whole image
        *(hmr.place_keypoints(p[None], fixture.image_size) for p in fixture["openpose"][:-1]),
        hmr.place_image(fixture.image_size, size[1]),
    ]
    start = np.array([placement.middle for placement in placements])
    cam, joints = fixture["cam"], fixture["joints3d"]
    norm = cameras.project_weak(joints, cam)
    crops = [hmr.crop_hmr(fixture.image, placement, size) for placement in placements]
    crop_px = (norm + 1) * (size[1] / 2)
    return {
        "scale": np.array([placement.scale for placement in placements]),
        "start_pt": start,
        "end_pt": start + size[1],
        "kp2d_norm": norm,
        "cam_for_render": np.stack([hmr.drawing_camera(placement) for placement in placements]),
        "vert_shifted": joints + hmr.drawing_translation(cam, size[1])[:, None],
        "kp2d_full": np.stack(
            [crop.to_image(points) for crop, points in zip(crops, crop_px, strict=True)]
        ),
        **{
            f"input{i}": normalise(crop.pixels, (0.5,) * 3, (0.5,) * 3, layout="NHWC")
            for i, crop in enumerate(crops)
        },
    }


def run_hmr2(fixture: PrepostFixture) -> Outputs:
    size, boxes = fixture.size, fixture.boxes
    crops = [hmr2.crop_hmr2(fixture.image, box, size) for box in boxes]
    center = np.array([center_and_size(box)[0] for box in boxes])
    side = np.array([hmr2.square_side(box) for box in boxes])
    cam, joints = fixture["cam"], fixture["joints3d"]
    translation = cameras.crop_translation(cam, size[1])
    norm = cameras.project(joints, translation, cameras.CROP_FOCAL_PX) / size[1]
    focal = cameras.full_frame_focal(fixture.image_size, size[1])
    full = cameras.full_frame_translation(cam, center, side, fixture.image_size, focal)
    middle = np.array(fixture.image_size[::-1]) / 2
    outputs = {
        "box_center": center,
        "box_size": side,
        "affine": np.stack([crop.affine for crop in crops]),
        "cam_t": translation,
        "kp2d_norm": norm,
        "focal_full": np.array([focal]),
        "cam_t_full": full,
        "kp2d_full": cameras.project(joints, full, focal) + middle,
        "kp2d_full_from_crop": norm * side[:, None, None] + center[:, None],
    }
    for i, crop in enumerate(crops):
        outputs[f"input{i}"] = normalise(crop.pixels)
        outputs[f"vit_input{i}"] = hmr2.transformer_part(outputs[f"input{i}"])
    return outputs
