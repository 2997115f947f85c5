"""Runs of the fixtures of lifters: VideoPose3D and SemGCN, with Human3.6M's cameras."""

import numpy as np

from pchmr_kernels.skeletons import Skeleton, get_skeleton

from . import h36m, sequences
from .fixtures import Outputs, PrepostFixture
from .flips import average_points, mirror_order, mirror_points


def run_videopose3d(fixture: PrepostFixture) -> Outputs:
    skeleton = get_skeleton("h36m17")
    sequence = fixture["sequence2d"]
    world = fixture["positions32_world"][:, h36m.H36M17_OF_32, :]
    outputs = {"positions17_world": world, **_tree(skeleton, "17")}
    for _, match in fixture.named(r"camera_(cam\d+)"):
        outputs |= _seen_by(fixture, world, match[1])
    for _, match in fixture.named(r"screen_((\d+)x(\d+))"):
        width, height = int(match[2]), int(match[3])
        screen = sequences.pixels_to_screen(fixture[f"pixels_{match[1]}"], width, height)
        outputs[f"screen_{match[1]}"] = screen
        outputs[f"screen_back_{match[1]}"] = sequences.screen_to_pixels(screen, width, height)
    for name, match in fixture.named(r"pad(\d+)(_causal)?"):
        pad = sequences.receptive_pad(2 * int(match[1]) + 1, causal=match[2] is not None)
        outputs[name] = sequences.pad_edges(sequence, pad)[None]
    for name, match in fixture.named("augmented_(coco|h36m)"):
        pad = (fixture[name].shape[1] - len(sequence)) // 2
        padded = sequences.pad_edges(sequence, (pad, pad))
        order = mirror_order(get_skeleton(f"{match[1]}17"))
        outputs[name] = np.stack([padded, mirror_points(padded, order)])
    for name, _ in fixture.named("chunks"):
        pad = (fixture[name].shape[1] - 1) // 2
        outputs[name] = sequences.windows(sequence, (pad, pad))
    given, mirrored = fixture["network_output"][:, None]
    outputs["output_avg"] = average_points(given, mirrored, mirror_order(skeleton))
    outputs["trajectory_avg"] = average_points(given[..., :1, :], mirrored[..., :1, :])
    return outputs


def _seen_by(fixture: PrepostFixture, world: np.ndarray, name: str) -> Outputs:
    camera = _camera(fixture, name)
    points = camera.to_camera(world)
    linear = camera.project_to_pixels(points, distort=False)
    return {
        f"intrinsic_{name}": np.asarray(camera.intrinsic),
        f"camera_{name}": points,
        f"world_back_{name}": camera.to_world(points),
        f"proj_px_{name}": camera.project_to_pixels(points),
        f"proj_linear_px_{name}": linear,
        f"proj_norm_{name}": sequences.pixels_to_screen(linear, camera.width, camera.height),
        f"root_relative_{name}": sequences.root_relative(points, keep_root=True),
        f"viz_rebased_{name}": h36m.stand_up(sequences.root_relative(points), camera.orientation),
    }


def run_semgcn(fixture: PrepostFixture) -> Outputs:
    world = fixture["positions32_world"][:, h36m.SEMGCN16_OF_32, :]
    names = [match[1] for _, match in fixture.named(r"intrinsic_(cam\d+)")]
    cameras = [_camera(fixture, name) for name in names]
    seen = [camera.to_camera(world) for camera in cameras]
    pairs = list(zip(cameras, seen, strict=True))
    prediction = fixture["prediction"]
    return {
        "positions16_world": world,
        "kept_of_32": np.array(h36m.SEMGCN16_OF_32),
        **_tree(get_skeleton("semgcn16"), "16"),
        "groups16": np.array(h36m.SEMGCN16_GROUPS),
        **{
            f"intrinsic_{name}": np.asarray(c.intrinsic)
            for name, c in zip(names, cameras, strict=True)
        },
        "gt2d_px": np.stack([camera.project_to_pixels(points) for camera, points in pairs]),
        "input2d": np.stack([camera.project(points) for camera, points in pairs]),
        "target3d": sequences.root_relative(np.stack(seen)),
        "prediction_root": sequences.root_relative(prediction),
        **{
            f"viz_world_{name}": h36m.stand_up(prediction, camera.orientation)
            for name, camera in zip(names, cameras, strict=True)
        },
    }


def _camera(fixture: PrepostFixture, name: str) -> h36m.StudioCamera:
    width, height = fixture[f"resolution_{name}"].tolist()
    return h36m.StudioCamera.from_pixels(
        fixture[f"orientation_{name}"],
        fixture[f"translation_{name}"],
        (width, height),
        fixture[f"intrinsic_raw_{name}"],
    )


def _tree(skeleton: Skeleton, end: str) -> Outputs:
    left, right = np.array(skeleton.flip).T
    return {
        f"parents{end}": np.array(skeleton.parents),
        f"left{end}": np.sort(left),
        f"right{end}": np.sort(right),
    }
