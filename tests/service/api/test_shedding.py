from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from service.api import routes
from service.api.deepstack import routes as deepstack
from service.api.gates import ShedMiddleware
from service.api.middleware import RequestMiddleware
from service.api.oip import routes as oip
from service.api.router import RouteTable
from service.api.state import ServiceState
from service.errors import Overloaded
from service.settings import Settings
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

ROUTES = RouteTable([routes.router, oip.router, deepstack.router])


class Full:
    """Stands in for a scheduler that mostly refuses."""

    def __init__(self) -> None:
        self.full = True

    def shed(self) -> None:
        if self.full:
            raise Overloaded("1 pictures wait already, which is the limit", reason="queue_full", retry_after_s=7)


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "http.request"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def never() -> Message:
    raise AssertionError("a body was read")


async def request() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ask(
    path: str, receive: Receive, scheduler: Full, method: str = "POST"
) -> tuple[int, dict[bytes, bytes], bytes, Metrics]:
    metrics = Metrics(CollectorRegistry())
    state = ServiceState(Settings(), metrics)
    state.scheduler = scheduler  # type: ignore[assignment]  # a stand-in
    app = RequestMiddleware(ShedMiddleware(answer_ok, ROUTES, state), metrics)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], metrics


async def test_a_picture_is_refused_before_its_body_is_read() -> None:
    status, headers, body, metrics = await ask("/detect", never, Full())
    assert (status, headers[b"retry-after"]) == (503, b"7")
    assert json.loads(body)["code"] == "overloaded"
    assert headers[b"x-request-id"].decode() == json.loads(body)["request_id"]
    labels = {"route": "/detect", "method": "POST", "status": "503", "protocol": "http"}
    assert metrics.registry.get_sample_value("unihead_http_requests_total", labels) == 1.0


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/detect/", "/nothing", "/v1/vision/custom/list"])
async def test_everything_else_passes(path: str) -> None:
    status, _, body, _ = await ask(path, request, Full())
    assert (status, body) == (200, path.encode())


@pytest.mark.parametrize("path", ["detection", "custom/unihead", "scene"])
async def test_cameras_are_refused_in_their_words(path: str) -> None:
    status, headers, body, _ = await ask(f"/v1/vision/{path}", never, Full())
    assert (status, headers[b"retry-after"]) == (503, b"7")
    said = json.loads(body)
    assert (said["success"], said["code"]) == (False, 503)


async def test_another_method_goes_on_to_be_told_so() -> None:
    status, _, body, _ = await ask("/detect", request, Full(), "GET")
    assert (status, body) == (200, b"/detect")


async def test_pictures_pass_while_there_is_room() -> None:
    scheduler = Full()
    scheduler.full = False
    status, _, body, _ = await ask("/detect", request, scheduler)
    assert (status, body) == (200, b"/detect")


async def test_a_prefix_that_a_proxy_took_the_app_under_changes_nothing() -> None:
    metrics = Metrics(CollectorRegistry())
    state = ServiceState(Settings(), metrics)
    state.scheduler = Full()  # type: ignore[assignment]  # a stand-in
    app = RequestMiddleware(ShedMiddleware(answer_ok, ROUTES, state), metrics)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    path = "/vision/v2/models/unihead/infer"
    scope = {"type": "http", "method": "POST", "root_path": "/vision", "path": path, "headers": []}
    await app(scope, never, send)
    assert sent[0]["status"] == 503
    assert list(json.loads(sent[1]["body"])) == ["error"]
