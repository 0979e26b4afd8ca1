"""A soak in reduced size: everything has one outcome and is counted once; `make hostile` goes on for an hour."""

from __future__ import annotations

import asyncio

import pytest

from service.spawn import spawn_service
from tests.service.hostile.goals import require
from tests.service.hostile.soak import measure

pytestmark = pytest.mark.slow


def test_mixed_traffic_loses_nothing_and_leaves_nothing_open() -> None:
    with spawn_service(["--log-level", "error"]) as service:
        figures = asyncio.run(measure(service, seconds=15, load=0.4, warm_s=3))
    # Drift needs an hour, and connections are opened as they are needed.
    require(
        [one for one in figures if "p99" not in one.goal and "memory" not in one.goal and "descriptors" not in one.goal]
    )
