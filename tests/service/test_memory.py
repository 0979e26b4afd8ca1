from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.errors import ClientDisconnected, Overloaded, TooManyPixels
from service.memory import FREE_ANSWER_BYTES, Hold, MemoryBudget, Share, Use

# Of these, bodies may have 512 MB, answers 256 and work for one picture 960.
MB = 1_000_000
LIMIT = 1024 * MB
WHO, BYTES = st.integers(0, 3), st.integers(0, 400 * MB)


def taken(budget: MemoryBudget) -> dict[Use, int]:
    return {use: number // MB for use, number in budget.taken.items()}


def test_bodies_have_a_limit_and_each_request_gives_back_what_it_took() -> None:
    refused: list[str] = []
    budget = MemoryBudget(LIMIT, lambda: refused.append("body"))
    with budget.open() as one:
        one.take_body(300 * MB)
        one.take_body(12 * MB)
        with budget.open() as two:
            two.take_body(200 * MB)
            with pytest.raises(Overloaded, match=r"512000000 bytes .* 512000000 for bodies") as refusal:
                two.take_body(1)
            assert (refusal.value.reason, refusal.value.retry_after_s) == ("memory", 1)
            assert taken(budget)["bodies"] == 512
        assert taken(budget)["bodies"] == 312
    assert (budget.total(), refused) == (0, ["body"])


def test_a_request_that_fails_gives_back_what_it_took() -> None:
    budget = MemoryBudget(LIMIT)

    def fail() -> None:
        with budget.open() as share:
            share.take_body(MB)
            share.expect(MB)
            budget.begin(0, share)
            raise ValueError("it is no picture")

    with pytest.raises(ValueError, match="no picture"):
        fail()
    assert budget.total() == 0


def test_a_body_that_is_unpacked_after_its_request_is_over_is_not_counted_for_ever() -> None:
    budget = MemoryBudget(LIMIT)
    with budget.open() as share:
        share.take_body(MB)
    with pytest.raises(ClientDisconnected):
        share.take_body(MB)
    assert budget.total() == 0


def test_bodies_leave_room_for_work_that_has_begun() -> None:
    budget = MemoryBudget(LIMIT)
    with budget.open() as share:
        work = budget.begin(900 * MB)
        share.take_body(100 * MB)
        with pytest.raises(Overloaded):
            share.take_body(50 * MB)
        assert work is not None
        work.close()
        share.take_body(50 * MB)


def test_work_takes_its_memory_and_the_room_of_its_answer_in_one_step_or_neither() -> None:
    budget = MemoryBudget(LIMIT)
    with budget.open() as one, budget.open() as two:
        one.expect(200 * MB)
        two.expect(100 * MB)
        assert budget.begin(900 * MB, one) is None
        assert budget.total() == 0
        work = budget.begin(500 * MB, one)
        assert taken(budget) == {"bodies": 0, "work": 500, "answers": 200}
        assert work is not None
        assert budget.begin(1 * MB, two) is None, "answers may have 256 MB"
        assert budget.begin(500 * MB) is None
        assert taken(budget) == {"bodies": 0, "work": 500, "answers": 200}
        again = budget.begin(300 * MB, one)
        assert again is not None, "its request has the room for all its answers already"
        again.close()
        work.close()
        one.settle(3 * MB)
        assert taken(budget) == {"bodies": 0, "work": 0, "answers": 3}
        assert budget.begin(1 * MB, two) is not None


def test_a_small_answer_waits_for_no_room() -> None:
    budget = MemoryBudget(LIMIT)
    full = budget.hold("answers")
    full.resize(256 * MB)
    with budget.open() as small, budget.open() as large:
        small.expect(FREE_ANSWER_BYTES)
        large.expect(FREE_ANSWER_BYTES + 1)
        assert budget.begin(MB, small) is not None
        assert budget.begin(MB, large) is None
        small.settle(1000)
        assert budget.taken["answers"] == 256 * MB + 1000


def test_what_could_never_fit_is_refused_before_it_waits() -> None:
    budget = MemoryBudget(LIMIT)
    budget.require_possible(960 * MB)
    with pytest.raises(TooManyPixels, match="takes about 961 MB of memory, and the service has 960 MB for one"):
        budget.require_possible(961 * MB)
    with budget.open() as share:
        share.take_body(10 * MB)
        share.expect(90 * MB)
        budget.require_possible(924 * MB, share)
        with pytest.raises(TooManyPixels, match="takes about 925 MB of memory, and the service has 924 MB for one"):
            budget.require_possible(925 * MB, share)
        share.expect(256 * MB)
        with pytest.raises(TooManyPixels, match=re.escape("about 257 MB, and 256 MB are the limit")):
            share.expect(257 * MB)


def test_work_may_begin_soon_unless_bodies_answers_or_stuck_work_hold_what_it_needs() -> None:
    budget = MemoryBudget(LIMIT)
    first = budget.begin(600 * MB)
    assert first is not None
    assert (budget.begin(600 * MB), budget.may_begin(600 * MB)) == (None, True)
    budget.mark_stuck(first)
    budget.mark_stuck(first)
    assert not budget.may_begin(600 * MB)
    assert budget.may_begin(424 * MB)
    first.close()
    assert budget.may_begin(1024 * MB), "a stuck decoder keeps its share only as long as it is stuck"
    with budget.open() as share:
        share.take_body(500 * MB)
        assert not budget.may_begin(600 * MB)


def test_work_without_a_need_begins_even_where_answers_have_outgrown_the_limit() -> None:
    budget = MemoryBudget(LIMIT)
    budget.hold("answers").resize(LIMIT + MB)
    assert budget.begin(1) is None
    assert budget.begin(0) is not None


def test_the_bytes_of_a_picture_may_outlive_the_request_that_brought_it() -> None:
    budget = MemoryBudget(LIMIT)
    with budget.open() as share:
        share.take_body(10 * MB)
        picture = share.move_body(8 * MB)
        assert taken(budget)["bodies"] == 10
    assert taken(budget)["bodies"] == 8
    assert share.move_body(8 * MB).number == 0
    picture.close()
    picture.close()
    picture.resize(MB)
    assert budget.total() == 0


def test_whoever_waits_is_told_of_what_is_given_back_and_of_nothing_else() -> None:
    told: list[int] = []
    budget = MemoryBudget(LIMIT)
    budget.on_release = lambda: told.append(budget.total() // MB)
    hold = budget.hold("answers")
    for size in (3, 5, 5, 2):
        hold.resize(size * MB)
    assert told == [2]
    hold.close()
    hold.close()
    assert told == [2, 0]


class Requests(RuleBasedStateMachine):
    """Requests that come, work, answer and leave in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = MemoryBudget(LIMIT)
        self.shares = [Share(self.budget) for _ in range(4)]
        self.unsent = self.budget.hold("answers")
        self.holds: list[Hold] = []
        self.forced = 0  # answers that are larger than foretold, and what is unsent, ask nobody

    @rule(who=WHO, number=BYTES)
    def read(self, who: int, number: int) -> None:
        with contextlib.suppress(Overloaded, ClientDisconnected):
            self.shares[who].take_body(number)

    @rule(who=WHO, number=BYTES)
    def expect(self, who: int, number: int) -> None:
        with contextlib.suppress(TooManyPixels):
            self.shares[who].expect(number)

    @rule(who=WHO, work=BYTES)
    def begin(self, who: int, work: int) -> None:
        might_wait = self.budget.may_begin(work, self.shares[who])
        hold = self.budget.begin(work, self.shares[who])
        if hold is not None:
            assert might_wait
            assert not work or self.budget.total() <= LIMIT
            self.holds.append(hold)

    @rule(who=WHO, number=BYTES)
    def answer(self, who: int, number: int) -> None:
        self.forced += number
        self.shares[who].settle(number)

    @rule(number=BYTES)
    def write(self, number: int) -> None:
        self.forced += number
        self.unsent.resize(number)

    @rule(who=WHO, number=BYTES)
    def keep_picture(self, who: int, number: int) -> None:
        self.holds.append(self.shares[who].move_body(number))

    @precondition(lambda self: self.holds)
    @rule(which=BYTES)
    def get_stuck(self, which: int) -> None:
        self.budget.mark_stuck(self.holds[which % len(self.holds)])

    @precondition(lambda self: self.holds)
    @rule(which=BYTES)
    def end(self, which: int) -> None:
        self.holds.pop(which % len(self.holds)).close()

    @rule(who=WHO)
    def leave(self, who: int) -> None:
        self.shares[who].close()
        self.shares[who] = Share(self.budget)

    @invariant()
    def limits_hold(self) -> None:
        taken = self.budget.taken
        assert min(taken.values()) >= 0
        assert taken["bodies"] <= self.budget.most_bodies
        assert taken["answers"] <= self.budget.most_answers + self.forced
        assert self.budget.total() <= LIMIT + self.forced

    def teardown(self) -> None:
        for hold in self.holds:
            hold.close()
        for share in self.shares:
            share.close()
        self.unsent.close()
        assert self.budget.total() == 0, "all is given back, whatever has happened"
        assert self.budget.may_begin(LIMIT), "nothing that was stuck is remembered"


TestRequests = Requests.TestCase
