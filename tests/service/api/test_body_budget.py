from __future__ import annotations

import pytest

from service.api.bodies import BodyBudget
from service.errors import Overloaded


def test_all_bodies_together_have_a_limit_and_each_gives_back_what_it_took() -> None:
    refused: list[str] = []
    budget = BodyBudget(100, lambda: refused.append("bodies"))
    with budget.hold() as one:
        one.take(40)
        one.take(20)
        with budget.hold() as two:
            two.take(40)
            with pytest.raises(Overloaded, match="have 100 bytes; 100 are the limit"):
                two.take(1)
            assert (budget.taken, one.number, two.number) == (100, 60, 40)
        assert budget.taken == 60
    assert (budget.taken, refused) == (0, ["bodies"])


def test_a_body_that_fails_gives_back_what_it_took() -> None:
    budget = BodyBudget(100, lambda: None)

    def fail() -> None:
        with budget.hold() as held:
            held.take(100)
            raise ValueError("it is no picture")

    with pytest.raises(ValueError, match="no picture"):
        fail()
    assert budget.taken == 0
