"""Keys in a form's field: behind a setting, on these paths alone, and never before the memory for bodies is counted."""

from __future__ import annotations

import gzip
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import PICTURE, connect
from tests.service.fakes import FakeSession, make_form, write_keys

pytestmark = pytest.mark.anyio

KEY, OTHER = "uh_right", "uh_other"
DETECTION = "/v1/vision/detection"


class Unread:
    def __aiter__(self) -> Unread:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("the body was read")


def build(settings: Settings, contract: ModelContract, folder: Path, **changes: object) -> FastAPI:
    keys = write_keys(folder / "keys", camera=KEY, door=OTHER)
    return create_app(settings.model_copy(update={"keys": keys, **changes}), Engine(FakeSession(), contract))


@pytest.fixture
async def client(settings: Settings, contract: ModelContract, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = build(settings, contract, tmp_path, deepstack_form_keys=True)
    async with app.router.lifespan_context(app), connect(app) as connected:
        yield connected


async def send(
    client: httpx.AsyncClient, *keys: str, path: str = DETECTION, headers: dict[str, str] | None = None
) -> httpx.Response:
    body, content_type = make_form(image=PICTURE)
    for key in keys:
        more, _ = make_form(api_key=key.encode())
        body = more.removesuffix(b"--xyz--\r\n") + body
    return await client.post(path, content=body, headers={"Content-Type": content_type} | (headers or {}))


def assert_refused(response: httpx.Response) -> None:
    said = response.json()
    assert (response.status_code, said["success"], said["code"]) == (401, False, 401)
    assert response.headers["www-authenticate"] == "Bearer"
    assert "uh_" not in said["error"]


async def test_without_the_setting_the_header_alone_counts(
    settings: Settings, contract: ModelContract, tmp_path: Path
) -> None:
    app = build(settings, contract, tmp_path)
    async with app.router.lifespan_context(app), connect(app) as client:
        assert_refused(await send(client, KEY))
        assert (await send(client, headers={"X-API-Key": KEY})).status_code == 200


async def test_a_key_in_the_form_opens_and_its_id_is_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in (DETECTION, "/v1/vision/scene", "/v1/vision/custom/general"):
        assert (await send(client, KEY, path=path)).status_code == 200
    logged = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "request"]
    assert [fields["key"] for fields in logged] == ["camera"] * 3
    assert "uh_" not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize("keys", [[], [""], ["uh_wrong"], [KEY, KEY], [KEY, "uh_wrong"], ["k" * 256], ["\N{SNOWMAN}"]])
async def test_any_other_key_in_the_form_is_refused(client: httpx.AsyncClient, keys: list[str]) -> None:
    assert_refused(await send(client, *keys))
    assert await count_refused(client) == 1


async def count_refused(client: httpx.AsyncClient) -> float:
    response = await client.get("/metrics", headers={"X-API-Key": KEY})
    lines = response.text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("unihead_unauthorized_requests_total"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "uh_wrong"},
        {"Authorization": "Basic eDp5"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity"},
    ],
    ids=str,
)
async def test_who_brings_a_header_or_no_plain_form_is_refused_before_the_body(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    given = {"Content-Type": "multipart/form-data; boundary=xyz"} | headers
    assert_refused(await client.post(DETECTION, content=Unread(), headers=given))


async def test_a_key_in_a_packed_form_is_not_looked_for(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(image=PICTURE, api_key=KEY.encode())
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
    assert_refused(await client.post(DETECTION, content=gzip.compress(body), headers=headers))
    answered = await client.post(DETECTION, content=gzip.compress(body), headers=headers | {"X-API-Key": KEY})
    assert answered.status_code == 200


async def test_no_other_route_looks_into_forms(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(file=PICTURE, api_key=KEY.encode())
    for path in ("/detect", "/predict", "/v1/vision/custom/list", "/v1/vision/face", "/v2/models/unihead/infer"):
        response = await client.post(path, content=body, headers={"Content-Type": content_type})
        assert response.status_code == 401, path


async def test_who_has_no_key_learns_nothing_of_the_models(client: httpx.AsyncClient) -> None:
    for name in ("unihead", "nothing"):
        assert_refused(await send(client, "uh_wrong", path=f"/v1/vision/custom/{name}"))


async def test_one_key_is_not_told_what_another_has_asked_about(client: httpx.AsyncClient) -> None:
    found = [(await send(client, key)).headers["x-unihead-cache"] for key in (KEY, KEY, OTHER, OTHER)]
    assert found == ["miss", "hit", "miss", "hit"]


async def test_the_body_counts_in_the_budget_before_the_key_is_known(
    settings: Settings, contract: ModelContract, tmp_path: Path
) -> None:
    app = build(settings, contract, tmp_path, deepstack_form_keys=True, max_body_bytes=300)
    async with app.router.lifespan_context(app), connect(app) as small:
        assert (await send(small, "uh_wrong")).status_code == 413


async def test_the_status_needs_no_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/status")).status_code == 200
