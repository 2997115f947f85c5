"""Which place of what stages know of each person belongs to whom."""

from __future__ import annotations

from collections.abc import Sequence

from .stages.base import Row


class Slots:
    """A place for each of `count` tracks at most; a track keeps its own while it lives."""

    def __init__(self, count: int) -> None:
        self._of_track: dict[int, int] = {}
        self._epochs, self._last = [0] * count, 0

    def clear(self) -> None:
        """Whoever is still there starts anew, in another epoch."""
        self._of_track.clear()

    def rows(self, frame: int, t_ns: int, tracks: Sequence[int]) -> list[Row]:
        """A row for each track of the next frame; whoever is not among them loses their place."""
        if self._of_track.keys() != set(tracks):
            self._assign(set(tracks))
        slots = [self._of_track[track] for track in tracks]
        return [
            Row(frame, t_ns, track, slot, self._epochs[slot])
            for track, slot in zip(tracks, slots, strict=True)
        ]

    def _assign(self, living: set[int]) -> None:
        kept = {track: slot for track, slot in self._of_track.items() if track in living}
        free = sorted(set(range(len(self._epochs))) - set(kept.values()))
        new = dict(zip(sorted(living - kept.keys()), free, strict=False))
        for slot in new.values():
            self._last += 1  # never the same twice: a track may change its slot
            self._epochs[slot] = self._last
        self._of_track = kept | new
