"""Errors of the open default on a real person: Pose2Sim's four calibrated cameras, 100 frames.

    python benchmarks/pose2sim.py [-o out/pose2sim.json]

For each camera the reference is triangulated from BlazePose-heavy landmarks of the other three, so
the tested view never judges itself. Read with care: one subject, one action, 1.7 s; the last row of
the table, references from four cameras instead of three, is the noise floor; a reference made of
BlazePose landmarks favours what stays close to them; and the body's own landmarks were placed on
its skin with the help of this footage.

MPJPE: mean distance of the nose and 12 limb joints, middle of the hips aligned, in the camera's
axes. PA-MPJPE: after a similarity fit. Jitter: mean length of the second difference of the same
points from frame to frame (60 a second), and that of the difference to the reference, whose own is
its noise. Means over frames and cameras. The mesh's landmarks are regressed from its vertices.
"smoothed" is `Pipeline.load(..., smooth=True)`.
"""

import argparse
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pchmr.assets import fetch
from pchmr.bodies import BodyModel, body_from_arrays
from pchmr.camera import Camera
from pchmr.geometry import rot6d_to_rotmat
from pchmr.media import open_source
from pchmr.pipeline import Pipeline
from pchmr.placement import points_to_crop, ray_rotation
from pchmr.stages.blazepose import LandmarkNetwork, PersonDetector, PersonFinder
from pchmr_engines.bundle import Bundle
from pchmr_kernels.skeletons import get_skeleton

Floats = npt.NDArray[np.float64]
BLAZEPOSE = get_skeleton("blazepose33")
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
SCORED = [BLAZEPOSE.index(f"{side}_{limb}") for limb in LIMBS for side in ("left", "right")]
SCORED.append(BLAZEPOSE.index("nose"))
HIPS = [BLAZEPOSE.index("left_hip"), BLAZEPOSE.index("right_hip")]
STAGES = {"full": "landmarks", "heavy": "pose_landmarks"}  # of the bundle open-plus


class View(NamedTuple):
    """A calibrated camera: world points X are at R X + t in its frame, metres."""

    camera: Camera
    rotation: Floats
    translation: Floats


class Seen(NamedTuple):
    """One frame's landmarks: keypoints (33, 3) px without lens distortion, world (33, 3) m, ROI."""

    keypoints: Floats
    world: Floats
    centre: Floats
    size: float
    angle: float


def read_views(path: Path) -> list[View]:
    """Cameras of a Qualisys calibration: mm, 1/64 pixels, camera axes x right, y up, z back."""
    views = []
    cameras = ElementTree.parse(path).getroot().find("cameras")
    assert cameras is not None
    for node in cameras:
        parts = {part.tag: part.attrib for part in node}
        inner = {key: float(value) for key, value in parts["intrinsic"].items()}
        outer = {key: float(value) for key, value in parts["transform"].items()}
        lens = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1")
        camera = Camera(
            inner["focalLengthU"] / 64,
            inner["focalLengthV"] / 64,
            inner["centerPointU"] / 64 - float(parts["fov_video"]["left"]),
            inner["centerPointV"] / 64 - float(parts["fov_video"]["top"]),
            tuple(inner[key] / 64 for key in (*lens, "tangentalDistortion2")),
        )
        axes = np.array([[outer[f"r{i}{j}"] for j in (1, 2, 3)] for i in (1, 2, 3)])
        rotation = np.diag([1.0, -1.0, -1.0]) @ axes
        position = np.array([outer["x"], outer["y"], outer["z"]]) / 1000
        views.append(View(camera, rotation, -rotation @ position))
    return views


def frames(video: Path) -> Iterator[npt.NDArray[np.uint8]]:
    with open_source(video) as source:
        for frame in source:
            yield frame.image


def watch(bundle: Bundle, network: str, video: Path, camera: Camera) -> list[Seen]:
    """The landmarks of the person in every frame, tracked by `network` itself."""
    landmarks = LandmarkNetwork(bundle.engine(STAGES[network]), 1, 1)
    find = PersonFinder(PersonDetector(bundle.engine("detector"), 1), landmarks, 1)
    seen = []
    for number, image in enumerate(frames(video)):
        people = find(image)
        if not people:
            raise SystemExit(f"{video.name}: nobody found in frame {number} by {network}")
        found = people[0].landmarks
        keypoints = found.keypoints_2d.astype(np.float64)
        keypoints[:, :2] = camera.undistort(keypoints[:, :2])
        centre = camera.undistort(np.array([found.roi.center]))[0]
        world = found.world.astype(np.float64)
        seen.append(Seen(keypoints, world, centre, found.roi.size, found.roi.angle))
    return seen


def triangulate(views: list[View], seen: list[list[Seen]]) -> Floats:
    """(T, 33, 3) world points, metres: linear least squares weighted by visibility."""
    rows = []
    for view, frames_seen in zip(views, seen, strict=True):
        keypoints = np.stack([frame.keypoints for frame in frames_seen])
        projection = view.camera.matrix @ np.c_[view.rotation, view.translation]
        row = keypoints[..., :2, None] * projection[2] - projection[:2]
        rows.append(row * keypoints[..., 2, None, None] / view.camera.fx)
    homogeneous = np.linalg.svd(np.concatenate(rows, -2))[2][..., -1, :]
    return homogeneous[..., :3] / homogeneous[..., 3:]


def estimate(bundle: Bundle, model: BodyModel, seen: list[Seen], view: View) -> dict[str, Floats]:
    """(T, 33, 3) landmarks in the camera's axes, metres, of G, L, the detector's own and mixes."""
    keypoints = np.stack([frame.keypoints for frame in seen])
    centres = np.stack([frame.centre for frame in seen])
    sizes = np.array([frame.size for frame in seen])
    angles = np.array([frame.angle for frame in seen])
    turn = ray_rotation(centres, angles, view.camera)
    crop = points_to_crop(keypoints[..., :2], turn, sizes, view.camera)
    columns = [BLAZEPOSE.index(name) for name in bundle.stage("generator").settings["landmarks"]]
    inputs = np.concatenate([crop, keypoints[..., 2:]], -1).astype(np.float32)[:, columns]
    feed = {"keypoints": np.ascontiguousarray(inputs)}
    generated = bundle.engine("generator").run(feed)
    lifted = bundle.engine("lifter").run(feed)["landmarks"] @ turn.transpose(0, 2, 1)
    rotmats = rot6d_to_rotmat(generated["rot6d"].astype(np.float64))
    rotmats[:, 0] = turn @ rotmats[:, 0]
    mesh = [
        model.regress("blazepose33", model.pose(rotmats[i : i + 1], generated["betas"][i : i + 1]))
        for i in range(len(seen))
    ]
    world = np.stack([frame.world for frame in seen])
    world = world @ ray_rotation(centres, np.zeros(len(seen)), view.camera).transpose(0, 2, 1)
    mixed = (centred(lifted) + centred(world)) / 2
    return {"G": np.concatenate(mesh), "L": lifted, "world": world, "mean(L, world)": mixed}


def run_pipeline(
    bundle: Bundle, topology: str, video: Path, camera: Camera, smooth: bool
) -> Floats:
    """(T, 33, 3) landmarks of the final mesh of the whole pipeline, camera frame, metres."""
    with (
        Pipeline(bundle, topology, camera=camera, smooth=smooth) as pipe,
        open_source(video) as source,
    ):
        model = BodyModel(pipe.body)
        people = [pipe(frame.image, frame.t_ns) for frame in source]
        return np.stack(
            [model.regress("blazepose33", found[0].vertices[None])[0] for found in people]
        ).astype(np.float64)


def centred(points: Floats) -> Floats:
    return points - points[:, HIPS].mean(1, keepdims=True)


def errors(points: Floats, truth: Floats) -> Floats:
    """(T, 2): PA-MPJPE and MPJPE in mm."""
    points, truth = centred(points)[:, SCORED], centred(truth)[:, SCORED]
    p, q = (x - x.mean(1, keepdims=True) for x in (points, truth))
    u, s, vt = np.linalg.svd(p.transpose(0, 2, 1) @ q)
    s[:, -1] *= np.sign(np.linalg.det(u @ vt))
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    fitted = (s.sum(1) / (p**2).sum((1, 2)))[:, None, None] * p @ u @ vt
    both = np.stack([fitted - q, points - truth])
    return 1e3 * np.linalg.norm(both, axis=-1).mean(-1).T


def jitter(points: Floats, truth: Floats) -> Floats:
    """(2,): mm a frame and frame, of the points and of their difference to the truth."""
    points, truth = centred(points)[:, SCORED], centred(truth)[:, SCORED]
    both = np.stack([points, points - truth])
    return 1e3 * np.linalg.norm(np.diff(both, 2, axis=1), axis=-1).mean((1, 2))


def check_reference(views: list[View], seen: list[list[Seen]]) -> None:
    """All cameras agree: the four-camera triangulation falls within 2 % of the ROI in each."""
    points = triangulate(views, seen)
    for view, frames_seen in zip(views, seen, strict=True):
        pixels = view.camera.matrix @ (points @ view.rotation.T + view.translation)[..., None]
        pixels = pixels[..., :2, 0] / pixels[..., 2:, 0]
        gap = pixels - np.stack([frame.keypoints[:, :2] for frame in frames_seen])
        share = np.linalg.norm(gap, axis=-1)[:, SCORED].mean(1)
        share /= np.array([frame.size for frame in frames_seen])
        assert share.mean() < 0.02, f"reprojection is {share.mean():.1%} of the ROI"


def evaluate(bundle: Bundle, more: list[Bundle], folder: Path) -> dict[str, dict[str, list[float]]]:
    """Landmark network, or bundle -> method -> [PA-MPJPE, MPJPE, jitter, to the reference] in mm.

    more: bundles whose pipelines are tried too, against the reference of the first one's networks.
    """
    views = read_views(folder / "calibration" / "Calib.qca.txt")
    videos = sorted((folder / "videos").glob("*.mp4"))
    seen: Mapping[str, list[list[Seen]]] = {network: [] for network in STAGES}
    for network, video in track([(n, v) for n in STAGES for v in range(4)], "landmarks"):
        seen[network].append(watch(bundle, network, videos[video], views[video].camera))
    check_reference(views, seen["heavy"])
    model = BodyModel(body_from_arrays(bundle.body()))
    scores: dict[str, dict[str, list[Floats]]] = {}
    all_four = triangulate(views, seen["heavy"])
    for i in track(range(4), "cameras"):
        others = [j for j in range(4) if j != i]
        truth = triangulate([views[j] for j in others], [seen["heavy"][j] for j in others])
        truth = truth @ views[i].rotation.T + views[i].translation
        found = {n: estimate(bundle, model, seen[n][i], views[i]) for n in reversed(STAGES)}
        for tried in (bundle, *more):
            found[tried.manifest.name] = {
                f"{topology}{', smoothed' * smooth}": run_pipeline(
                    tried, topology, videos[i], views[i].camera, smooth
                )
                for topology in tried.manifest.topologies
                for smooth in (False, True)
            }
        found["reference"] = {"four cameras": all_four @ views[i].rotation.T}
        for group, methods in found.items():
            for method, points in methods.items():
                score = np.r_[errors(points, truth).mean(0), jitter(points, truth)]
                scores.setdefault(group, {}).setdefault(method, []).append(score)
    return {
        group: {method: np.mean(e, 0).tolist() for method, e in methods.items()}
        for group, methods in scores.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="open-plus", help="a name or a folder")
    parser.add_argument("--also", nargs="*", default=[], help="more bundles to try")
    parser.add_argument("-o", "--out", type=Path, help="write the table as JSON too")
    options = parser.parse_args()
    bundle, *more = (Bundle.load(name) for name in (options.bundle, *options.also))
    results = evaluate(bundle, more, fetch("pose2sim_single"))
    columns = ("landmarks", "method", "PA-MPJPE mm", "MPJPE mm", "jitter mm", "to reference mm")
    table = Table(*columns, title="Pose2Sim single person")
    for group, methods in results.items():
        for method, values in methods.items():
            table.add_row(group, method, *(f"{value:.1f}" for value in values))
    Console().print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
