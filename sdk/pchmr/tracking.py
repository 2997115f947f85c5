"""Follows people by their own landmarks; asks the detector only when it must."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .blazepose import Landmarks
from .crops import Roi, box_iou, roi_box, same_roi


class Detection(Protocol):
    """A person as any detector sees one: BlazePose's `Detection`, or a box."""

    @property
    def score(self) -> float: ...
    @property
    def roi(self) -> Roi:
        """Where the landmark network may look, roughly."""

    def shows(self, landmarks: Landmarks) -> bool:
        """Whether this is who these landmarks are of."""


Detect = Callable[[], Sequence[Detection]]
Pose = Callable[[Sequence[Roi]], Sequence[Landmarks]]

_SAME_PERSON = 0.06  # mean distance of landmarks, in ROI sizes
_TRIALS = 4  # detections tried at one look, so that a busy background stays affordable


@dataclass(frozen=True)
class Tracked:
    """A person in the current frame. `track_id` is never given to another track."""

    track_id: int
    landmarks: Landmarks


class RoiTracker:
    """Keeps one ROI a person; feeds on the detector's and the landmark network's answers.

    max_people: never more tracks than this. enter_score, keep_score: the landmark network's score
    from which a detection is believed, and below which a person is lost. look_every: frames
    between closer looks while there is room for further people. forget_after: frames a detection
    is ignored after the landmark network found nobody in it.
    """

    def __init__(
        self,
        max_people: int = 1,
        enter_score: float = 0.75,
        keep_score: float = 0.5,
        look_every: int = 30,
        forget_after: int = 10,
    ) -> None:
        self.max_people = max_people
        self.enter_score = enter_score
        self.keep_score = keep_score
        self.look_every = look_every
        self.forget_after = forget_after
        self.detector_runs = 0  # looks at whole frames so far
        self._ids = itertools.count()
        self.reset()

    def reset(self) -> None:
        """Forget everybody, as at a known cut; ids go on."""
        self._tracks: list[Tracked] = []
        self._rejected: list[tuple[Roi, int]] = []  # and the frame from which it may be tried
        self._frame = self._next_look = 0

    def step(self, detect: Detect, pose: Pose, look_closer: Detect | None = None) -> list[Tracked]:
        """The people of the next frame, in the order they were first seen.

        detect: runs the detector on the whole frame. pose: runs the landmark network on at most
        `max_people` ROIs of it. look_closer: runs the detector on parts of the frame, where small
        people are larger.

        `detect` runs only while nobody is followed, when somebody was lost (who is looked for in
        the same frame), and every `look_every` frames while there is room; `look_closer` runs
        when there still is room after it, but while nobody is there only every `look_every` frames.
        """
        before = len(self._tracks)
        self._follow(pose)
        look = len(self._tracks) < before or self._frame >= self._next_look
        if self._room and (look or not self._tracks):
            self.detector_runs += 1
            self._admit(detect(), pose)
        if self._room and look:
            self._next_look = self._frame + self.look_every
            if look_closer is not None:
                self._admit(look_closer(), pose)
        self._frame += 1
        return list(self._tracks)

    @property
    def _room(self) -> int:
        return self.max_people - len(self._tracks)

    def _follow(self, pose: Pose) -> None:
        """Move the tracks to where their people went; drop the lost and the doubled."""
        if not self._tracks:
            return
        seen = pose([track.landmarks.next_roi for track in self._tracks])
        tracks = [Tracked(t.track_id, found) for t, found in zip(self._tracks, seen, strict=True)]
        tracks = [track for track in tracks if track.landmarks.score >= self.keep_score]
        self._tracks = _without_doubles(tracks) if len(tracks) > 1 else tracks

    def _admit(self, detections: Sequence[Detection], pose: Pose) -> None:
        """Start tracks for detections of people who are not followed yet.

        The landmark network looks twice, for the detector's ROI is rough: the second time at the
        ROI of its own first answer, which only a real person survives.
        """
        self._rejected = [entry for entry in self._rejected if entry[1] > self._frame]
        known = [track.landmarks for track in self._tracks]
        tried = [roi for roi, _ in self._rejected]
        trials = max(_TRIALS, self._room)
        for detection in sorted(detections, key=lambda detection: -detection.score):
            if not trials or not self._room:
                break
            roi = detection.roi
            if any(map(detection.shows, known)) or any(same_roi(roi, other) for other in tried):
                continue
            trials -= 1
            tried.append(roi)
            (found,) = pose([roi])
            if found.score >= self.keep_score:
                (found,) = pose([found.next_roi])
            if not found.score >= self.enter_score:  # or no number
                self._rejected.append((roi, self._frame + self.forget_after))
            elif not _seen(found, self._tracks):
                self._tracks.append(Tracked(next(self._ids), found))


def _without_doubles(tracks: Sequence[Tracked]) -> list[Tracked]:
    """Of tracks on one person the steadiest."""
    kept: list[Tracked] = []
    for track in sorted(tracks, key=lambda track: -_steadiness(track.landmarks)):
        if not _seen(track.landmarks, kept):
            kept.append(track)
    return sorted(kept, key=lambda track: track.track_id)


def _seen(landmarks: Landmarks, tracks: Sequence[Tracked]) -> bool:
    return any(_same_person(landmarks, track.landmarks) for track in tracks)


def _same_person(a: Landmarks, b: Landmarks) -> bool:
    """Whether two sets of landmarks lie on each other."""
    apart = np.linalg.norm(a.keypoints_2d[:, :2] - b.keypoints_2d[:, :2], axis=1).mean()
    return bool(apart < _SAME_PERSON * max(a.roi.size, b.roi.size))


def _steadiness(landmarks: Landmarks) -> float:
    """Score, less for a track that jumped: of two on one person, the one that was there stays."""
    here, there = (Roi(roi.center, roi.size) for roi in (landmarks.roi, landmarks.next_roi))
    return landmarks.score * box_iou(roi_box(here), roi_box(there))
