"""Many clients, few pictures, three tasks: as many forward passes as pictures, and everybody gets the right answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.commands.spawn import Spawned, spawn_service
from tests.outside import choose_size

GOLDEN = sorted((Path(__file__).parents[2] / "service" / "models" / "golden").glob("*.jpg"))
TASKS = ("segment", "detect", "classify")

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def service() -> Iterator[Spawned]:
    # The long walk takes minutes, and no picture's answer may expire on the way: it would cost a second pass.
    limits = ["--queue-limit", "500", "--request-timeout-ms", "600000", "--cache-max-age-s", "3600"]
    with spawn_service([*limits, "--log-level", "warning"]) as service:
        yield service


def make_pictures(count: int) -> list[bytes]:
    """Cut `count` different pieces out of the shipped pictures."""
    rng, pictures = np.random.default_rng(0), []
    for i in range(count):
        with Image.open(GOLDEN[i % len(GOLDEN)]) as picture:
            left, top = (int(rng.integers(0, side // 3)) for side in picture.size)
            file = io.BytesIO()
            picture.crop((left, top, left + picture.width // 2, top + picture.height // 2)).save(file, "JPEG")
        pictures.append(file.getvalue())
    return pictures


async def ask(client: httpx.AsyncClient, task: str, body: bytes, **headers: str) -> dict[str, Any]:
    response = await client.post(f"/{task}", content=body, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    del answer["timing_ms"]
    return answer


async def passes(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("unihead_forward_passes_total "))


@pytest.mark.parametrize(
    ("clients", "pictures"),
    [(20, 10), pytest.param(200, choose_size(50, 20), marks=[pytest.mark.full, pytest.mark.timeout(1800)])],
)
async def test_all_clients_get_the_answers_of_one_by_one_for_one_pass_a_picture(
    service: Spawned, clients: int, pictures: int
) -> None:
    bodies = make_pictures(pictures)
    limits = httpx.Limits(max_connections=clients)
    url = f"http://{service.host}:{service.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=3600) as client:
        alone = {
            (task, i): await ask(client, task, body, **{"Cache-Control": "no-cache"})
            for i, body in enumerate(bodies)
            for task in TASKS
        }
        before = await passes(client)
        assert before == 3 * pictures

        async def walk(number: int) -> None:
            questions = [(task, i) for i in range(pictures) for task in TASKS]
            for place in np.random.default_rng(number).permutation(len(questions)).tolist():
                task, i = questions[place]
                assert await ask(client, task, bodies[i]) == alone[task, i]

        await asyncio.gather(*map(walk, range(clients)))
        assert await passes(client) - before == pictures
