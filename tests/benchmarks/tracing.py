"""What traces cost a request: the app with and without them, in turns, against a collector in another process.

Run from the repository's root: `.venv/bin/python -m tests.benchmarks.tracing`
"""

import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import uvloop
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service.app import create_app
from service.settings import Settings
from service.telemetry.spans import Tracing

PICTURE = (Path(__file__).parents[2] / "service" / "models" / "golden" / "coffee.jpg").read_bytes()
ROUNDS, REQUESTS = 15, 60


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


def run_sink(told: Connection) -> None:
    with HTTPServer(("127.0.0.1", 0), Sink) as server:
        told.send(server.server_port)
        server.serve_forever()


@contextlib.contextmanager
def collect() -> Iterator[str]:
    """Run a collector that takes everything; yields its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_sink, args=(theirs,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}/v1/traces"
    process.terminate()


async def ask(client: httpx.AsyncClient, provider: TracerProvider, headers: dict[str, str]) -> tuple[float, float]:
    """Ask for one round; returns the median milliseconds of a request, and its milliseconds of CPU with its export."""
    took_ms, cpu = [], time.process_time()
    for _ in range(REQUESTS):
        started = time.perf_counter()
        response = await client.post("/predict", content=PICTURE, headers=headers)
        took_ms.append((time.perf_counter() - started) * 1000)
        assert response.status_code == 200
    await asyncio.to_thread(provider.force_flush)
    return statistics.median(took_ms), (time.process_time() - cpu) * 1000 / REQUESTS


async def measure(url: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
    settings = Settings(threads=1, log_level="error")
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for tracing in (None, Tracing(provider)):
            app = create_app(settings, tracing=tracing)
            await stack.enter_async_context(app.router.lifespan_context(app))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://unihead")
            clients.append(await stack.enter_async_context(client))
        for what, headers in [("a pass of its own", {"Cache-Control": "no-cache"}), ("from the cache", {})]:
            rounds = [[await ask(client, provider, headers) for client in clients] for _ in range(1 + ROUNDS)][1:]
            for unit, index in (("ms", 0), ("ms of CPU", 1)):
                pairs = [(off[index], on[index]) for off, on in rounds]
                more = statistics.median(on - off for off, on in pairs)
                print(f"{what}: {statistics.median(off for off, _ in pairs):.2f} {unit}, traced {more:+.2f}")


def main() -> None:
    with collect() as url:
        uvloop.run(measure(url))


if __name__ == "__main__":
    main()
