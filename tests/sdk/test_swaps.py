"""Left taken for right: what is put back, what is left alone, and when a change is believed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pchmr.blazepose import Landmarks
from pchmr.crops import Roi
from pchmr.swaps import SwapRejection
from pchmr.tracking import Tracked
from pchmr_kernels.skeletons import get_skeleton

BLAZEPOSE = get_skeleton("blazepose33")
EXCHANGED = np.arange(33)
for left, right in BLAZEPOSE.flip:
    EXCHANGED[[left, right]] = right, left
LEGS = slice(25, 33)
FRAME_NS = 33_333_333


def standing(rng: np.random.Generator, frames: int) -> NDArray[np.float32]:
    """Keypoints (T, 33, 3) of somebody 300 px wide who sways, with noise of 2 px."""
    side = np.array([{"l": 1, "r": -1}.get(name[0], 0) for name in BLAZEPOSE.joints])
    side[BLAZEPOSE.index("nose")] = 0
    points = np.ones((frames, 33, 3), np.float32)
    sway = 20 * np.sin(np.arange(frames) / 5)[:, None]
    points[..., 0] = 500 + side * np.linspace(60, 150, 33) + sway
    points[..., 1] = 200 + 12 * np.arange(33)
    points[..., :2] += rng.normal(scale=2, size=(frames, 33, 2))
    return points


def tracked(points: NDArray[np.float32], track: int = 0) -> Tracked:
    world = np.concatenate([points[:, :2] / 500, points[:, :1] / 900], 1)
    depth = points[:, 0] / 7
    found = Landmarks.of(points, depth, depth, np.zeros((2, 2)), world, 0.9, Roi((500, 400), 500.0))
    return Tracked(track, found)


def renamed(points: NDArray[np.float32], *frames: int, legs: bool = True) -> NDArray[np.float32]:
    wrong = points.copy()
    for frame in frames:
        wrong[frame] = points[frame][EXCHANGED]
        if not legs:
            wrong[frame, LEGS] = points[frame, LEGS]
    return wrong


def seen(given: NDArray[np.float32], track: int = 0) -> NDArray[np.float32]:
    reject = SwapRejection()
    found = [reject([tracked(p, track)], t * FRAME_NS)[0] for t, p in enumerate(given)]
    for person in found:
        same = tracked(person.landmarks.keypoints_2d).landmarks
        np.testing.assert_array_equal(person.landmarks.world, same.world)
        np.testing.assert_array_equal(person.landmarks.depth_px, same.depth_px)
        np.testing.assert_array_equal(person.landmarks.presence, same.presence)
    return np.stack([person.landmarks.keypoints_2d for person in found])


@pytest.mark.parametrize("legs", [True, False])
def test_sides_that_change_places_for_some_frames_are_put_back(
    legs: bool, rng: np.random.Generator
) -> None:
    points = standing(rng, 40)
    wrong = renamed(points, 15, 20, 21, *range(25, 35), legs=legs)
    np.testing.assert_array_equal(seen(wrong), points)


def test_what_is_right_is_left_as_it_is(rng: np.random.Generator) -> None:
    """Also somebody seen from the side, whose left and right lie on each other."""
    points = standing(rng, 60)
    np.testing.assert_array_equal(seen(points), points)
    points[..., 0] = 500 + (points[..., 0] - 500) * np.cos(np.arange(60) / 9)[:, None]
    np.testing.assert_array_equal(seen(points), points)


def test_between_two_namings_there_may_be_a_frame_of_neither(rng: np.random.Generator) -> None:
    points = standing(rng, 40)
    wrong = renamed(points, *range(21, 30))
    for frame in (20, 30):
        wrong[frame, :, 0] = wrong[frame, :, 0].mean() + rng.normal(scale=2, size=33)
    found = seen(wrong)
    clear = np.setdiff1d(np.arange(40), (20, 30))
    np.testing.assert_array_equal(found[clear], points[clear])


def test_the_frames_vote_which_naming_is_right(rng: np.random.Generator) -> None:
    points = standing(rng, 90)
    began_wrong = renamed(points, 0, 1, 2)
    found = seen(began_wrong)
    np.testing.assert_array_equal(found[6:], points[6:])
    # After two seconds the change is believed: a second is as long as anything is held on to.
    for_good = renamed(points, *range(50, 90))
    found = seen(for_good)
    np.testing.assert_array_equal(found[:79], points[:79])
    np.testing.assert_array_equal(found[82:], for_good[82:])


def test_another_track_is_somebody_else(rng: np.random.Generator) -> None:
    points = standing(rng, 20)
    other = renamed(points, 15)[15]
    reject = SwapRejection()
    for frame in range(15):
        reject([tracked(points[frame])], frame * FRAME_NS)
    people = [tracked(other, track=1), tracked(points[15])]
    found = reject(people, 15 * FRAME_NS)
    np.testing.assert_array_equal(found[0].landmarks.keypoints_2d, other)
    np.testing.assert_array_equal(found[1].landmarks.keypoints_2d, points[15])
    # Who was away is forgotten.
    reject([], 16 * FRAME_NS)
    (found_again,) = reject([tracked(other)], 17 * FRAME_NS)
    np.testing.assert_array_equal(found_again.landmarks.keypoints_2d, other)


def test_hidden_landmarks_do_not_count(rng: np.random.Generator) -> None:
    points = standing(rng, 12)
    points[..., 2] = 0
    reject = SwapRejection()
    for frame, wrong in enumerate(renamed(points, 8)):
        (person,) = reject([tracked(wrong)], frame * FRAME_NS)
        np.testing.assert_array_equal(person.landmarks.keypoints_2d, wrong)
