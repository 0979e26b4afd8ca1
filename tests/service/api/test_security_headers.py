from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser

import httpx
import pytest

from service.api.status import WEB
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import BrokenSession, encode, make_picture

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())
NOTHING = {"default-src": ["'none'"], "frame-ancestors": ["'none'"]}


def policy_of(headers: Mapping[str, str]) -> dict[str, list[str]]:
    words = [directive.split() for directive in headers["content-security-policy"].split(";")]
    assert len({name for name, *_ in words}) == len(words)
    return {name: sources for name, *sources in words}


def check_headers(response: httpx.Response, cache: str) -> None:
    for name, value in {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "cache-control": cache,
    }.items():
        assert response.headers.get_list(name) == [value]
    assert len(response.headers.get_list("content-security-policy")) == 1
    assert policy_of(response.headers)["frame-ancestors"] == ["'none'"]
    assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict", 200),
        ("POST", "/segment", 200),
        ("POST", "/predict?tasks=tea", 422),
        ("GET", "/predict", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/info", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v2/models/unihead", 200),
        ("POST", "/v2/models/unihead/infer", 400),
    ],
)
async def test_answers_are_nobodys_to_keep_sniff_or_frame(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    for accept in ("*/*", "image/png"):
        response = await client.request(method, path, content=PICTURE, headers={"Accept": accept})
        assert response.status_code == status
        check_headers(response, "no-store")
        assert policy_of(response.headers) == NOTHING


async def test_an_answer_to_the_unexpected_has_them_too(settings: Settings, contract: ModelContract) -> None:
    app = create_app(settings, Engine(BrokenSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.post("/predict", content=PICTURE)
    assert response.status_code == 500
    check_headers(response, "no-store")


async def test_files_may_be_kept_as_long_as_they_are_asked_for_again(client: httpx.AsyncClient) -> None:
    for path, status in [("/static/page.css", 200), ("/static/docs.js", 200), ("/static/nothing.js", 404)]:
        response = await client.get(path)
        assert response.status_code == status
        check_headers(response, "no-cache")
    etag = (await client.get("/static/page.css")).headers["etag"]
    response = await client.get("/static/page.css", headers={"If-None-Match": etag})
    assert response.status_code == 304
    check_headers(response, "no-cache")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_what_is_ours_and_send_nothing_elsewhere(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    check_headers(response, "no-cache")
    policy = policy_of(response.headers)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["img-src"] == ["'self'", "blob:", "data:"]
    assert "http:" not in response.headers["content-security-policy"]


class Inline(HTMLParser):
    """Finds what a policy without 'unsafe-inline' switches off."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(tag)
        self.found += [name for name in given if name == "style" or name.startswith("on")]
        self.found += [str(value) for value in given.values() if str(value).startswith("javascript:")]


def test_what_is_inline_is_found() -> None:
    assert Inline('<script>1</script><p style="x" onclick="y"><a href="javascript:z">').found == [
        "script", "style", "onclick", "javascript:z",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [path.name for path in sorted(WEB.glob("*.html"))])
def test_no_page_has_anything_inline(name: str) -> None:
    assert Inline((WEB / name).read_text()).found == []


def test_no_stylesheet_of_ours_loads_anything() -> None:
    for path in WEB.glob("*.css"):
        assert not re.search(r"url\(|@import", path.read_text())
