"""Memory that requests take of the one budget, as the app counts it; the server's part is in tests/service/server."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.types import Message

from service.api.state import ServiceState
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.memory import MemoryBudget
from service.pictures.header import read_header
from service.pictures.limits import estimate_bytes
from service.settings import Settings
from tests.service.clients import connect, count
from tests.service.fakes import SIZE, encode, make_form, make_picture
from tests.service.harness import GatedSession, until

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture(600, 400))
PIXELS = 600 * 400
INFER = "/v2/models/unihead/infer"
DETECTION = "/v1/vision/detection"


@pytest.fixture
def session() -> GatedSession:
    return GatedSession()


@pytest.fixture
def start(session: GatedSession, contract: ModelContract) -> Callable[..., Any]:
    @asynccontextmanager
    async def run(**changes: Any) -> AsyncIterator[tuple[FastAPI, MemoryBudget]]:  # noqa: ANN401 - settings
        app = create_app(Settings(threads=1, max_body_bytes=200_000, **changes), Engine(session, contract, "c0ffee"))
        state: ServiceState = app.state.service
        async with app.router.lifespan_context(app):
            yield app, state.memory
            session.gate.set()

    return run


async def call(app: FastAPI, path: str, body: bytes, send: Callable[[Message], Any]) -> None:
    """Send one request as a server does, and hand each message of the answer to `send`."""
    messages = [{"type": "http.request", "body": body}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path.partition("?")[0],
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"x")],
        "app": app,
        "state": {},
    }

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.sleep(60)
        raise AssertionError("nobody disconnects")

    await app(scope, receive, send)


async def test_a_body_is_counted_until_its_answer_is_made_and_the_answer_until_it_is_sent(
    start: Callable[..., Any], session: GatedSession
) -> None:
    async with start() as (app, memory):
        session.gate.clear()
        may_be_sent, sent = asyncio.Event(), list[Message]()

        async def send(message: Message) -> None:
            await may_be_sent.wait()
            sent.append(message)

        asked = asyncio.create_task(call(app, "/segment?mask=raw", PICTURE, send))
        await until(lambda: session.inside == 1)
        assert memory.taken["bodies"] == len(PICTURE)
        assert memory.taken["answers"] >= PIXELS * 4 / 3
        assert memory.taken["work"] >= estimate_bytes(read_header(PICTURE), SIZE)
        session.gate.set()
        await until(lambda: memory.taken["work"] == 0)
        await until(lambda: memory.taken["bodies"] == 0)
        counted = memory.taken["answers"]
        may_be_sent.set()
        await asked
        assert counted == len(sent[1]["body"])
        assert memory.total() == 0


@pytest.mark.parametrize("path", ["/predict", "/overlay", INFER, DETECTION])
async def test_whatever_becomes_of_a_request_all_is_given_back(
    start: Callable[..., Any], session: GatedSession, path: str
) -> None:
    async with start() as (app, memory), connect(app) as client:
        form, kind = make_form(file=PICTURE)
        for body in (PICTURE, PICTURE[:-100], b"no picture", b"", form, bytes(200_001)):
            headers = {"Content-Type": kind} if body is form else {}
            if path == INFER:
                headers["Inference-Header-Content-Length"] = "0"
            await client.post(path, content=body, headers=headers)
        session.gate.clear()
        gone = asyncio.create_task(client.post(path, content=PICTURE, headers={"Cache-Control": "no-cache"}))
        if path != INFER:
            await until(lambda: session.inside == 1)
            gone.cancel()
        session.gate.set()
        await asyncio.gather(gone, return_exceptions=True)
        await until(lambda: memory.total() == 0)
        assert await count(client, 'unihead_memory_bytes{use="bodies"}') == 0


async def test_a_body_that_does_not_fit_is_refused_with_a_time_to_come_back(start: Callable[..., Any]) -> None:
    async with start() as (app, memory), connect(app) as client:
        memory.hold("bodies").resize(memory.most_bodies - 1000)
        for path in ("/predict", INFER, DETECTION):
            answer = await client.post(path, content=PICTURE)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert await count(client, 'unihead_refused_requests_total{reason="memory"}') == 3
        for path in ("/healthz", "/readyz", "/metrics", "/info", "/v2/health/live"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/predict", content=b"too little to be a picture")).status_code == 415


async def test_a_picture_that_could_never_be_decoded_is_413(start: Callable[..., Any]) -> None:
    async with start(memory_bytes=4_000_000) as (app, memory), connect(app) as client:
        answer = await client.post("/classify", content=PICTURE)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_pixels")
        assert "takes about 7 MB of memory, and the service has 4 MB for one" in answer.json()["detail"]
        answer = await client.post("/classify", content=encode(make_picture(200, 200)))
        assert answer.status_code == 200
        await until(lambda: memory.total() == 0)


async def test_a_picture_waits_for_its_memory_in_the_queue_and_until_its_deadline(start: Callable[..., Any]) -> None:
    async with start() as (app, memory), connect(app) as client:
        full = memory.hold("answers")
        full.resize(memory.limit - 1_000_000)
        late = await client.post("/classify", content=PICTURE, headers={"X-Request-Timeout-Ms": "30"})
        assert (late.status_code, late.json()["code"], late.headers["retry-after"]) == (503, "deadline_exceeded", "1")
        waiting = asyncio.create_task(client.post("/classify", content=PICTURE))
        await asyncio.sleep(0.02)
        assert await count(client, "unihead_queue_images ") == 1
        full.close()
        assert (await waiting).status_code == 200


async def test_answers_of_one_request_take_their_room_in_one_step(start: Callable[..., Any]) -> None:
    async with start(memory_bytes=40_000_000) as (app, memory), connect(app) as client:
        pictures = [encode(Image.new("RGB", (1000, 1000), (number, 0, 0))) for number in range(11)]
        names = [{"name": "mask", "parameters": {"binary_data": True}}]

        def write(count: int) -> tuple[bytes, dict[str, str]]:
            data = b"".join(len(one).to_bytes(4, "little") + one for one in pictures[:count])
            tensor = {"name": "image", "datatype": "BYTES", "shape": [count]}
            head = json.dumps(
                {"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}], "outputs": names}
            ).encode()
            return head + data, {"Inference-Header-Content-Length": str(len(head))}

        body, headers = write(11)
        answer = await client.post(INFER, content=body, headers=headers)
        assert answer.status_code == 413
        assert "the answer would have about 22 MB, and 10 MB are the limit" in answer.json()["error"]
        body, headers = write(1)
        assert (await client.post(INFER, content=body, headers=headers)).status_code == 200
        await until(lambda: memory.total() == 0)


async def test_what_is_unpacked_is_counted_and_reading_it_waits_in_the_queue(
    start: Callable[..., Any], session: GatedSession
) -> None:
    async with start() as (app, memory), connect(app) as client:
        session.gate.clear()
        first = asyncio.create_task(client.post("/classify", content=PICTURE))
        await until(lambda: session.inside == 1)
        packed = gzip.compress(b'{"inputs":[' + b" " * 150_000 + b"]}")
        second = asyncio.create_task(client.post(INFER, content=packed, headers={"Content-Encoding": "gzip"}))
        await asyncio.sleep(0.02)
        assert await count(client, "unihead_queue_images ") == 1
        assert memory.taken["bodies"] == len(PICTURE) + len(packed)
        memory.hold("bodies").resize(memory.most_bodies - len(PICTURE) - len(packed) - 10_000)
        session.gate.set()
        assert (await first).status_code == 200
        assert (await second).status_code == 503


async def test_no_memory_in_the_system_is_503_and_counted(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service.scheduling.pipeline.prepare", fail)
    async with start() as (app, _), connect(app) as client:
        answer = await client.post("/classify", content=PICTURE)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert await count(client, "unihead_memory_errors_total") == 1
