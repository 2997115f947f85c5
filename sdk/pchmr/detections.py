"""2D joints found beforehand, in VideoPose3D's npz files, as a source of keypoints.

    detections = read_detections("data_2d_h36m_cpn_ft_h36m_dbb.npz")
    found = DetectedKeypoints([detections.clip("S9", "Walking", camera=0)], detections.skeleton)
    pipe = Pipeline.load("bundle", "parallel", pose2d=found)

Such a file holds pickled dicts, and a pickle can run code. This reader lets it build dicts, lists
and arrays, and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import SKELETONS

from .stages.base import Board, HostStage

_ALLOWED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict")),
    ("_codecs", "encode"),  # bytes in pickles of protocol 2
}


@dataclass(frozen=True)
class Detections:
    """clips: (subject, action) -> a (T, J, 2 or 3) array a camera: x px, y px and maybe a score.

    skeleton: name of the joint order. resolutions: subject -> (width, height) px, where stated.
    """

    clips: Mapping[tuple[str, str], tuple[NDArray[np.float32], ...]]
    skeleton: str
    resolutions: Mapping[str, tuple[int, int]]

    def clip(self, subject: str, action: str, camera: int = 0) -> NDArray[np.float32]:
        """(T, J, 3) float32: x px, y px, score; 1 where the file has none, 0 where no joint was
        found.

        Raises: InputError that names what the file holds.
        """
        if (subject, action) not in self.clips:
            held = ", ".join(f"{s}/{a}" for s, a in sorted(self.clips)[:20])
            raise InputError(f"there are no detections of {subject}/{action}; there are of {held}")
        views = self.clips[subject, action]
        if not 0 <= camera < len(views):
            raise InputError(f"camera {camera} of {subject}/{action}; it has 0..{len(views) - 1}")
        view = views[camera]
        keypoints = np.ones((*view.shape[:2], 3), np.float32)
        keypoints[..., : view.shape[2]] = view
        keypoints[~np.isfinite(keypoints).all(-1)] = 0
        return keypoints


def read_detections(path: Path | str, skeleton: str | None = None) -> Detections:
    """Detections of a file with `positions_2d` and `metadata`, as VideoPose3D writes them.

    skeleton: name of the joint order; by default the one whose left and right joints are those
    that the file states.

    Raises: InputError for a file that is missing, cut, asks for code to be run, or holds something
    else, and for joints of no known order.
    """
    try:
        with ZipFile(path) as archive:
            positions, metadata = (
                _read_object(archive, name) for name in ("positions_2d", "metadata")
            )
        clips = {
            (str(subject), str(action)): tuple(_view(view) for view in views)
            for subject, actions in positions.items()
            for action, views in actions.items()
        }
        joints = {view.shape[1] for views in clips.values() for view in views}
        resolutions = {
            str(name): (int(video["w"]), int(video["h"]))
            for name, video in metadata.get("video_metadata", {}).items()
        }
        name = skeleton or _find_skeleton(metadata["keypoints_symmetry"], joints)
    except (OSError, BadZipFile, EOFError) as error:
        raise InputError(f"{path} cannot be read, or is cut short: {error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no detections ({error!r}); expected an npz with positions_2d, subject "
            "-> action -> a (T, J, 2) array a camera, and metadata"
        ) from error
    if joints != {len(SKELETONS[name].joints)}:
        raise InputError(f"{path} has {sorted(joints)} joints a frame; {name} has others")
    return Detections(clips, name, resolutions)


def _view(values: Any) -> NDArray[np.float32]:
    view = np.asarray(values, np.float32)
    if view.ndim != 3 or view.shape[2] not in (2, 3):
        raise ValueError(f"an array of shape {view.shape}")
    return view


def _find_skeleton(symmetry: Any, joints: set[int]) -> str:
    """The order with these (left joints, right joints), pair by pair."""
    left, right = symmetry
    pairs = {(int(a), int(b)) for a, b in zip(left, right, strict=True)}
    for name, skeleton in SKELETONS.items():
        if set(skeleton.flip) == pairs and {len(skeleton.joints)} == joints:
            return name
    raise InputError(
        f"joints of no known order, {sorted(joints)} a frame with left and right {sorted(pairs)}; "
        f"name it with skeleton=, one of {', '.join(SKELETONS)}"
    )


class _DataUnpickler(pickle.Unpickler):
    """Builds plain data and arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks to run {module}.{name}, which no file of detections needs; "
                "nothing of it was run"
            )
        return super().find_class(module, name)


def _read_object(archive: ZipFile, name: str) -> Any:
    """What np.savez wrote for one Python object."""
    with archive.open(f"{name}.npy") as file:
        _skip_header(file)
        # latin1: arrays pickled by Python 2 stay what they were
        return _DataUnpickler(file, encoding="latin1").load().item()


def _skip_header(file: IO[bytes]) -> None:
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers or not readers[version](file)[2].hasobject:
        raise ValueError("an array of numbers where a dict was expected")


class DetectedKeypoints(HostStage):
    """A stage in place of a 2D network: pose_keypoints (P, J, 3) from clips, full-frame pixels
    without lens distortion, and score.

    clips: (T, J, 3) of each person, in the order of slots; frame i of a video is frame i of a clip.
    skeleton: name of their joint order.
    """

    name = "detections"
    needs: frozenset[str] = frozenset()
    gives = frozenset({"pose_keypoints"})

    def __init__(self, clips: Sequence[NDArray[np.float32]], skeleton: str) -> None:
        self._clips, self.skeleton = clips, skeleton

    def collect(self, board: Board) -> None:
        """Raises: InputError for a person or a frame without detections."""
        keypoints = np.stack([self._at(row.slot, row.frame) for row in board.rows])
        keypoints[..., :2] = board.camera.undistort(keypoints[..., :2])
        board["pose_keypoints"] = keypoints

    def _at(self, slot: int, frame: int) -> NDArray[np.float32]:
        if not 0 <= slot < len(self._clips):
            raise InputError(f"no detections of person {slot}; there are {len(self._clips)} people")
        if not 0 <= frame < len(self._clips[slot]):
            raise InputError(
                f"no detections in frame {frame}; there are {len(self._clips[slot])} frames: "
                "is it the video, and the rate, that they were made from?"
            )
        return self._clips[slot][frame]
