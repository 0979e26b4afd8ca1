"""Several pictures in one form to /predict: each has the answer, or the problem, that it would have alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.pictures.imaging import UInt8Array
from service.settings import Settings
from tests.service.clients import PICTURE, connect, count
from tests.service.fakes import FakeSession, encode, make_picture
from tests.service.harness import GatedSession, body_of, until

pytestmark = pytest.mark.anyio

GIF = b"GIF89a" + bytes(20)


async def send(client: httpx.AsyncClient, pictures: list[bytes], query: str = "", **headers: str) -> httpx.Response:
    files = [("file", (f"{i}.jpg", picture)) for i, picture in enumerate(pictures)]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"/predict{query}", files=files, headers=named)


def without_timing(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timing_ms"}


async def test_each_picture_has_the_answer_that_it_has_alone_in_their_order(client: httpx.AsyncClient) -> None:
    pictures = [encode(make_picture(30 + i, 40, seed=i), kind) for i, kind in enumerate(("JPEG", "PNG", "WEBP"))]
    response = await send(client, pictures, "?mask=rle&score_threshold=0.5&top_k=2")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answers = response.json()
    assert [answer["image"]["width"] for answer in answers] == [30, 31, 32]
    for picture, answer in zip(pictures, answers, strict=True):
        alone = await client.post("/predict?mask=rle&score_threshold=0.5&top_k=2", content=picture)
        assert alone.headers["x-unihead-cache"] == "hit"
        assert without_timing(answer) == without_timing(alone.json())
        assert answer["timing_ms"]["total"] > 0


async def test_one_picture_is_an_object_as_ever(client: httpx.AsyncClient) -> None:
    answer = (await send(client, [PICTURE])).json()
    assert without_timing(answer) == without_timing((await client.post("/predict", content=PICTURE)).json())


async def test_a_picture_with_a_problem_fails_no_other(client: httpx.AsyncClient) -> None:
    pictures = [PICTURE, GIF, b"", PICTURE[:300], encode(Image.new("L", (501, 500))), encode(make_picture())]
    response = await send(client, pictures, X_Request_ID="mine")
    assert response.status_code == 200
    items = response.json()
    assert ["image" in item for item in items] == [True, False, False, False, False, True]
    assert [(item["status"], item["code"]) for item in items[1:-1]] == [
        (415, "unsupported_image"),
        (400, "empty_body"),
        (422, "damaged_image"),
        (413, "too_many_pixels"),
    ]
    for picture, item in zip(pictures[1:-1], items[1:-1], strict=True):
        alone = (await client.post("/predict", content=picture, headers={"X-Request-ID": "mine"})).json()
        assert item == alone
    assert response.headers["x-unihead-cache"] == "miss, error, error, error, error, miss"
    assert await count(client, "unihead_forward_passes_total") == 2.0
    assert await count(client, "unihead_images_in_flight") == 0.0


async def test_where_all_have_problems_there_are_no_timings(client: httpx.AsyncClient) -> None:
    response = await send(client, [GIF, GIF])
    assert (response.status_code, [item["code"] for item in response.json()]) == (200, ["unsupported_image"] * 2)
    assert "server-timing" not in response.headers


async def test_passes_and_pictures_are_counted_one_by_one(settings: Settings, contract: ModelContract) -> None:
    session = GatedSession()
    app = create_app(settings, Engine(session, contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        warm, registry = session.passes, app.state.service.metrics.registry
        await client.post("/detect", content=body_of(0))
        session.gate.clear()  # else the first of two equal pictures may be answered before the second is asked about
        sending = asyncio.ensure_future(send(client, [body_of(0), body_of(1), body_of(2), body_of(1)]))
        coalesced = {"result": "coalesced"}
        await until(lambda: registry.get_sample_value("unihead_cache_requests_total", coalesced) == 1.0)
        session.gate.set()
        response = await sending
        results = response.headers["x-unihead-cache"].split(", ")
        assert results == ["hit", "miss", "miss", "coalesced"]
        assert session.passes == warm + 3
        for result, number in (("hit", 1.0), ("miss", 3.0), ("coalesced", 1.0)):
            assert await count(client, f'unihead_cache_requests_total{{result="{result}"}}') == number
        assert await count(client, 'unihead_ms_per_image_count{stage="total",task="predict"}') == 4.0
        assert await count(client, 'unihead_ms_per_image_count{stage="forward",task="shared"}') == 3.0
        assert (
            await count(
                client, 'unihead_http_requests_total{method="POST",protocol="http",route="/predict",status="200"}'
            )
            == 1.0
        )
        fresh = await send(client, [body_of(0), body_of(1)], Cache_Control="no-cache")
        assert fresh.headers["x-unihead-cache"] == "bypass, bypass"


async def test_server_timing_is_that_of_the_slowest(client: httpx.AsyncClient) -> None:
    response = await send(client, [body_of(seed) for seed in range(5)])
    entries = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    assert float(entries["total"]) >= max(item["timing_ms"]["total"] for item in response.json())


@pytest.mark.parametrize(
    ("pictures", "query", "status", "message"),
    [
        ([GIF] * 17, "", 400, "17 fields named `file`; send 1 to 16 pictures"),
        ([PICTURE, PICTURE], "?mask=raw", 422, "mask=raw is for one picture"),
        ([PICTURE, PICTURE], "?top_k=0", 422, "'top_k' is '0'"),
        ([bytes(100_000), bytes(100_000)], "", 413, "more than 200000 bytes"),
        ([b""], "", 400, "has no bytes"),
        ([GIF], "", 415, "GIF"),
    ],
)
async def test_what_is_wrong_with_the_request_fails_all_of_it(
    client: httpx.AsyncClient, pictures: list[bytes], query: str, status: int, message: str
) -> None:
    response = await send(client, pictures, query)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert message in response.json()["detail"]


@pytest.mark.parametrize("path", ["/segment", "/detect", "/classify", "/overlay"])
async def test_the_other_paths_take_one_picture(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, files=[("file", PICTURE), ("file", PICTURE)])
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert "send exactly one picture" in response.json()["detail"]


async def test_raw_ids_of_one_picture_are_given_still(client: httpx.AsyncClient) -> None:
    assert (await send(client, [PICTURE], "?mask=raw")).json()["mask"]["encoding"] == "raw"


async def test_how_many_there_may_be_is_a_setting(session: FakeSession, contract: ModelContract) -> None:
    app = create_app(Settings(max_files=2, threads=1), Engine(session, contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert len((await send(client, [GIF] * 2)).json()) == 2
        assert "send 1 to 2 pictures" in (await send(client, [GIF] * 3)).json()["detail"]
        assert (await client.get("/info")).json()["limits"]["max_files"] == 2


async def test_pictures_that_find_no_place_in_the_queue_are_told_when_to_come_back(contract: ModelContract) -> None:
    session = GatedSession()
    app = create_app(Settings(threads=1, queue_limit=2), Engine(session, contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        session.gate.clear()
        pending = asyncio.create_task(send(client, [body_of(seed) for seed in range(6)]))
        await until(lambda: session.inside == 1)
        assert await count(client, "unihead_queue_images") >= 1.0
        session.gate.set()
        items = (await pending).json()
        refused = [item for item in items if "status" in item]
        assert len(refused) in {3, 4}  # the worker may have taken the first before the last one came
        assert {(item["status"], item["code"]) for item in refused} == {(503, "overloaded")}
        assert all(item["retry_after_s"] >= 1 for item in refused)
        assert await count(client, "unihead_forward_passes_total") == 6 - len(refused)
        assert await count(client, 'unihead_refused_requests_total{reason="queue_full"}') == len(refused)


async def test_what_nobody_foresaw_about_one_picture_is_its_problem_and_a_line_of_the_log(
    contract: ModelContract, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            if (images[0, 0, 0] == (255, 0, 0)).all():
                raise RuntimeError("secret: /home/somebody/model.onnx")
            return super().run(images)

    app = create_app(Settings(threads=1), Engine(Fragile(), contract))
    red = encode(np.full((9, 9, 3), (255, 0, 0), dtype=np.uint8))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await send(client, [PICTURE, red, body_of(1)], X_Request_ID="mine")
        assert await count(client, "unihead_images_in_flight") == 0.0
    one, failed, other = response.json()
    assert "image" in one
    assert "image" in other
    assert (failed["status"], failed["code"], failed["request_id"]) == (500, "internal_error", "mine")
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "mine" in record.getMessage()
    assert record.exc_info is not None


async def test_a_model_that_says_what_cannot_be_true_of_one_picture_answers_about_the_others(
    contract: ModelContract,
) -> None:
    class Doubtful(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            outputs = dict(super().run(images))
            if (images[0, 0, 0] == (255, 0, 0)).all():
                outputs["class_probs"] = np.full_like(outputs["class_probs"], np.nan)
            return outputs

    app = create_app(Settings(threads=1), Engine(Doubtful(), contract))
    red = encode(np.full((9, 9, 3), (255, 0, 0), dtype=np.uint8))
    async with app.router.lifespan_context(app), connect(app) as client:
        items = (await send(client, [red, PICTURE])).json()
    assert (items[0]["status"], items[0]["code"]) == (500, "model_output_invalid")
    assert "image" in items[1]


async def test_the_documentation_shows_both_shapes(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/predict"]["post"]
    one, many = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert one == {"$ref": "#/components/schemas/PredictResponse"}
    assert many["items"]["anyOf"] == [one, {"$ref": "#/components/schemas/Problem"}]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["type"] == "array"
