from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.pictures.imaging import UInt8Array
from service.settings import Settings
from tests.service.clients import PICTURE, ask, connect, count
from tests.service.fakes import FakeSession, encode, make_form, make_picture
from tests.service.harness import until

pytestmark = pytest.mark.anyio


class GatedSession(FakeSession):
    """Warms up, then holds every pass until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        if self.passes >= 2:
            assert self.gate.wait(10)
        return super().run(images)


async def test_the_header_says_where_the_pass_came_from_and_the_bodies_differ_in_their_timing_only(
    client: httpx.AsyncClient, session: FakeSession
) -> None:
    warm = session.passes
    answers = []
    for headers, expected in (({}, "miss"), ({}, "hit"), ({"Cache-Control": "max-age=0, No-Cache"}, "bypass")):
        response = await client.post("/predict", content=PICTURE, headers=headers)
        assert response.headers["x-unihead-cache"] == expected
        answers.append(response.json())
        assert await count(client, f'unihead_cache_requests_total{{result="{expected}"}}') == 1.0
    told = [answer.pop("timing_ms") for answer in answers]
    assert answers[0] == answers[1] == answers[2]
    assert set(told[1]) == {"queue", "postprocess", "encode", "total"}  # no pass, so no time of one
    assert session.passes == warm + 2


async def test_a_form_and_a_raw_body_of_one_picture_share_its_pass(client: httpx.AsyncClient) -> None:
    form, content_type = make_form(file=PICTURE)
    await ask(client, "/detect")
    response = await client.post("/segment", content=form, headers={"Content-Type": content_type})
    assert response.headers["x-unihead-cache"] == "hit"


@pytest.mark.parametrize("header", ["0", "-5", "soon", "1.5", "600001", "9" * 400, "\u00b2"])
async def test_a_timeout_that_is_none_is_refused(client: httpx.AsyncClient, header: str) -> None:
    response = await client.post(
        "/detect", content=PICTURE, headers=[(b"x-request-timeout-ms", header.encode("latin-1"))]
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


async def test_what_takes_longer_than_the_client_allows_is_503_with_a_time_to_come_back(
    contract: ModelContract, settings: Settings
) -> None:
    session = GatedSession()
    app = create_app(settings, Engine(session, contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.post("/detect", content=PICTURE, headers={"X-Request-Timeout-Ms": "30"})
        session.gate.set()
    assert (response.status_code, response.json()["code"]) == (503, "deadline_exceeded")
    assert response.headers["retry-after"] == "1"


async def test_a_full_queue_is_503_with_a_time_to_come_back_and_health_answers_meanwhile(
    contract: ModelContract,
) -> None:
    session = GatedSession()
    app = create_app(Settings(threads=1, queue_limit=1), Engine(session, contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        bodies = [encode(make_picture(seed=seed)) for seed in range(6)]
        registry = app.state.service.metrics.registry
        pending = [asyncio.create_task(client.post("/detect", content=bodies[0]))]
        await until(lambda: registry.get_sample_value("unihead_worker_images") == 1.0)  # it waits no more
        pending += [asyncio.create_task(client.post("/detect", content=body)) for body in bodies[1:]]
        await until(lambda: sum(task.done() for task in pending) == 4)  # all have asked
        assert (await client.get("/healthz")).status_code == 200
        assert await count(client, "unihead_queue_limit_images") == 1.0
        session.gate.set()
        answers = [await task for task in pending]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["code"] for answer in refused} == {"overloaded"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


async def test_the_documentation_names_both_headers(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/segment", "/detect", "/classify", "/predict"):
        named = {parameter["name"] for parameter in paths[path]["post"]["parameters"]}
        assert {"X-Request-Timeout-Ms", "Cache-Control"} <= named
    assert {"score_threshold", "max_detections"} <= {item["name"] for item in paths["/detect"]["post"]["parameters"]}
