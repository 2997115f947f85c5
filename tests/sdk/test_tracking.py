"""Tracking: scripted people first, then the demo video with the trained networks."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from blazepose_networks import BlazePose

from pchmr.blazepose import Detection, Landmarks
from pchmr.crops import Roi
from pchmr.tracking import RoiTracker, Tracked


@dataclass
class Scene:
    """People as points the two networks find; counts how often each network is asked."""

    people: dict[str, tuple[float, float]] = field(default_factory=dict)
    hard_to_see: set[str] = field(default_factory=set)  # only a closer look finds them
    ghosts: list[tuple[float, float]] = field(default_factory=list)  # the detector alone sees them
    score: float = 0.99
    detections: int = 0
    closer_looks: int = 0
    poses: int = 0
    most_rois: int = 0

    def detect(self) -> list[Detection]:
        self.detections += 1
        return self._detections(self.people.keys() - self.hard_to_see) + [
            detection_at(*place, 0.95) for place in self.ghosts
        ]

    def look_closer(self) -> list[Detection]:
        self.closer_looks += 1
        return self._detections(self.people.keys())

    def _detections(self, names: set[str]) -> list[Detection]:
        return [detection_at(*self.people[name], 0.8) for name in sorted(names)]

    def pose(self, rois: Sequence[Roi]) -> list[Landmarks]:
        self.poses += len(rois)
        self.most_rois = max(self.most_rois, len(rois))
        return [self._nearest(roi) for roi in rois]

    def _nearest(self, roi: Roi) -> Landmarks:
        places = [p for p in self.people.values() if np.hypot(*np.subtract(p, roi.center)) < 100]
        if not places:
            return landmarks_at(*roi.center, score=0.1, roi=roi)
        place = min(places, key=lambda p: np.hypot(*np.subtract(p, roi.center)))
        return landmarks_at(*place, score=self.score, roi=roi)

    def step(self, tracker: RoiTracker) -> list[Tracked]:
        return tracker.step(self.detect, self.pose, self.look_closer)


def detection_at(x: float, y: float, score: float) -> Detection:
    keypoints = np.array([[x, y], [x, y - 100], [x, y - 40], [x, y - 80]], np.float32)
    return Detection(score, (x - 100, y - 100, x + 100, y + 100), keypoints)


def landmarks_at(x: float, y: float, score: float = 0.9, roi: Roi | None = None) -> Landmarks:
    spread = np.random.default_rng(0).uniform(-60, 60, (33, 2))
    points = np.concatenate([np.add(spread, (x, y)), np.ones((33, 1))], 1).astype(np.float32)
    auxiliary = np.array([[x, y], [x, y - 100]], np.float32)
    ones, world = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
    roi = roi or Roi((x, y), 250.0)
    return Landmarks.of(points, ones, ones, auxiliary, world, score, roi)


def ids(tracks: Sequence[Tracked]) -> list[int]:
    return [track.track_id for track in tracks]


def test_one_person_needs_one_detection() -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    for frame in range(100):
        scene.people["a"] = (300 + 20 * frame, 300)
        (track,) = scene.step(tracker)
        assert track.track_id == 0
        assert track.landmarks.auxiliary[0, 0] == 300 + 20 * frame
    assert scene.detections == tracker.detector_runs == 1
    assert scene.closer_looks == 0
    assert scene.poses == 101  # a new person is looked at twice


def test_lost_person_is_looked_for_in_the_same_frame() -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    assert ids(scene.step(tracker)) == [0]
    scene.people["a"] = (900, 300)  # a cut: far outside the old ROI
    assert ids(scene.step(tracker)) == [1]  # somebody else as far as anyone can tell
    assert scene.detections == 2


def test_one_of_two_lost_is_looked_for_in_the_same_frame() -> None:
    scene, tracker = Scene({"a": (300, 300), "b": (900, 300)}), RoiTracker(3, look_every=30)
    assert ids(scene.step(tracker)) == [0, 1]
    scene.people["a"] = (300, 900)
    assert ids(scene.step(tracker)) == [1, 2]
    assert scene.detections == 2


def test_person_who_left_is_not_kept() -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    scene.step(tracker)
    scene.people.clear()
    assert scene.step(tracker) == []
    scene.people["a"] = (300, 300)
    assert ids(scene.step(tracker)) == [1]


def test_half_sure_person_is_kept_but_not_admitted() -> None:
    scene, tracker = Scene({"a": (300, 300)}, score=0.6), RoiTracker()
    assert scene.step(tracker) == []
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    scene.step(tracker)
    scene.score = 0.6
    assert ids(scene.step(tracker)) == [0]
    scene.score = 0.4
    assert scene.step(tracker) == []


def test_false_detection_is_left_alone_for_a_while() -> None:
    scene, tracker = Scene(ghosts=[(300, 300)]), RoiTracker(forget_after=10)
    poses = []
    for _ in range(25):
        assert scene.step(tracker) == []
        poses.append(scene.poses)
    assert scene.detections == 25
    assert poses == [1] * 10 + [2] * 10 + [3] * 5
    scene.people["a"] = (900, 300)  # the ghost does not stand in the way of a person
    assert ids(scene.step(tracker)) == [0]


def test_trials_in_one_frame_are_bounded() -> None:
    scene = Scene(ghosts=[(1000.0 * i, 0.0) for i in range(50)])
    scene.step(RoiTracker())
    assert scene.poses == 4


def test_several_people_and_room_for_more() -> None:
    scene, tracker = Scene({"a": (300, 300), "b": (900, 300)}), RoiTracker(3, look_every=30)
    assert ids(scene.step(tracker)) == [0, 1]
    scene.people["c"] = (1500, 300)
    found = [ids(scene.step(tracker)) for _ in range(60)]
    assert found[:29] == [[0, 1]] * 29
    assert found[29:] == [[0, 1, 2]] * 31
    assert scene.detections == 2
    assert scene.most_rois == 3


def test_never_more_than_max_people() -> None:
    scene = Scene({name: (300.0 + 400 * i, 300) for i, name in enumerate("abcde")})
    tracker = RoiTracker(2)
    for _ in range(40):
        assert len(scene.step(tracker)) == 2
    assert scene.detections == 1
    assert scene.most_rois <= 2


def test_followed_person_is_not_admitted_again() -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker(2, look_every=1)
    for _ in range(5):
        assert ids(scene.step(tracker)) == [0]
    assert scene.poses == 2 + 4  # the new detections are known before the network is asked


def test_two_tracks_on_one_person_become_one() -> None:
    scene, tracker = Scene({"a": (300, 300), "b": (390, 300)}), RoiTracker(2)
    assert ids(scene.step(tracker)) == [0, 1]
    del scene.people["a"]  # its ROI reaches b, onto whom the network jumps
    assert ids(scene.step(tracker)) == [1]


def test_closer_look_only_while_there_is_room() -> None:
    scene = Scene({"a": (300, 300), "b": (900, 300)}, hard_to_see={"b"})
    assert ids(scene.step(RoiTracker(1))) == [0]
    assert scene.closer_looks == 0
    assert ids(scene.step(RoiTracker(2))) == [0, 1]
    assert scene.closer_looks == 1


def test_closer_look_at_an_empty_scene_is_rare() -> None:
    scene, tracker = Scene(), RoiTracker(look_every=30)
    for _ in range(61):
        scene.step(tracker)
    assert (scene.detections, scene.closer_looks) == (61, 3)


def test_closer_look_can_be_left_out() -> None:
    scene = Scene({"a": (300, 300)}, hard_to_see={"a"})
    assert RoiTracker().step(scene.detect, scene.pose) == []


def test_reset_forgets_people_but_not_ids() -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    scene.step(tracker)
    tracker.reset()
    assert ids(scene.step(tracker)) == [1]


@pytest.mark.parametrize("score", [0.0, np.nan])
def test_who_is_not_believed_ends_a_track(score: float) -> None:
    scene, tracker = Scene({"a": (300, 300)}), RoiTracker()
    scene.step(tracker)
    broken = landmarks_at(300, 300, score=score)
    assert tracker.step(list, lambda rois: [broken] * len(rois)) == []


def test_demo_video(assets: Callable[[str], Path], blazepose: BlazePose) -> None:
    """A man jumps off a roof while a woman walks by; one at a time is followed.

    Somebody is in sight until frame 226, in the last three only a back behind a tree.
    """
    import av

    tracker, found = RoiTracker(), []
    blazepose.poses = 0
    with av.open(str(assets("demo_video"))) as video:
        for frame in video.decode(video=0):
            tracks = blazepose.step(tracker, frame.to_ndarray(format="bgr24"))
            found.append(ids(tracks))
    assert len(found) == 230
    assert all(found[:227])
    assert tracker.detector_runs <= 8
    assert blazepose.poses < 250
    assert max(found[226]) <= 3  # few people came and went


def test_several_people_keep_their_ids(assets: Callable[[str], Path], blazepose: BlazePose) -> None:
    """Two acrobats in a laboratory, one before the other; each is the same one throughout."""
    import av

    tracker, found = RoiTracker(4), []
    with av.open(str(assets("pose2sim_multi") / "videos" / "cam02.mp4")) as video:
        for frame in itertools.islice(video.decode(video=0), 20):
            found.append(blazepose.step(tracker, frame.to_ndarray(format="bgr24")))
    assert [ids(tracks) for tracks in found] == [[0, 1]] * 20
    hips = np.array([[t.landmarks.auxiliary[0] for t in tracks] for tracks in found])
    assert np.abs(np.diff(hips, axis=0)).max() < 30  # pixels a frame: nobody becomes the other
    assert np.abs(hips[:, 0] - hips[:, 1]).max(1).min() > 200


def test_photos_without_people(assets: Callable[[str], Path], blazepose: BlazePose) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for image in (noise, np.zeros((480, 640, 3), np.uint8), noise[:20, :20].copy()):
        assert blazepose.step(RoiTracker(3), image) == []


def test_half_a_body(blazepose: BlazePose, astronaut: np.ndarray) -> None:
    (track,) = blazepose.step(RoiTracker(3), astronaut)
    assert track.landmarks.score > 0.9
    visibility = track.landmarks.keypoints_2d[:, 2]
    assert visibility[:13].min() > 0.9  # face and shoulders
    assert visibility[25:].max() < 0.3  # knees and below are flagged
