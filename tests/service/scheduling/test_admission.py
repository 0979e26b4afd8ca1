from __future__ import annotations

import pytest

from service.errors import Overloaded, OverloadReason
from service.scheduling.admission import Admission


def count_nothing(reason: OverloadReason) -> None:
    del reason


def busy(*, took_s: float, at_once: int = 1, waiting: int = 0, limit: int = 64) -> Admission:
    """An admission that has just seen a picture take `took_s` beside others, with `waiting` in the queue."""
    admission = Admission(limit=limit, count_refusal=count_nothing)
    for _ in range(at_once):
        admission.admit(10)
        admission.start()
    admission.finish(took_s)
    for _ in range(waiting):
        admission.admit(1000)
    return admission


def test_the_pace_is_what_a_picture_takes_divided_by_those_at_work() -> None:
    assert busy(took_s=0.4, at_once=4).pace_s == pytest.approx(0.1)


def test_the_pace_follows_slowly() -> None:
    admission = busy(took_s=0.1)
    admission.admit(10)
    admission.start()
    admission.finish(1.1)
    assert admission.pace_s == pytest.approx(0.2)


def test_a_wait_longer_than_the_patience_is_refused_with_the_time_to_come_back() -> None:
    admission = busy(took_s=1.0, waiting=5)
    with pytest.raises(Overloaded, match=r"about 5\.00 s, the deadline is in 2\.00 s") as refused:
        admission.admit(2)
    assert (refused.value.reason, refused.value.retry_after_s) == ("wait_too_long", 3)
    admission.admit(6)
    assert admission.waiting == 6


def test_a_full_queue_tells_when_it_will_be_empty() -> None:
    admission = busy(took_s=1.0, waiting=4, limit=4)
    with pytest.raises(Overloaded) as refused:
        admission.admit(1000)
    assert (refused.value.reason, refused.value.retry_after_s) == ("queue_full", 4)


def test_each_refusal_is_counted_under_its_reason() -> None:
    reasons: list[OverloadReason] = []
    admission = Admission(limit=2, count_refusal=reasons.append)
    for _ in range(2):
        admission.admit(10)
    refuse(admission, 20)
    with pytest.raises(Overloaded):
        admission.shed()
    admission.leave()
    admission.pace_s = 1.0
    with pytest.raises(Overloaded):
        admission.admit(0.5)
    assert reasons == ["queue_full"] * 21 + ["wait_too_long"]


def test_an_empty_queue_tries_however_slow_the_last_picture_was() -> None:
    admission = busy(took_s=100)
    admission.admit(0.01)
    assert admission.waiting == 1


def test_a_picture_is_alone_while_no_other_is_there_or_was_lately() -> None:
    now = 100.0
    admission = Admission(limit=64, count_refusal=count_nothing, clock=lambda: now)
    admission.admit(10)
    assert not admission.is_alone()
    admission.start()
    assert admission.is_alone()
    admission.admit(10)
    assert not admission.is_alone()
    admission.start()
    assert not admission.is_alone()
    admission.finish(0.01)
    assert not admission.is_alone()
    now += 0.3
    assert admission.is_alone()


def test_pictures_one_after_another_are_each_alone() -> None:
    admission = Admission(limit=64, count_refusal=count_nothing, clock=lambda: 100.0)
    for _ in range(3):
        admission.admit(10)
        admission.start()
        assert admission.is_alone()
        admission.finish(0.01)


def test_what_was_dropped_teaches_no_pace() -> None:
    admission = busy(took_s=0.5)
    admission.admit(1)
    admission.start()
    admission.finish(None)
    assert (admission.pace_s, admission.active) == (0.5, 0)


def test_who_leaves_frees_a_place() -> None:
    admission = busy(took_s=0.01, waiting=1, limit=1)
    admission.leave()
    admission.admit(1)
    assert admission.waiting == 1


def refuse(admission: Admission, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Overloaded):
            admission.admit(1000)


def test_bodies_are_read_until_most_pictures_are_refused() -> None:
    admission = busy(took_s=0.01, waiting=2, limit=2)
    refuse(admission, 10)
    admission.shed()  # a burst: the next may be about a picture that waits already
    refuse(admission, 10)
    with pytest.raises(Overloaded) as shed:
        admission.shed()
    assert (shed.value.reason, shed.value.retry_after_s) == ("queue_full", 1)


def test_a_free_place_is_given_to_the_next_picture_at_once() -> None:
    admission = busy(took_s=0.01, waiting=2, limit=2)
    refuse(admission, 30)
    admission.leave()
    admission.shed()
    admission.admit(1000)
    with pytest.raises(Overloaded):
        admission.shed()


def test_shedding_ends_when_most_pictures_are_taken_again() -> None:
    admission = busy(took_s=0.01, waiting=2, limit=2)
    refuse(admission, 30)
    for _ in range(15):
        admission.leave()
        admission.admit(1000)
    admission.shed()
