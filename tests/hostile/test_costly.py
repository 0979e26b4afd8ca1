"""Small requests that would cost much, against a real server: each kind once; `make hostile` sends eight at once."""

from __future__ import annotations

import asyncio

import pytest

from service.commands.spawn import spawn_service
from tests.attacks.costly import make_requests, measure
from tests.attacks.goals import require

pytestmark = pytest.mark.slow


def test_small_requests_stop_nobody() -> None:
    requests = make_requests()
    assert max(len(request.body) for request in requests if "picture" not in request.name) < 8_000_000
    with spawn_service(["--log-level", "error", "--cache-max-bytes", "0"]) as service:
        # One of them stopped every answer for 13 s before they were bounded; a busy machine takes its time.
        figures = asyncio.run(measure(service, requests, at_once=1, health_ms=1000, memory_mb=300))
    require(figures)
