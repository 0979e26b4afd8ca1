"""HEAD is answered wherever GET is, with the same status and headers and without content."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from tests.service.clients import PICTURE

pytestmark = pytest.mark.anyio

# What changes from one answer to the next.
_VARYING = {"x-request-id", "content-length"}
PARTS = {"{model}": "unihead", "{version}": "1", "{path:path}": "page.css"}


def list_paths(app: FastAPI) -> list[str]:
    table = app.state.routes
    routes = [*table._fixed.values(), *table._patterns]
    found = sorted({route.path for route in routes if "GET" in route.methods})
    for part, word in PARTS.items():
        found = [path.replace(part, word) for path in found]
    return found


async def test_every_route_that_takes_get_takes_head(app: FastAPI, client: httpx.AsyncClient) -> None:
    paths = list_paths(app)
    assert {"/", "/healthz", "/info", "/metrics", "/docs", "/v2", "/v2/models/unihead/stats"} <= set(paths)
    for path in paths:
        got, head = await client.get(path), await client.head(path)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        assert {**head.headers, **dict.fromkeys(_VARYING)} == {**got.headers, **dict.fromkeys(_VARYING)}, path
        assert head.headers["content-length"] != "0", path


async def test_what_takes_no_get_takes_no_head(client: httpx.AsyncClient) -> None:
    response = await client.head("/predict")
    assert (response.status_code, response.content) == (405, b"")
    assert (await client.head("/nothing")).status_code == 404


async def test_it_is_counted_as_what_it_was(client: httpx.AsyncClient) -> None:
    await client.head("/healthz")
    text = (await client.get("/metrics")).text
    assert 'unihead_http_requests_total{method="HEAD",protocol="http",route="/healthz",status="200"} 1.0' in text


async def test_a_post_is_none(client: httpx.AsyncClient) -> None:
    assert (await client.post("/classify", content=PICTURE)).content
