from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from service.api.source import is_known_host, is_local_name, is_own_page
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import PICTURE, connect
from tests.service.fakes import FakeSession

LOOPBACK = ("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        *(
            (name, True)
            for name in ("", "localhost", "app.localhost", "unihead", "x", "127.0.0.1", "10.1.2.3", "127.1")
        ),
        *((name, True) for name in ("[::1]", "[fe80::1]")),
        *((name, False) for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a.local")),
    ],
)
def test_nobody_can_own_a_local_name(name: str, is_local: bool) -> None:
    assert is_local_name(name) == is_local


@pytest.mark.parametrize(
    ("host", "allowed", "is_known"),
    [
        ("evil.example", (), True),
        ("evil.example", ("*",), True),
        ("evil.example:8000", LOOPBACK, False),
        ("LOCALHOST:8000", LOOPBACK, True),
        ("localhost.", LOOPBACK, True),
        ("evil.example.", LOOPBACK, False),
        ("[::1]", LOOPBACK, True),
        ("[::1]:8000", LOOPBACK, True),
        ("", LOOPBACK, True),
        ("example.org:443", ("example.org",), True),
        ("Example.ORG.", ("example.org",), True),
        ("a.example.org", ("example.org",), False),
        ("a.b.example.org", ("*.example.org",), True),
        ("example.org", ("*.example.org",), False),
        ("aexample.org", ("*.example.org",), False),
        ("10.0.0.7:8000", ("example.org",), True),  # as probes of Kubernetes ask
    ],
)
def test_a_host_is_known_by_its_name(host: str, allowed: tuple[str, ...], is_known: bool) -> None:
    assert is_known_host(host, allowed) == is_known


@pytest.mark.parametrize(
    ("origin", "site", "hosts", "is_own"),
    [
        (None, None, ["localhost:8000"], True),  # no browser
        ("http://localhost:8000", None, ["localhost:8000"], True),
        ("http://LOCALHOST:8000", None, ["localhost:8000"], True),
        ("http://localhost:3000", None, ["localhost:8000"], False),
        ("http://localhost", None, ["localhost:80"], True),
        ("https://example.org", None, ["example.org"], True),
        ("https://example.org:443", None, ["example.org"], True),
        ("https://example.org", None, ["example.org:80"], False),
        ("https://evil.example", None, ["example.org"], False),
        ("https://example.org.evil.example", None, ["example.org"], False),
        ("null", None, ["example.org"], False),
        ("null", None, [""], False),
        ("", None, [""], False),
        ("https://example.org", None, ["127.0.0.1:8000", "example.org"], True),
        # What the browser says of the page goes before: it knows by which name it has asked the proxy.
        ("https://example.org", "same-origin", ["127.0.0.1:8000"], True),
        (None, "none", ["localhost:8000"], True),
        ("http://localhost:8000", "cross-site", ["localhost:8000"], False),
        ("http://localhost:3000", "same-site", ["localhost:8000"], False),
        (None, "cross-site", ["localhost:8000"], False),
    ],
)
def test_a_page_is_known_by_its_origin(origin: str | None, site: str | None, hosts: list[str], is_own: bool) -> None:
    assert is_own_page(origin, site, hosts) == is_own


async def ask(settings: Settings, contract: ModelContract, method: str, path: str, **headers: str) -> httpx.Response:
    app = create_app(settings, Engine(FakeSession(), contract))
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with app.router.lifespan_context(app), connect(app) as client:
        return await client.request(method, path, content=PICTURE if method == "POST" else None, headers=sent)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/info", "evil.example:8000", 421),
        ("GET", "/metrics", "evil.example", 421),
        ("POST", "/predict", "evil.example:8000", 421),
        ("GET", "/v2/health/live", "evil.example", 421),
        ("GET", "/info", "localhost:8000", 200),
        ("POST", "/predict", "127.0.0.1:8000", 200),
    ],
)
async def test_a_name_that_is_not_this_machines_is_not_answered(
    settings: Settings, contract: ModelContract, method: str, path: str, host: str, status: int
) -> None:
    response = await ask(settings.model_copy(update={"allowed_hosts": LOOPBACK}), contract, method, path, host=host)
    assert response.status_code == status
    if status == 421:
        told = response.json()
        assert "UNIHEAD_ALLOWED_HOSTS" in (told["error"] if path.startswith("/v2") else told["detail"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/predict", {"origin": "https://evil.example"}, 403),
        ("/v2/models/unihead/infer", {"origin": "https://evil.example", "content_type": "text/plain"}, 403),
        ("/predict", {"origin": "http://unihead"}, 200),  # as the client of these tests asks
        ("/predict", {"origin": "https://good.example"}, 200),
        ("/predict", {"origin": "https://good.example", "sec_fetch_site": "cross-site"}, 200),
        ("/predict", {"origin": "https://proxy.example", "x_forwarded_host": "proxy.example"}, 403),
        ("/predict", {"origin": "https://proxy.example", "sec_fetch_site": "same-origin"}, 200),
        ("/predict", {}, 200),
    ],
)
async def test_pages_of_others_may_send_nothing_unless_they_are_listed(
    settings: Settings, contract: ModelContract, path: str, headers: dict[str, str], status: int
) -> None:
    listed = settings.model_copy(update={"cors_origins": ("https://good.example",)})
    response = await ask(listed, contract, "POST", path, **headers)
    assert response.status_code == status
    if status == 403 and path == "/predict":
        assert response.json()["code"] == "foreign_origin"


@pytest.mark.anyio
async def test_reading_is_left_to_the_browser(settings: Settings, contract: ModelContract) -> None:
    assert (await ask(settings, contract, "GET", "/info", origin="https://evil.example")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("forwarded", ["proxy.example", "proxy.example, 10.0.0.1"])
async def test_a_proxy_that_is_trusted_says_by_which_name_it_was_asked(
    settings: Settings, contract: ModelContract, forwarded: str
) -> None:
    trusting = settings.model_copy(update={"trust_forwarded_host": True})
    sent = {"origin": "https://proxy.example", "x_forwarded_host": forwarded}
    assert (await ask(trusting, contract, "POST", "/predict", **sent)).status_code == 200
    sent["origin"] = "https://10.0.0.1"
    assert (await ask(trusting, contract, "POST", "/predict", **sent)).status_code == 403


@pytest.mark.parametrize(
    "host", ["https://example.org", "example.org:80", "EXAMPLE.org", "a.*.org", "*.", "a b", "[::1]"]
)
def test_what_is_no_name_of_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match=r"is no name of a host; it must look like example\.org, lower case, no"):
        Settings(allowed_hosts=(host,))


@pytest.mark.parametrize("hosts", ["example.org, *.example.org", "*", "unihead", ""])
def test_hosts_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("UNIHEAD_ALLOWED_HOSTS", hosts)
    assert ", ".join(Settings().allowed_hosts) == hosts
