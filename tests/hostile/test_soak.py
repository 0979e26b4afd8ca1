"""A soak in reduced size: everything has one outcome and is counted once; `make hostile` goes on for an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.commands.spawn import Spawned, spawn_service
from tests.attacks import soak
from tests.attacks.asking import Answer
from tests.attacks.goals import require
from tests.attacks.soak import measure
from tests.attacks.traffic import Seen

pytestmark = pytest.mark.slow


def test_mixed_traffic_loses_nothing_and_leaves_nothing_open() -> None:
    with spawn_service(["--log-level", "error"]) as service:
        figures = asyncio.run(measure(service, seconds=11, load=0.4, warm_s=2))
    # Drift needs an hour, and connections are opened as they are needed.
    require(
        [one for one in figures if "p99" not in one.goal and "memory" not in one.goal and "descriptors" not in one.goal]
    )


class _FakeTraffic:
    """Port 1 answers in 20 ms, any other in 10, one answer in fifty ten times as late."""

    def __init__(self, service: Spawned, pictures: Sequence[bytes], *, seed: int) -> None:
        assert pictures
        assert seed >= 0
        self.seen, self._ms = Seen(), 20.0 if service.port == 1 else 10.0

    async def run(self, *, seconds: float, rate: float) -> None:
        assert (seconds, rate) == (15, 70)
        self.seen.valid += [(0.0, Answer(200, self._ms * (10 if number % 50 == 0 else 1))) for number in range(1000)]


@pytest.mark.parametrize(
    ("aged", "fresh", "figure"), [(1, 2, "2.00 times"), (2, 1, "0.50 times"), (2, 3, "1.00 times")]
)
def test_a_soaked_service_is_compared_with_a_new_one(
    aged: int, fresh: int, figure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_capacity(service: Spawned, *_: object) -> float:
        assert service.port == fresh
        return 100.0

    monkeypatch.setattr(soak, "Traffic", _FakeTraffic)
    monkeypatch.setattr(soak, "find_capacity", find_capacity)
    (found,) = asyncio.run(soak.compare(Spawned("x", aged, 0), Spawned("x", fresh, 0)))
    assert "median of 7 turns of 15 s each" in found.goal
    assert (found.figure, found.passed) == (figure, figure != "2.00 times")
