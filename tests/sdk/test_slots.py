"""Places of people in what stages know of them."""

from pchmr.slots import Slots


def places(slots: Slots, *tracks: int) -> list[tuple[int, int]]:
    return [(row.slot, row.epoch) for row in slots.rows(0, 0, tracks)]


def test_no_two_people_of_a_track_are_alike() -> None:
    """A track that changed its place is another one after it was cleared, whatever came between."""
    slots = Slots(2)
    seen = set()
    for tracks, clear in (([1, 2], False), ([1, 3], False), ([3], True), ([3], True), ([3], False)):
        if clear:
            slots.clear()
        new = {(row.track, row.epoch) for row in slots.rows(0, 0, tracks)}
        assert not clear or not new & seen
        seen |= new


def test_a_place_is_kept_while_a_track_lives_and_counts_its_epochs() -> None:
    slots = Slots(2)
    assert places(slots, 3, 7) == [(0, 1), (1, 2)]
    assert places(slots, 7) == [(1, 2)]
    assert places(slots, 7, 9) == [(1, 2), (0, 3)]
    assert places(slots, 9, 7) == [(0, 3), (1, 2)]
    assert places(slots) == []
    assert places(slots, 7) == [(0, 4)]
    slots.clear()
    assert places(slots, 7) == [(0, 5)]


def test_a_row_says_whose_and_when_it_is() -> None:
    (row,) = Slots(4).rows(5, 60_000_000, [2])
    assert (row.frame, row.t_ns, row.track) == (5, 60_000_000, 2)
