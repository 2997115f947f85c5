"""One-euro filters: what stands still, what moves, the lag they say they add; and cuts."""

import numpy as np
import pytest
from averaging_engine import AveragingEngine

from pchmr.cuts import CutDetector
from pchmr.geometry import rotmat_to_rotvec, rotvec_to_rotmat
from pchmr.smoothing import BoneFilter, OneEuro, PlaceFilter, PointFilter, RotationFilter
from pchmr.stages.base import Board, HostStage, Row
from pchmr.stages.smoothed import Smoothed, smoothed
from pchmr.stages.temporal import StreamingStage
from pchmr_kernels.skeletons import SKELETONS, get_skeleton
from pchmr_kernels.smooth import Filter

FRAME_S = 1 / 60
SETTINGS = OneEuro(least_hz=2.0, slope=1.5)


def times(frames: int) -> list[int]:
    return [round(frame * FRAME_S * 1e9) for frame in range(frames)]


def answer(smooth: Filter, t_ns: int, value: np.ndarray) -> np.ndarray:
    value = value.copy()
    smooth(t_ns, value)
    return value


def test_the_filter_of_the_paper_by_hand() -> None:
    """Casiez et al. 2012, algorithm 1, two frames of one number."""
    smooth = PointFilter((1, 1), OneEuro(least_hz=1.0, slope=0.5, speed_hz=2.0))
    assert answer(smooth, 0, np.array([[3.0]]))[0, 0] == 3.0
    dt = 0.1
    speed = (5.0 - 3.0) / dt / (1 + 1 / (2 * np.pi * 2.0 * dt))
    share = 1 / (1 + 1 / (2 * np.pi * (1.0 + 0.5 * speed) * dt))
    found = answer(smooth, 100_000_000, np.array([[5.0]]))
    assert found[0, 0] == pytest.approx(3.0 + share * 2.0)
    assert smooth.lag_ms == pytest.approx(1e3 * dt * (1 - share) / share)


def test_noise_is_smoothed_and_a_ramp_lags_as_it_says(rng: np.random.Generator) -> None:
    noise = rng.normal(scale=0.01, size=(300, 5, 3))
    smooth = PointFilter((5, 3), SETTINGS)
    quiet = np.stack([answer(smooth, t, x) for t, x in zip(times(300), noise, strict=True)])
    assert np.diff(quiet, axis=0).std() < 0.25 * np.diff(noise, axis=0).std()

    smooth, speed = PointFilter((1, 3), SETTINGS), 2.0
    for t in times(120):
        point = np.array([[speed * t / 1e9, 0.0, 0.0]])
        found = answer(smooth, t, point)
    behind_ms = 1e3 * (point - found)[0, 0] / speed
    assert behind_ms == pytest.approx(smooth.lag_ms, rel=0.02)
    assert behind_ms < 1e3 / (2 * np.pi * SETTINGS.least_hz)


def test_a_place_follows_what_the_picture_shows_and_smooths_its_depth(
    rng: np.random.Generator,
) -> None:
    """Somebody crosses the picture: neither does their speed let the noise of the depth through,
    nor does that noise move where they are seen."""
    smooth = PlaceFilter(OneEuro(2.0, 120.0), OneEuro(1.0, 0.0))
    seen = np.stack([np.linspace(-0.2, 0.2, 120), np.zeros(120)], -1)
    depth = 8.0 + rng.normal(scale=0.1, size=(120, 1))
    given = np.concatenate([seen * depth, depth], -1)
    found = np.array([answer(smooth, t, place) for t, place in zip(times(120), given, strict=True)])
    assert np.diff(found[:, 2]).std() < 0.2 * np.diff(depth[:, 0]).std()
    assert np.abs(found[:, :2] / found[:, 2:] - seen)[60:].max() < 3e-3
    behind = np.array([0.0, 0.0, -1.0])
    np.testing.assert_array_equal(answer(smooth, times(121)[-1], behind), behind)


@pytest.mark.parametrize("kind", [PointFilter, RotationFilter])
def test_a_number_that_is_not_finite_is_forgotten(kind: type[PointFilter]) -> None:
    smooth, good = kind((2, 3, 3), SETTINGS), np.tile(np.eye(3), (2, 1, 1))
    smooth(0, good)
    assert np.isnan(answer(smooth, 20_000_000, np.full((2, 3, 3), np.nan))).all()
    for t_ms in (40, 60):
        np.testing.assert_allclose(answer(smooth, t_ms * 1_000_000, good), good, atol=1e-12)


def test_rotations_are_smoothed_along_their_turn(rng: np.random.Generator) -> None:
    """Across the half turn, where rotation vectors jump; the result is a rotation."""
    smooth, angles = RotationFilter((2, 3, 3), SETTINGS), 3.0 * np.arange(120) * FRAME_S
    axis = np.array([0.6, 0.0, 0.8])
    found = []
    for t, angle in zip(times(120), angles, strict=True):
        given = rotvec_to_rotmat(np.stack([angle * axis, np.zeros(3)])).astype(np.float32)
        found.append(answer(smooth, t, given))
        assert found[-1].dtype == np.float32
        np.testing.assert_allclose(
            found[-1] @ found[-1].swapaxes(1, 2), np.eye(3)[None].repeat(2, 0), atol=1e-5
        )
    turned = rotmat_to_rotvec(found[-1][0].T.astype(float) @ rotvec_to_rotmat(angles[-1] * axis))
    np.testing.assert_allclose(turned / np.linalg.norm(turned), axis, atol=1e-3)
    assert np.linalg.norm(turned) == pytest.approx(3.0 * smooth.lag_ms / 1e3, rel=0.02)
    np.testing.assert_allclose(found[-1][1], np.eye(3), atol=1e-6)


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_bones_keep_their_lengths(name: str, rng: np.random.Generator) -> None:
    skeleton = get_skeleton(name)
    smooth = BoneFilter(skeleton, SETTINGS, OneEuro(0.5, 0.0))
    rest = rng.normal(size=(len(skeleton), 3)).astype(np.float32)
    parents, children = np.array(skeleton.bones).T
    lengths = np.linalg.norm(rest[children] - rest[parents], axis=1)
    for t in times(30):
        given = (rest - rest[0]) @ rotvec_to_rotmat(np.array([0, 2e-9 * t, 0])).T + t / 1e9
        found = answer(smooth, t, given)
        np.testing.assert_array_equal(found[skeleton.root], given[skeleton.root])
        got = np.linalg.norm(found[children] - found[parents], axis=1)
        np.testing.assert_allclose(got, lengths, rtol=1e-5)
    assert np.abs(found - given).max() > 0.01


def test_a_missing_joint_takes_no_other_with_it(rng: np.random.Generator) -> None:
    smooth = BoneFilter(get_skeleton("smpl24"), SETTINGS, OneEuro(0.5, 0.0))
    joints = rng.normal(size=(24, 3))
    smooth(0, joints)
    gone = joints.copy()
    gone[5] = np.nan
    np.testing.assert_array_equal(answer(smooth, 20_000_000, gone), gone)
    np.testing.assert_allclose(answer(smooth, 40_000_000, joints), joints, atol=1e-12)


class Giver(HostStage):
    """Gives what the test put on it."""

    name, needs = "giver", frozenset({"start"})
    gives = frozenset({"translation", "target"})

    def collect(self, board: Board) -> None:
        board["target"] = board["start"][:, None, None] * np.ones((24, 3))
        board["translation"] = board["start"][:, None] * np.eye(3)[2]


def test_a_temporal_network_is_not_smoothed_again() -> None:
    engine = AveragingEngine(1)
    names = {"x": "start"}, {"mean": "target"}
    network = StreamingStage("lifter", engine, engine.settings, *names, 1, 1)
    assert smoothed([network], get_skeleton("smpl24")) == [network]


def test_each_person_has_filters_of_their_own_and_starts_anew() -> None:
    (stage,) = smoothed([Giver()], get_skeleton("smpl24"))
    assert isinstance(stage, Smoothed)
    assert (stage.name, stage.needs, stage.gives) == (Giver.name, Giver.needs, Giver.gives)

    def places(time: int, people: list[tuple[int, int, float]]) -> list[float]:
        rows = [
            Row(time, time * 16_000_000, track, i, epoch)
            for i, (track, epoch, _) in enumerate(people)
        ]
        board = Board(np.zeros((4, 4, 3), np.uint8), None, rows, [])  # type: ignore[arg-type]
        board["start"] = np.array([value for _, _, value in people])
        for step in (stage.prepare, stage.collect):
            step(board)
        return [float(x) for x in board["translation"][:, 2]]

    assert places(0, [(1, 0, 3.0), (2, 0, 5.0)]) == [3.0, 5.0]
    first, second = places(1, [(2, 0, 6.0), (1, 0, 4.0)])
    assert 5.0 < first < 6.0
    assert 3.0 < second < 4.0
    assert places(2, [(1, 1, 9.0)]) == [9.0]  # another epoch
    assert places(3, [(1, 1, 9.0), (2, 0, 1.0)])[1] == 1.0  # who was away


# Cuts


def test_a_cut_is_another_picture(rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (2, 9, 16, 3)).repeat(40, 1).repeat(40, 2).astype(np.uint8)
    pictures[1] = pictures[1] // 2
    first, second = pictures
    cuts = CutDetector()
    shown = [first, first, second, second, second[:, :320], first]
    assert [cuts(picture) for picture in shown] == [False, False, True, False, True, True]


def test_noise_light_and_movement_are_no_cuts(rng: np.random.Generator) -> None:
    picture = rng.integers(20, 200, (9, 16, 3)).repeat(40, 0).repeat(40, 1)
    for other in (
        picture + rng.integers(-20, 20, picture.shape),
        0.5 * picture,
        picture + 50,
        np.roll(picture, 60, 1),
    ):
        cuts = CutDetector()
        cuts(picture.astype(np.uint8))
        assert not cuts(other.clip(0, 255).astype(np.uint8))
    cuts = CutDetector()
    assert not any(cuts(np.zeros((50, 50, 3), np.uint8)) for _ in range(3))
