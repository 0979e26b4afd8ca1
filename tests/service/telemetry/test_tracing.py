from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.app import create_app
from service.commands.spawn import spawn_service
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from service.telemetry.tracing import TracingError, open_tracing
from tests.service.clients import connect
from tests.service.fakes import FakeSession, encode, make_picture

ROOT = Path(__file__).parents[3]
PICTURE = encode(make_picture())

# FastAPI imports OpenTelemetry's API by itself, so what counts is what we add.
WITHOUT_TRACING = """
import asyncio, sys
import fastapi, fastapi.telemetry._runtime
before = set(sys.modules)
import httpx
from pathlib import Path
from service.app import create_app
from service.settings import Settings

async def main():
    app = create_app(Settings(model=Path(sys.argv[1]), threads=1))
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            response = await client.post("/predict", content=Path(sys.argv[2]).read_bytes())
            print(response.status_code)
    import service.server.serve, service.cli

asyncio.run(main())
added = set(sys.modules) - before
print(sorted(name for name in added if name.startswith("opentelemetry") or name == "service.telemetry.spans"))
"""


@contextmanager
def collect() -> Iterator[tuple[str, list[tuple[str, dict[str, str], ExportTraceServiceRequest]]]]:
    """Run a collector; yields its address, and the paths, headers and requests that it gets."""
    got: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((self.path, headers, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", got
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def accept_and_say_nothing() -> Iterator[str]:
    """Run a collector that hangs: connections come about, and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refuse_connections() -> Iterator[str]:
    """Name an address where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


def test_without_tracing_a_service_imports_nothing_for_it(tiny_model: Path) -> None:
    picture = ROOT / "service" / "models" / "golden" / "coffee.jpg"
    command = [sys.executable, "-c", WITHOUT_TRACING, str(tiny_model), str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["200", "[]"], done.stderr


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_without_the_extra_the_start_says_what_to_install(missing: str, tiny_model: Path) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--port", "0", "--model", str(tiny_model), "--tracing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert re.fullmatch(
        rf"unihead-serve: tracing is on, and {missing}[\w.]* is not installed; "
        r"pip install 'unihead\[tracing\]' brings it",
        sentence,
    )


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces", "http://collector:4318"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "positive"),
    ],
)
@pytest.mark.anyio
async def test_a_variable_that_cannot_work_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TracingError, match=re.escape(hint)):
        async with open_tracing(enabled=True):
            pass


@pytest.mark.anyio
async def test_a_collector_gets_spans_named_after_the_service(
    monkeypatch: pytest.MonkeyPatch, contract: ModelContract
) -> None:
    with collect() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush")
        app = create_app(Settings(tracing=True), Engine(FakeSession(), contract))
        async with app.router.lifespan_context(app), connect(app) as client:
            response = await client.post("/predict", content=PICTURE, headers={"X-Request-ID": "abc-1"})
    assert response.status_code == 200
    ((path, headers, request),) = got
    assert (path, headers["content-type"], headers["authorization"]) == (
        "/v1/traces",
        "application/x-protobuf",
        "hush",
    )
    (resource_spans,) = request.resource_spans
    resource = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
    assert resource["service.name"] == "unihead"
    (scope_spans,) = resource_spans.scope_spans
    assert scope_spans.scope.name == "unihead"
    (server,) = [span for span in scope_spans.spans if span.kind == span.SPAN_KIND_SERVER]
    children = [span for span in scope_spans.spans if span.parent_span_id == server.span_id]
    assert server.name == "POST /predict"
    assert {pair.key: pair.value for pair in server.attributes}["unihead.request_id"].string_value == "abc-1"
    assert {span.name for span in children} > {"queue", "decode", "preprocess", "forward", "postprocess", "encode"}
    assert all(
        server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= server.end_time_unix_nano
        for span in children
    )
    assert abs(server.end_time_unix_nano / 1e9 - time.time()) < 60


@pytest.mark.anyio
async def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch, contract: ModelContract) -> None:
    with collect() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{url}/elsewhere")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "eyes")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        app = create_app(Settings(tracing=True), Engine(FakeSession(), contract))
        async with app.router.lifespan_context(app), connect(app) as client:
            await client.post("/detect", content=PICTURE)
    ((path, _, request),) = got
    resource = {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}
    assert path == "/elsewhere"
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("eyes", "test")


@pytest.mark.anyio
async def test_the_environment_chooses_the_sampler(monkeypatch: pytest.MonkeyPatch, contract: ModelContract) -> None:
    with collect() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        app = create_app(Settings(tracing=True), Engine(FakeSession(), contract))
        async with app.router.lifespan_context(app), connect(app) as client:
            assert (await client.post("/detect", content=PICTURE)).status_code == 200
    assert got == []


@pytest.mark.slow
@pytest.mark.parametrize("collector", [refuse_connections, accept_and_say_nothing])
def test_a_dead_collector_fails_no_request_and_holds_up_no_stop(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, collector: Callable[[], AbstractContextManager[str]]
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # so that an export is under way when it stops
    with collector() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with spawn_service(["--model", str(tiny_model), "--tracing"]) as service:
            connection = http.client.HTTPConnection(service.host, service.port, timeout=10)
            for _ in range(300):  # more spans than its queue holds
                connection.request("POST", "/predict", PICTURE)
                response = connection.getresponse()
                response.read()
                assert response.status == 200
            connection.close()
            told_to_stop = time.monotonic()
    assert time.monotonic() - told_to_stop < 6  # 2 s for the spans; an exporter gives up after 10 s by itself
