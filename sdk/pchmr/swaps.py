"""Left taken for right: landmarks whose sides changed places from one frame to the next.

BlazePose `full` takes a back for a front in some views, for a frame or for half a second: all left
and right landmarks change places at once. The sides of a person do not: where torso and arms are
much nearer to the last frame's with their names exchanged, they are given back. Either naming may
be the wrong one, so the frames vote: a change that lasts longer than what came before, a second at
most, is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pchmr_kernels.sides import ExchangeDistance
from pchmr_kernels.skeletons import get_skeleton

from .blazepose import Landmarks
from .tracking import Tracked

CLEARLY = 0.03
"""Of the ROI's size: by how much one naming must be nearer, in the mean, to change it."""
LONGEST_S = 1.0
REMEMBERED_S = 0.1
"""How long a frame is compared with, while later ones do not tell their sides apart: between two
namings there may be a frame of neither."""
VERY_CLEARLY = 0.1
"""The same for a frame that is not the last one: whoever turns round has no sides for a moment too,
and few before it."""

_SKELETON = get_skeleton("blazepose33")
_UPPER, _LOWER = slice(11, 25), slice(25, 33)
_EXCHANGED = np.arange(len(_SKELETON.joints), dtype=np.int32)
for _left, _right in _SKELETON.flip:
    _EXCHANGED[[_left, _right]] = _right, _left


@dataclass(slots=True)
class _Side:
    """What is known of one track, whose last frame was at `t_ns`. points: of (33, 3), as named in
    the last one that told its sides apart, at `points_ns`. trust_s: votes for this naming."""

    t_ns: int
    points_ns: int
    points: bytes
    exchanged: bool = False
    trust_s: float = 0.0


class SwapRejection:
    """Gives tracked people back with left and right as they were named before."""

    def __init__(self) -> None:
        self._sides: dict[int, _Side] = {}
        self._upper = ExchangeDistance(_EXCHANGED, _UPPER)
        self._lower = ExchangeDistance(_EXCHANGED, _LOWER)

    def __call__(self, tracks: Sequence[Tracked], t_ns: int) -> list[Tracked]:
        """The tracks of the next frame; whoever is not among them is forgotten."""
        known, self._sides = self._sides, {}
        return [self._name(track, known.get(track.track_id), t_ns) for track in tracks]

    def _name(self, track: Tracked, side: _Side | None, t_ns: int) -> Tracked:
        found = track.landmarks
        points = found.keypoints_2d.tobytes()
        if side is None:
            self._sides[track.track_id] = _Side(t_ns, t_ns, points)
            return track
        nearer = self._upper(points, side.points) / found.roi.size
        last = side.points_ns == side.t_ns
        clear = abs(nearer) > (CLEARLY if last else VERY_CLEARLY)
        if clear:
            side.exchanged = nearer > 0
        passed_s = (t_ns - side.t_ns) / 1e9
        vote_s = -passed_s if side.exchanged else passed_s
        side.trust_s = min(side.trust_s + vote_s, LONGEST_S)
        if side.exchanged and side.trust_s < 0:  # it was wrong before
            side.exchanged, side.trust_s = False, -side.trust_s
        if side.exchanged:
            found = _exchanged(found, legs=self._lower(points, side.points) > 0)
            points = found.keypoints_2d.tobytes()
        side.t_ns = t_ns
        if clear or t_ns - side.points_ns > REMEMBERED_S * 1e9:
            side.points_ns, side.points = t_ns, points
        self._sides[track.track_id] = side
        return replace(track, landmarks=found) if side.exchanged else track


def _exchanged(found: Landmarks, legs: bool) -> Landmarks:
    """With left for right and right for left, below the hips only where the legs are too."""
    order = _EXCHANGED.copy()
    if not legs:
        order[_LOWER] = np.arange(len(order))[_LOWER]
    exchanged = Landmarks(found.raw.copy(), found.roi)
    for name in ("keypoints_2d", "presence", "depth_px", "world"):
        getattr(exchanged, name)[:] = getattr(found, name)[order]
    return exchanged
