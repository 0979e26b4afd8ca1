from __future__ import annotations

import asyncio
import math
import statistics
import time

import httpx
import pytest

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.attacks.bombs import scan_bomb
from tests.service.clients import connect, count
from tests.service.fakes import FakeSession, encode, make_picture

pytestmark = pytest.mark.anyio

# What refuses a bomb by its header is switched off, so that it comes as far as a decoder.
OPEN_DOORS = Settings(threads=2, max_scans=10_000, max_scan_megapixels=10**9)
DEADLINE_S = 2.0


async def send(client: httpx.AsyncClient, body: bytes, timeout_s: float = 10) -> tuple[httpx.Response, float]:
    """Ask about a picture; returns the answer and the seconds that it took."""
    started = time.monotonic()
    headers = {"X-Request-Timeout-Ms": str(round(timeout_s * 1000))}
    response = await client.post("/classify", content=body, headers=headers)
    return response, time.monotonic() - started


@pytest.mark.parametrize("bombs", [1, 2, 5])
async def test_pictures_that_hang_a_decoder_end_at_their_deadline_and_others_are_answered_meanwhile(
    bombs: int, contract: ModelContract
) -> None:
    bodies = [scan_bomb(2400 + number, 2400, repeats=1500) for number in range(bombs)]
    waits_s: list[float] = []
    app = create_app(OPEN_DOORS, Engine(FakeSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        pending = [asyncio.create_task(send(client, body, DEADLINE_S)) for body in bodies]
        while not all(task.done() for task in pending):
            response, took_s = await send(client, encode(make_picture(seed=len(waits_s))))
            assert response.status_code == 200
            waits_s.append(took_s)
        bombed = await asyncio.gather(*pending)
        # Of five bombs two hang both workers, the next two hang those that replace them, and the last one may be late.
        assert min(bombs, 3) <= await count(client, "unihead_stuck_workers") <= bombs
        assert min(bombs, 2) <= await count(client, "unihead_stuck_images_total") <= bombs
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 2, "stopping waits for nothing that is stuck"
    assert {(response.status_code, response.json()["code"]) for response, _ in bombed} == {(503, "deadline_exceeded")}
    assert all(DEADLINE_S - 0.1 < took_s < DEADLINE_S + 1 for _, took_s in bombed)
    # A second until a worker is replaced, and up to a quarter of one until somebody looks.
    assert max(waits_s) < 1 + 1.25 * math.ceil(bombs / 2)
    if bombs <= OPEN_DOORS.workers:
        assert len(waits_s) > 20
        assert statistics.median(waits_s) < 0.1
