"""Bodies in a content coding are pictures and forms like any other, counted as they are unpacked, in the queue."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from tests.service.clients import PICTURE, ask, refuse
from tests.service.fakes import make_form

pytestmark = pytest.mark.anyio

ROUTES = ["/segment", "/detect", "/classify", "/predict"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("packing", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_packed_picture_gets_what_it_gets_unpacked(
    client: httpx.AsyncClient, path: str, packing: str, pack: Callable[[bytes], bytes]
) -> None:
    packed, plain = await ask(client, path, pack(PICTURE), Content_Encoding=packing), await ask(client, path)
    del packed["timing_ms"], plain["timing_ms"]
    assert packed == plain


async def test_a_packed_drawing_too(client: httpx.AsyncClient) -> None:
    headers = {"Content-Encoding": "gzip"}
    drawn = await client.post("/overlay", content=gzip.compress(PICTURE), headers=headers)
    assert drawn.headers["content-type"] == "image/jpeg"


async def test_a_packed_form_has_its_pictures_and_its_fields(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(file=PICTURE, top_k=b"1")
    headers = {"Content_Type": content_type, "Content_Encoding": "gzip"}
    assert len((await ask(client, "/classify", gzip.compress(body), **headers))["classes"]) == 1


@pytest.mark.parametrize("path", [*ROUTES, "/overlay"])
async def test_what_comes_out_has_the_limit_of_a_body(client: httpx.AsyncClient, path: str) -> None:
    bomb = gzip.compress(bytes(10**7))
    detail = await refuse(client, path, bomb, 413, "body_too_large", Content_Encoding="gzip")
    assert "200000 bytes when unpacked" in detail


@pytest.mark.parametrize(
    ("body", "packing"),
    [(PICTURE, "gzip"), (gzip.compress(PICTURE)[:-1], "gzip"), (PICTURE, "br"), (PICTURE, "gzip, gzip")],
)
async def test_other_codings_and_damaged_ones_are_refused(client: httpx.AsyncClient, body: bytes, packing: str) -> None:
    await refuse(client, "/predict", body, 400, "malformed_request", Content_Encoding=packing)


async def test_they_wait_in_the_queue_and_are_refused_where_it_is_full(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = app.state.service.scheduler._admission
    monkeypatch.setattr(admission, "limit", 0)
    inference = gzip.compress(b'{"inputs":[]}')
    for path, body in (("/classify", gzip.compress(PICTURE)), ("/v2/models/unihead/infer", inference)):
        response = await client.post(path, content=body, headers={"Content-Encoding": "gzip"})
        assert response.status_code == 503
        assert "retry-after" in response.headers


async def test_bytes_that_come_out_count_for_all_bodies(client: httpx.AsyncClient, app: FastAPI) -> None:
    memory = app.state.service.memory
    others = memory.hold("bodies")
    others.resize(memory.most_bodies - 100_000)
    await refuse(client, "/classify", gzip.compress(bytes(150_000)), 503, "overloaded", Content_Encoding="gzip")
    others.close()
    assert memory.taken["bodies"] == 0
