from people_made_up import make_person


def test_a_person_can_be_printed_and_kept_in_lists_and_sets() -> None:
    one, other = make_person(0), make_person(0)
    assert one in [other, one]
    assert one not in [other]
    assert len({one, other}) == 2
    assert len(repr(one)) < 150
    assert f"track_id={one.track_id}, " in repr(one)
