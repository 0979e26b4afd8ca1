from __future__ import annotations

import pytest

from service.server.places import SPARE_PLACES, Places


class Guest:
    def __init__(self, places: Places) -> None:
        self.is_untaken = False
        self.closed = False
        self.is_spare = places.take(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def places() -> Places:
    return Places(3)


def fill(places: Places) -> list[Guest]:
    """Three connections at work, which is the limit."""
    guests = [Guest(places) for _ in range(3)]
    for guest in guests:
        places.work(guest)
    return guests


def test_who_has_waited_longest_makes_room(places: Places) -> None:
    first, second, third = (Guest(places) for _ in range(3))
    places.work(first)
    places.wait(first)
    assert not Guest(places).is_spare
    assert [first.closed, second.closed, third.closed] == [False, True, False]


def test_who_is_at_work_keeps_the_place_and_the_next_gets_a_spare_one(places: Places) -> None:
    busy = fill(places)
    spare = Guest(places)
    assert spare.is_spare
    places.leave(busy[0])
    assert not Guest(places).is_spare
    assert not any(guest.closed for guest in [*busy, spare])


def test_who_still_takes_an_answer_keeps_the_place(places: Places) -> None:
    slow, *_ = busy = fill(places)
    for guest in busy:
        places.wait(guest)
    slow.is_untaken = True
    Guest(places)
    assert [guest.closed for guest in busy] == [False, True, False]
    for guest in busy:
        guest.is_untaken = True
    places.work(busy[2])
    assert not Guest(places).is_spare  # the newcomer before has asked nothing yet


def test_half_heads_however_many_keep_nobody_out(places: Places) -> None:
    flood = [Guest(places) for _ in range(1000)]
    assert not any(guest.is_spare for guest in flood)
    assert [guest.closed for guest in flood] == [True] * 997 + [False] * 3


def test_of_the_spare_places_the_longest_holder_makes_room(places: Places) -> None:
    busy = fill(places)
    spare = [Guest(places) for _ in range(SPARE_PLACES)]
    places.wait(spare[0])  # which changes nothing there
    more = Guest(places)
    assert more.is_spare
    assert [guest.closed for guest in spare] == [True] + [False] * (SPARE_PLACES - 1)
    assert not any(guest.closed for guest in busy)


def test_who_has_left_has_no_place(places: Places) -> None:
    gone = [Guest(places) for _ in range(3)]
    for guest in gone:
        places.leave(guest)
        places.leave(guest)
        places.wait(guest)
    assert not any(Guest(places).is_spare for _ in range(3))
    assert not any(guest.closed for guest in gone)
