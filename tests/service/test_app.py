from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Message

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.errors import ContractError
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import BrokenSession, FakeSession, encode, make_picture

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())


async def test_the_model_file_is_loaded_when_the_app_starts(settings: Settings, tiny_model: Path) -> None:
    app = create_app(settings.model_copy(update={"model": tiny_model}))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.post("/predict", content=PICTURE)).status_code == 200
        info = (await client.get("/info")).json()
    assert len(info["model"]["sha256"]) == 64


async def test_a_model_that_cannot_be_loaded_stops_the_start(tmp_path: Path) -> None:
    app = create_app(Settings(model=tmp_path / "gone.onnx"))
    with pytest.raises(ContractError, match=r"gone\.onnx"):
        async with app.router.lifespan_context(app):
            pass


async def test_before_the_start_and_after_the_stop_nothing_is_ready_but_all_answers(app: FastAPI) -> None:
    async with connect(app) as client:
        for _ in range(2):
            for method, path in [("GET", "/readyz"), ("GET", "/info"), ("POST", "/detect"), ("POST", "/predict")]:
                response = await client.request(method, path, content=PICTURE)
                assert (response.status_code, response.json()["code"]) == (503, "not_ready")
                assert response.headers["retry-after"] == "1"
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            async with app.router.lifespan_context(app):
                assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_an_unexpected_failure_is_logged_and_told_without_detail(
    settings: Settings, contract: ModelContract, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings, Engine(BrokenSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.post("/predict", content=PICTURE, headers={"X-Request-ID": "abc-1"})
        scraped = (await client.get("/metrics")).text
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc-1"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None
    assert "unihead_images_in_flight 0.0" in scraped
    assert 'unihead_http_requests_total{method="POST",protocol="http",route="/predict",status="500"} 1.0' in scraped


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/detect/", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("GET", "/detect", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("BREW", "/predict", 405, "method_not_allowed"),
        ("POST", "/predict?tasks=tea", 422, "invalid_parameter"),
    ],
)
async def test_every_refusal_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["type"] == "about:blank"
    if status == 405:
        assert response.headers["allow"] in {"GET", "POST"}


@pytest.mark.parametrize("proposed", ["a", "A-b_c.9", "x" * 64])
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, proposed: str) -> None:
    for path in ("/healthz", "/nowhere", "/static/docs.js"):
        response = await client.get(path, headers={"X-Request-ID": proposed})
        assert response.headers.get_list("x-request-id") == [proposed]


@pytest.mark.parametrize("proposed", ["", "x" * 65, "a b", "a\tb", "a;b", "<b>", "a,b"])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, proposed: str) -> None:
    response = await client.get("/healthz", headers={"X-Request-ID": proposed})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])


async def test_requests_are_counted_by_template(client: httpx.AsyncClient) -> None:
    await client.post("/detect?score_threshold=0.5", content=PICTURE)
    for number in range(3):
        await client.get(f"/scan/{number}")
    await client.get("/static/page.css")
    scraped = (await client.get("/metrics")).text
    assert 'unihead_http_requests_total{method="POST",protocol="http",route="/detect",status="200"} 1.0' in scraped
    assert 'unihead_http_requests_total{method="GET",protocol="http",route="unmatched",status="404"} 3.0' in scraped
    assert (
        'unihead_http_requests_total{method="GET",protocol="http",route="/static/{path:path}",status="200"} 1.0'
        in scraped
    )
    assert "scan" not in scraped


async def test_a_service_that_leaves_is_not_ready_and_answers_all_the_same(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    app.state.service.drain()
    for path in ("/readyz", "/v2/health/ready"):
        response = await client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert (await client.get("/readyz")).json()["code"] == "draining"
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.post("/predict", content=PICTURE)).status_code == 200


async def test_a_request_that_is_cut_off_is_told_so(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def wait(_: Request) -> None:
        begun.set()
        await asyncio.sleep(60)

    app.add_route("/wait", wait)  # type: ignore[arg-type]  # it never comes to a response
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("there is no body")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/wait", "headers": [], "query_string": b""}
    caplog.set_level(logging.INFO)
    task = asyncio.ensure_future(app(scope, receive, send))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "draining")
    assert caplog.records[-1].fields["status"] == 503  # type: ignore[attr-defined]  # of the request's line


async def test_half_an_answer_is_broken_off(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    async def half(request: Request) -> None:
        await request._send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    app.add_route("/half", half)  # type: ignore[arg-type]  # returns no response, that is its fault
    async with connect(app) as client:
        with pytest.raises(RuntimeError, match="too late"):
            await client.get("/half")
    assert caplog.records


def test_the_api_description_names_every_route_body_and_problem(app: FastAPI) -> None:
    document = app.openapi()
    model = "/v2/models/{model}"
    versions = (model, f"{model}/versions/{{version}}")
    assert set(document["paths"]) == {
        "/segment", "/detect", "/classify", "/predict", "/overlay", "/healthz", "/readyz", "/info", "/metrics",
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats",
        *(f"{path}{end}" for path in versions for end in ("", "/ready", "/config", "/stats", "/infer")),
        *(f"/v1/vision/{end}" for end in ("detection", "custom/list", "custom/{name}", "scene")),
        *(f"/v1/status{end}" for end in ("", "/ping", "/updateavailable")),
    }  # fmt: skip
    for path in ("/segment", "/detect", "/classify", "/predict"):
        operation = document["paths"][path]["post"]
        assert {"image/jpeg", "image/png", "image/webp", "multipart/form-data"} <= set(
            operation["requestBody"]["content"]
        )
        assert {"200", "400", "404", "408", "413", "415", "422", "431", "500", "503"} == set(operation["responses"])
        for status in ("400", "413", "415", "422", "503"):
            assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
    assert "image/png" in document["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document))) <= set(schemas)


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "onnx", "onnxscript", "training", "export"}:
            raise AssertionError(name + " was imported")
sys.meta_path.insert(0, Refuse())

import asyncio, httpx
from pathlib import Path
from service.app import create_app
from service.settings import Settings

async def main():
    app = create_app(Settings(model=Path(sys.argv[1]), threads=1))
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            response = await client.post("/predict", content=Path(sys.argv[2]).read_bytes())
            print(response.status_code, *response.json())

asyncio.run(main())
"""


def test_the_service_answers_where_torch_cannot_be_imported(tiny_model: Path) -> None:
    root = Path(__file__).parents[2]
    picture = root / "service" / "models" / "golden" / "coffee.jpg"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tiny_model, picture],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["200", "model", "image", "segments", "mask", "detections", "classes", "timing_ms"], (
        done.stderr
    )


async def test_two_apps_in_one_process_are_strangers(settings: Settings, contract: ModelContract) -> None:
    first, second = (create_app(settings, Engine(FakeSession(), contract)) for _ in range(2))
    async with first.router.lifespan_context(first), connect(first) as one, connect(second) as two:
        await one.post("/detect", content=PICTURE)
        assert "unihead_forward_passes_total 1.0" in (await one.get("/metrics")).text
        assert "unihead_forward_passes_total 0.0" in (await two.get("/metrics")).text
