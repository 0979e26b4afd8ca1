"""Costly pictures and slow readers in reduced size; `make hostile` has 25 megapixels against a service as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.commands.spawn import Spawned, spawn_service
from tests.attacks.goals import require
from tests.attacks.memory import make_costly_pictures, read_slowly, send_costly_pictures
from tests.attacks.watching import look

pytestmark = pytest.mark.slow

# What the process may grow beside the budget: passes, and what the C library keeps.
SLACK_MB = 40


@contextmanager
def serve(memory_bytes: int) -> Iterator[tuple[Spawned, float]]:
    """A service with little memory and many workers, and what it may have resident; in MB."""
    words = ["--log-level", "error", "--cache-max-bytes", "0", "--memory-bytes", str(memory_bytes), "--threads", "4"]
    with spawn_service(words) as service:
        yield service, look(service.pid).memory_mb + memory_bytes / 2**20 + SLACK_MB


def test_costly_pictures_are_decoded_as_memory_allows() -> None:
    """There is room to draw one of them, which takes 101 MB, or to classify two of the cheaper ones."""
    pictures = make_costly_pictures(2000)
    some = {name: pictures[name] for name in ("PNG with alpha, 16 bits", "WebP with alpha", "progressive JPEG")}
    with serve(110_000_000) as (service, bar_mb):
        require(asyncio.run(send_costly_pictures(service, some, bar_mb)))


def test_answers_that_are_read_slowly_stay_within_the_budget() -> None:
    with serve(80_000_000) as (service, bar_mb):
        require(asyncio.run(read_slowly(service, readers=30, seconds=6, side=2000, bar_mb=bar_mb)))
