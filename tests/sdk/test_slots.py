"""Places of people in what stages know of them."""

from pchmr.slots import Slots


def places(slots: Slots, *tracks: int) -> list[tuple[int, int]]:
    return [(row.slot, row.epoch) for row in slots.rows(0, 0, tracks)]


def test_a_place_is_kept_while_a_track_lives_and_counts_its_epochs() -> None:
    slots = Slots(2)
    assert places(slots, 3, 7) == [(0, 1), (1, 1)]
    assert places(slots, 7) == [(1, 1)]
    assert places(slots, 7, 9) == [(1, 1), (0, 2)]
    assert places(slots, 9, 7) == [(0, 2), (1, 1)]
    assert places(slots) == []
    assert places(slots, 7) == [(0, 3)]
    slots.clear()
    assert places(slots, 7) == [(0, 4)]


def test_a_row_says_whose_and_when_it_is() -> None:
    (row,) = Slots(4).rows(5, 60_000_000, [2])
    assert (row.frame, row.t_ns, row.track) == (5, 60_000_000, 2)
