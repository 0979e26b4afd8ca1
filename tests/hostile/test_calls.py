"""The gRPC port under attack, in reduced size; `make hostile` sends five thousand of each kind."""

from __future__ import annotations

import asyncio

import pytest

from tests.attacks.calls import (
    make_bombs,
    make_messages,
    make_odd_streams,
    make_streams,
    send_and_judge,
    send_messages,
    send_streams,
)
from tests.attacks.goals import require
from tests.grpc_service import GrpcSpawned

pytestmark = pytest.mark.slow
# Beside other tests on the same cores; what is stuck takes twice as long.
SLOW_MS = 10_000


def test_broken_messages_each_get_a_status(served_grpc: GrpcSpawned) -> None:
    sending = send_messages(served_grpc, make_messages(500, seed=1))
    require(
        asyncio.run(send_and_judge("500 broken messages (seed 1)", served_grpc, sending, settled=200, slow_ms=SLOW_MS))
    )


def test_broken_streams_each_come_to_an_end(served_grpc: GrpcSpawned) -> None:
    sending = send_streams(served_grpc, make_streams(300, seed=1))
    require(
        asyncio.run(send_and_judge("300 broken streams (seed 1)", served_grpc, sending, settled=100, slow_ms=SLOW_MS))
    )


def test_odd_streams_end_nobody_else(served_grpc: GrpcSpawned) -> None:
    sending = send_streams(served_grpc, make_odd_streams())
    require(asyncio.run(send_and_judge("odd streams", served_grpc, sending, settled=100, slow_ms=SLOW_MS)))


def test_messages_that_would_become_much_are_refused(served_grpc: GrpcSpawned) -> None:
    sending = send_messages(served_grpc, make_bombs())
    require(asyncio.run(send_and_judge("bombs", served_grpc, sending, settled=100, slow_ms=SLOW_MS)))
