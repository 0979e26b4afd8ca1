from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import BrokenSession, FakeSession, encode, make_picture, write_keys

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())
GOOD, KEY = "https://good.example", {"X-API-Key": "uh_right"}
EVIL = [
    "https://evil.example",
    "null",
    "https://good.example.evil.example",
    "http://good.example",
    "https://GOOD.example",
]
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, content-type"}


@pytest.fixture
def listed(settings: Settings, tmp_path: Path) -> Settings:
    keys = write_keys(tmp_path / "keys", phone="uh_right")
    return settings.model_copy(update={"cors_origins": (GOOD, "http://localhost:3000"), "keys": keys})


@pytest.fixture
async def client(listed: Settings, contract: ModelContract) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(listed, Engine(FakeSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as connected:
        yield connected


async def test_by_default_no_page_elsewhere_reads_anything(settings: Settings) -> None:
    async with connect(create_app(settings)) as client:
        for method, path in [("OPTIONS", "/predict"), ("GET", "/healthz"), ("GET", "/"), ("GET", "/nowhere")]:
            response = await client.request(method, path, headers={"Origin": GOOD, **PREFLIGHT})
            assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_a_preflight_of_a_listed_origin_needs_no_key(client: httpx.AsyncClient) -> None:
    for path in ("/predict", "/info", "/v2/models/unihead/infer"):
        response = await client.options(path, headers={"Origin": GOOD, **PREFLIGHT})
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == GOOD
        assert "POST" in response.headers["access-control-allow-methods"]
        assert {"authorization", "x-api-key"} <= set(
            response.headers["access-control-allow-headers"].lower().split(", ")
        )
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"]


@pytest.mark.parametrize("origin", EVIL)
async def test_an_origin_that_is_not_listed_may_neither_ask_nor_read(client: httpx.AsyncClient, origin: str) -> None:
    preflight = await client.options("/predict", headers={"Origin": origin, **PREFLIGHT})
    asked = await client.post("/predict", content=PICTURE, headers={"Origin": origin, **KEY})
    assert (preflight.status_code, asked.status_code) == (400, 403)
    for response in (preflight, asked):
        assert "access-control-allow-origin" not in response.headers


async def test_a_listed_origin_reads_answers_and_errors(client: httpx.AsyncClient) -> None:
    for path, headers, status in [
        ("/predict", KEY, 200),
        ("/predict", {}, 401),
        ("/predict?tasks=tea", KEY, 422),
        ("/nowhere", KEY, 404),
        ("/healthz", KEY, 405),
    ]:
        response = await client.post(path, content=PICTURE, headers={"Origin": GOOD, **headers})
        assert response.status_code == status
        assert response.headers.get_list("access-control-allow-origin") == [GOOD]
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]


async def test_it_reads_that_something_unexpected_has_happened(listed: Settings, contract: ModelContract) -> None:
    app = create_app(listed, Engine(BrokenSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.post("/predict", content=PICTURE, headers={"Origin": GOOD, **KEY})
    assert (response.status_code, response.headers.get_list("access-control-allow-origin")) == (500, [GOOD])


async def test_what_varies_by_more_than_the_origin_says_so(client: httpx.AsyncClient) -> None:
    response = await client.post("/segment", content=PICTURE, headers={"Origin": GOOD, **KEY})
    assert {word.strip() for word in response.headers["vary"].split(",")} == {"Accept", "Origin"}


@pytest.mark.parametrize("origins", ["https://a.example, http://[::1]:3000", "http://localhost:3000", ""])
def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("UNIHEAD_CORS_ORIGINS", origins)
    assert ", ".join(Settings().cors_origins) == origins


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://*.example", "https://a.example/", "a.example", "https://A.example", "ftp://a"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=("https://good.example", origin))
