"""Slow sockets in reduced size, with shorter limits; `make hostile` opens five hundred for a minute."""

from __future__ import annotations

import asyncio

import pytest

from service.commands.spawn import spawn_service
from tests.attacks.goals import require
from tests.attacks.slow import KINDS, measure, measure_at_limit, measure_readers

pytestmark = pytest.mark.slow


def test_slow_sockets_are_closed_and_an_honest_client_is_served() -> None:
    words = ["--log-level", "error", "--header-timeout-s", "0.5", "--body-timeout-s", "1"]
    with spawn_service(words) as service:
        figures = asyncio.run(measure(service, sockets=20 * len(KINDS), seconds=4, closed_within_s=2.5))
    # Times beside each other on a busy machine say little in four seconds.
    require([one for one in figures if "p99" not in one.goal])


def test_at_the_limit_of_connections_health_is_answered() -> None:
    words = ["--log-level", "error", "--max-connections", "60", "--header-timeout-s", "2", "--body-timeout-s", "20"]
    with spawn_service(words) as service:
        figures = asyncio.run(measure_at_limit(service, limit=60, per_s=60, seconds=2))
    require([one for one in figures if "percentile" not in one.goal])


def test_who_reads_at_the_promised_rate_gets_all_of_it() -> None:
    with spawn_service(["--log-level", "error", "--write-timeout-s", "1"]) as service:
        require(asyncio.run(measure_readers(service, readers=3, write_timeout_s=1, seconds=8)))
