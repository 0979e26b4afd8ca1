from __future__ import annotations

import asyncio
import itertools
import json
import logging
import urllib.parse
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path
from starlette.types import Message, Receive

from service.api.gates import find_presented_key
from service.api.scope import find_route_path
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import FakeSession, encode, make_picture, write_keys

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())
KEY, OLD, OTHER = "uh_right", "uh_old", "uh_other"
OPEN = {
    "/", "/static/{path:path}", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready",
    "/v1/status", "/v1/status/ping", "/v1/status/updateavailable",
}  # fmt: skip
BAD_HEADERS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "wrong": [("Authorization", "Bearer uh_wrong")],
    "old": [("Authorization", f"Bearer {OLD}")],
    "empty": [("Authorization", "Bearer ")],
    "empty header": [("Authorization", "")],
    "empty X-API-Key": [("X-API-Key", "")],
    "no scheme": [("Authorization", KEY)],
    "another scheme": [("Authorization", f"Basic {KEY}")],
    "its hash": [("X-API-Key", "0" * 64)],
    "its id": [("X-API-Key", "phone")],
    "shortened": [("X-API-Key", KEY[:-1])],
    "lengthened": [("X-API-Key", f"{KEY}x")],
    "32 KB": [("Authorization", f"Bearer {'k' * 32_768}")],
    "not ASCII": [("X-API-Key", "schl\u00fcssel")],
    "a list": [("Authorization", f"Bearer {KEY}, Bearer {KEY}")],
    "twice the right one": [("Authorization", f"Bearer {KEY}")] * 2,
    "right and wrong": [("X-API-Key", KEY), ("X-API-Key", "uh_wrong")],
    "in both headers": [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)],
    "beside another scheme": [("Authorization", "Basic eDp5"), ("X-API-Key", KEY)],
    "in a cookie": [("Cookie", f"key={KEY}; Authorization=Bearer {KEY}")],
}


@pytest.fixture
async def app(settings: Settings, contract: ModelContract, tmp_path: Path) -> AsyncIterator[FastAPI]:
    keys = write_keys(tmp_path / "keys", first=OLD)
    app = create_app(settings.model_copy(update={"keys": keys}), Engine(FakeSession(), contract, sha256="c0ffee"))
    async with app.router.lifespan_context(app):
        write_keys(keys, phone=KEY, laptop=OTHER)
        await app.state.service.keys.reloader.reload()
        yield app


@pytest.fixture
async def open_app(settings: Settings, contract: ModelContract) -> AsyncIterator[FastAPI]:
    app = create_app(settings, Engine(FakeSession(), contract, sha256="c0ffee"))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app) as connected:
        yield connected


def fill(template: str) -> str:
    return template.replace("{path:path}", "page.css").format(model="unihead", version="1", name="general")


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Method and template of every route."""
    found = [(method, str(route.path)) for route in iter_route_contexts(app.routes) for method in route.methods or ()]
    assert len(found) > 20
    return found


async def never() -> Message:
    raise AssertionError("something was read")


async def quiet() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def ask(
    app: FastAPI, method: str, path: str, headers: Iterable[tuple[str, str]] = (), receive: Receive = never
) -> tuple[int, dict[str, str], bytes]:
    """Ask as a server does that has decoded the path."""
    _, sent = await begin(app, method, path, headers, receive)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:])


async def find_route(app: FastAPI, method: str, path: str) -> str:
    """The template of the route that answers; empty if there is none."""
    scope, _ = await begin(app, method, path, (), quiet)
    return getattr(scope.get("route"), "path", "")


async def begin(
    app: FastAPI,
    method: str,
    path: str,
    headers: Iterable[tuple[str, str]],
    receive: Receive,
    root_path: str = "",
) -> tuple[dict[str, Any], list[Message]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    await app(scope, receive, send)
    return scope, sent


def fields_of_requests(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "request"]


def count(app: FastAPI, name: str, **labels: str) -> float:
    return app.state.service.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
async def test_every_route_but_the_open_ones_refuses_before_the_body(
    app: FastAPI, headers: list[tuple[str, str]]
) -> None:
    walked = [*routes_of(app), ("GET", "/nowhere"), ("POST", "/detect/"), ("GET", "")]
    closed = [(method, fill(path)) for method, path in walked if path not in OPEN]
    assert len(closed) > 15
    for method, path in closed:
        for asked in (method, "HEAD", "OPTIONS", "PUT", "BREW"):
            status, answered, body = await ask(app, asked, path, headers)
            assert status == 401, (asked, path)
            assert answered["www-authenticate"] == "Bearer"
            if path.startswith("/v2"):
                assert set(json.loads(body)) == {"error"}
            elif path.startswith("/v1"):
                assert set(json.loads(body)) == {"success", "error", "code"}
            else:
                problem = json.loads(body)
                assert answered["content-type"] == "application/problem+json"
                assert (problem["code"], problem["request_id"]) == ("unauthorized", answered["x-request-id"])
    for method, path in walked:
        if path in OPEN:
            assert (await ask(app, method, fill(path), headers, quiet))[0] == 200, path


async def test_what_is_open_is_what_is_meant_to_be(app: FastAPI) -> None:
    assert {path for _, path in routes_of(app) if app.state.routes.is_open(fill(path))} == OPEN


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Authorization": f"Bearer {KEY}"}, "phone"),
        ({"Authorization": f"bearer   {KEY}"}, "phone"),
        ({"X-API-Key": KEY}, "phone"),
        ({"X-API-Key": OTHER}, "laptop"),
        ({"X-API-Key": f"  {KEY}   "}, "phone"),
        ({"X-API-Key": f"{KEY}\t"}, "phone"),
        ({"Authorization": f"Bearer {KEY} \t"}, "phone"),
    ],
)
async def test_a_key_in_force_opens_and_its_id_is_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, headers: dict[str, str], name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    for method, path in [("POST", "/predict"), ("GET", "/info"), ("GET", "/metrics"), ("GET", "/docs")]:
        response = await client.request(method, path, headers=headers, content=PICTURE if method == "POST" else None)
        assert response.status_code == 200
    assert (await client.get("/nowhere", headers=headers)).status_code == 404
    assert [fields.get("key") for fields in fields_of_requests(caplog)] == [name] * 5
    assert "uh_" not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize(
    ("shared", "results"), [(False, ["miss", "hit", "miss", "hit"]), (True, ["miss"] + ["hit"] * 3)]
)
async def test_one_key_is_not_told_what_another_has_asked_about(
    settings: Settings, contract: ModelContract, tmp_path: Path, shared: bool, results: list[str]
) -> None:
    keys = write_keys(tmp_path / "keys", phone=KEY, laptop=OTHER)
    session = FakeSession()
    app = create_app(
        settings.model_copy(update={"keys": keys, "share_across_keys": shared}), Engine(session, contract, "c0ffee")
    )
    async with app.router.lifespan_context(app), connect(app) as client:
        warm, found = session.passes, []
        for key in (KEY, KEY, OTHER, OTHER):
            response = await client.post("/classify", content=PICTURE, headers={"X-API-Key": key})
            found.append(response.headers["x-unihead-cache"])
    assert found == results
    assert session.passes - warm == results.count("miss")


async def test_who_needs_no_key_and_who_has_none_in_force_are_logged_without_one(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await client.get("/healthz", headers={"X-API-Key": KEY})
    await client.get("/info", headers={"X-API-Key": "uh_wrong"})
    opened, refused = fields_of_requests(caplog)
    assert "key" not in opened
    assert ("key" not in refused, refused["code"]) == (True, "unauthorized")
    assert "uh_" not in str([record.__dict__ for record in caplog.records])


async def test_refusals_are_counted_by_route_template(app: FastAPI, client: httpx.AsyncClient) -> None:
    await client.post("/detect", content=PICTURE)
    await client.post("/v2/models/anything/infer")
    await client.get("/scan/1")
    await client.get("/healthz")
    await client.get("/info", headers={"X-API-Key": KEY})
    assert count(app, "unihead_unauthorized_requests_total") == 3.0
    for method, route in [("POST", "/detect"), ("POST", "/v2/models/{model}/infer"), ("GET", "unmatched")]:
        labels = {"method": method, "route": route, "status": "401", "protocol": "http"}
        assert count(app, "unihead_http_requests_total", **labels) == 1.0


TRICKS = [
    "//healthz", "/healthz/", "/HEALTHZ", "/Healthz", "/healthz/../predict", "/healthz/../info", "/healthz;/predict",
    "/./healthz", "/predict/../healthz", "/readyz/../predict", "/static", "/static/../predict", "/static/../info",
    "/static//predict", "/static/..", "/static/", "/STATIC/page.css", "//static/page.css", "/statics/x", "/%2e/healthz",
    "/static/%2e%2e/predict", "/static/..%2fpredict", "/static%2f..%2fpredict", "/static/..\\..\\predict",
    "/%68ealthz", "/health%7a", "/healthz%00", "/healthz%20", "/healthz%0a", "/predict%00/healthz", "/predict/",
    "/predict#/healthz", "/v2/health/live/../../models/unihead", "/v2/health", "/v2/health/live/", "/", "//", "/.",
    "/%2f", "", "*", "http://unihead/healthz",
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
async def test_no_spelling_of_a_path_opens_what_is_closed(app: FastAPI, open_app: FastAPI, path: str) -> None:
    for spelled in {path, urllib.parse.unquote(path)}:
        for method in ("GET", "HEAD"):
            status, _, _ = await ask(app, method, spelled, (), quiet)
            assert status == 401 or await find_route(open_app, method, spelled) in OPEN


async def test_the_oracle_of_spellings_sees_routes(open_app: FastAPI) -> None:
    assert await find_route(open_app, "GET", "/info") == "/info"
    assert await find_route(open_app, "GET", "/static/../info") == "/static/{path:path}"
    assert await find_route(open_app, "GET", "//info") == ""


async def test_nothing_but_shipped_files_lies_in_the_open_folder(app: FastAPI) -> None:
    closed = {fill(path) for _, path in routes_of(app) if path not in OPEN}
    for path, climb in itertools.product(closed, ["..", "../..", "x/../..", ".", "/"]):
        status, _, _ = await ask(app, "GET", f"/static/{climb}{path}")
        assert status == 404


@pytest.mark.parametrize("prefix", ["/api", "/static", "/healthz", "/static/x"])
async def test_under_a_prefix_the_router_and_the_door_see_the_same_path(app: FastAPI, prefix: str) -> None:
    for path in ("/predict", "/info", "/healthz/../info", "//static/../info", "", "/docs"):
        _, sent = await begin(app, "POST", f"{prefix}{path}", (), never, prefix)
        assert sent[0]["status"] == 401
    for path in ("/healthz", "/static/page.css"):
        _, sent = await begin(app, "GET", f"{prefix}{path}", (), quiet, prefix)
        assert sent[0]["status"] == 200


@given(st.sampled_from(["", "/", "/a", "/a/", "/static"]), st.text("/ab.", max_size=6))
def test_paths_are_cut_as_the_router_cuts_them(prefix: str, path: str) -> None:
    for whole in (path, prefix + path):
        scope = {"type": "http", "path": whole, "root_path": prefix}
        assert find_route_path(scope) == get_route_path(scope)


async def test_websockets_are_closed(app: FastAPI) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for path in ("/predict", "/healthz"):
        await app({"type": "websocket", "path": path, "headers": []}, never, send)
    assert [message["type"] for message in sent] == ["websocket.close"] * 2


async def test_before_the_start_nobody_comes_in(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"keys": write_keys(tmp_path / "keys", phone=KEY)}))
    async with connect(app) as client:
        assert (await client.get("/info", headers={"X-API-Key": KEY})).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


async def test_without_a_key_file_everybody_is_answered(settings: Settings, contract: ModelContract) -> None:
    app = create_app(settings, Engine(FakeSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        for headers in ({}, {"X-API-Key": "uh_whatever"}, {"Authorization": "Basic eDp5"}):
            assert (await client.post("/predict", content=PICTURE, headers=headers)).status_code == 200
        assert (await client.get("/info")).json()["keys"] is None


async def test_info_tells_how_many_keys_there_are_and_how_they_were_read(client: httpx.AsyncClient) -> None:
    text = (await client.get("/info", headers={"X-API-Key": KEY})).json()
    assert text["keys"]["in_force"] == 2
    assert {name: text["keys"]["last_reload"][name] for name in ("number", "outcome", "reason")} == {
        "number": 1, "outcome": "swapped", "reason": "",
    }  # fmt: skip


def test_several_headers_present_no_key() -> None:
    assert find_presented_key([(b"x-api-key", b"a"), (b"accept", b"*/*")]) == b"a"
    assert find_presented_key([(b"authorization", b"BEARER a b ")]) == b"a b"
    assert find_presented_key([(b"authorization", b"Digest a"), (b"x-api-key", b"a")]) is None
    assert find_presented_key([]) is None


async def test_the_description_says_which_operations_need_a_key(app: FastAPI, settings: Settings) -> None:
    for _ in range(2):
        document = app.openapi()
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        needing = {
            path
            for path, operations in document["paths"].items()
            for operation in operations.values()
            if operation.get("security", document["security"]) and "401" in operation["responses"]
        }
        assert set(document["paths"]) - needing == OPEN & set(document["paths"])
    (media,) = document["paths"]["/detect"]["post"]["responses"]["401"]["content"]
    (oip_media,) = document["paths"]["/v2/models/{model}"]["get"]["responses"]["401"]["content"]
    assert (media, oip_media) == ("application/problem+json", "application/json")
    open_to_all = create_app(settings).openapi()
    assert "security" not in open_to_all
    assert "401" not in open_to_all["paths"]["/predict"]["post"]["responses"]
