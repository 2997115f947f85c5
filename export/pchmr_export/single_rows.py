"""A person of the demo video as BlazePose sees them: what single files are tried on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pchmr.blazepose import Landmarks
from pchmr.camera import Camera
from pchmr.people import Person
from pchmr.placement import ray_rotation
from pchmr.stages.base import Board
from pchmr.stages.blazepose import put_landmarks
from pchmr.tracking import Tracked
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import PchmrError

from .composition import demo_frames
from .open_bundle import open_bundle
from .rehearsal import run_people


@dataclass(frozen=True)
class Seen:
    """image: (H, W, 3) uint8 BGR; person: what the runtime gives of `landmarks`."""

    image: NDArray[np.uint8]
    landmarks: Landmarks
    person: Person


@cache
def real_people(frames: int) -> tuple[Seen, ...]:
    """The one person in consecutive frames of the demo video, by the bundle `open`.

    Raises: PchmrError where they are not found.
    """
    images, course = demo_frames(frames), list[list[Tracked]]()
    people = run_people(Bundle.load(open_bundle()), [images], "serial", course)
    if [*map(len, people), *map(len, course)] != [1] * (2 * frames):
        raise PchmrError("nobody, or a crowd, is found in the demo video: report this")
    return tuple(
        Seen(image, tracked[0].landmarks, persons[0])
        for image, tracked, persons in zip(images, course, people, strict=True)
    )


def made_up_camera(person: Person) -> dict[str, NDArray[np.float32]]:
    """One that is not what the runtime assumed of the frame: each of its numbers counts."""
    camera = person.camera
    return {
        "frame_size": np.array([2 * camera.cx, 2 * camera.cy], np.float32),
        "focal": np.array([1.1 * camera.fx], np.float32),
        "centre": np.array([camera.cx + 12, camera.cy - 8], np.float32),
    }


def landmark_rows(
    seen: Sequence[Seen], camera_inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Inputs of the open default. The pose stream's own landmarks are the same ones, moved."""
    (focal,), centre = (camera_inputs[name].tolist() for name in ("focal", "centre"))
    camera = Camera(focal, focal, *centre)
    found = [person.landmarks for person in seen]
    rois = [landmarks.roi for landmarks in found]
    board = Board(seen[0].image, camera, [], rois, found=found)
    put_landmarks(board)
    centres, angles = (np.array([getattr(r, name) for r in rois]) for name in ("center", "angle"))
    draw = np.random.default_rng(0)
    moved = draw.normal(size=(2, len(seen), 33, 3))
    rows = {
        "keypoints": board["keypoints"],
        "world": board["world"],
        "pose_keypoints": board["keypoints"] + moved[0] * (3, 3, 0),
        "pose_world": board["world"] + 0.03 * moved[1],
        "crop_rotation": ray_rotation(centres, angles, camera),
        "crop_size": np.array([roi.size for roi in rois]),
        **camera_inputs,
    }
    return {name: np.asarray(values, np.float32) for name, values in rows.items()}
