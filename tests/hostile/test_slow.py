"""Slow sockets in reduced size, with shorter limits; `make hostile` opens five hundred for a minute."""

from __future__ import annotations

import asyncio

import pytest

from service.commands.spawn import spawn_service
from tests.attacks.goals import require
from tests.attacks.slow import KINDS, measure

pytestmark = pytest.mark.slow


def test_slow_sockets_are_closed_and_an_honest_client_is_served() -> None:
    words = ["--log-level", "error", "--header-timeout-s", "0.5", "--body-timeout-s", "1"]
    with spawn_service(words) as service:
        figures = asyncio.run(measure(service, sockets=20 * len(KINDS), seconds=4, closed_within_s=2.5))
    # Times beside each other on a busy machine say little in four seconds.
    require([one for one in figures if "p99" not in one.goal])
