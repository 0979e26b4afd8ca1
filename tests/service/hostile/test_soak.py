"""A soak in reduced size: everything has one outcome and is counted once; `make hostile` goes on for an hour."""

from __future__ import annotations

import asyncio

import pytest

from service.spawn import spawn_service
from tests.service.hostile.goals import require
from tests.service.hostile.soak import compare, measure

pytestmark = pytest.mark.slow


def test_mixed_traffic_loses_nothing_and_leaves_nothing_open() -> None:
    with spawn_service(["--log-level", "error"]) as service:
        figures = asyncio.run(measure(service, seconds=15, load=0.4, warm_s=3))
    # Drift needs an hour, and connections are opened as they are needed.
    require(
        [one for one in figures if "p99" not in one.goal and "memory" not in one.goal and "descriptors" not in one.goal]
    )


def test_a_soaked_service_is_compared_with_a_new_one() -> None:
    words = ["--log-level", "error"]
    with spawn_service(words) as aged, spawn_service(words) as fresh:
        (figure,) = asyncio.run(compare(aged, fresh, rounds=2, seconds=1, load=0.3, warm_s=1))
    assert "soaked service beside a new one's, median of 2 turns" in figure.goal
    assert 0.1 < float(figure.figure.removesuffix(" times")) < 10
