from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from service.api.oip.wire import HEADER_LENGTH
from service.api.state import ServiceState
from service.app import create_app
from service.engine.engine import Engine
from service.settings import Settings
from service.telemetry.spans import Tracing
from tests.service.clients import connect
from tests.service.fakes import BrokenSession, FakeSession, encode, make_contract, make_form, make_picture
from tests.service.harness import GatedSession, until

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PREDICT_STAGES = ["read", "queue", "decode", "preprocess", "queue", "forward"] + 2 * ["postprocess", "encode"]


@dataclass(frozen=True)
class Traced:
    """A running app, a client of it, and the spans that it has written."""

    client: httpx.AsyncClient
    exporter: InMemorySpanExporter
    state: ServiceState

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(
            self.exporter.get_finished_spans(), key=lambda span: (span.start_time or 0, -(span.end_time or 0))
        )

    def server_spans(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is SpanKind.SERVER]

    def inside(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [span for span in self.spans if span.parent == context_of(parent)]

    def count(self, name: str, **labels: str) -> float:
        return self.state.metrics.registry.get_sample_value(name, labels) or 0.0


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def names(spans: Sequence[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


def sum_ms(spans: Sequence[ReadableSpan]) -> dict[str, float]:
    """Milliseconds by name."""
    sums: dict[str, float] = defaultdict(float)
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        sums[span.name] += (span.end_time - span.start_time) / 1e6
    return sums


@asynccontextmanager
async def trace(
    session: FakeSession | None = None, *, sampler: Sampler = DEFAULT_ON, settings: Settings | None = None
) -> AsyncIterator[Traced]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine = Engine(session or FakeSession(), make_contract(), sha256="c0ffee")
    app = create_app(settings or Settings(threads=2), engine, Tracing(provider))
    async with app.router.lifespan_context(app), connect(app) as client:
        yield Traced(client, exporter, app.state.service)


async def test_a_request_is_one_span_with_a_span_for_each_stage() -> None:
    async with trace() as traced:
        response = await traced.client.post("/predict", content=PICTURE, headers={"X-Request-ID": "abc-1"})
        (server,) = traced.server_spans()
        stages = traced.inside(server)
    assert server.name == "POST /predict"
    assert server.parent is None
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "unihead.request_id": "abc-1",
        "unihead.cache": "miss",
    }
    assert server.status.status_code is StatusCode.UNSET
    assert names(stages) == PREDICT_STAGES
    assert len(traced.spans) == 1 + len(stages)
    (forward,) = [span for span in stages if span.name == "forward"]
    assert dict(forward.attributes or {}) == {
        "unihead.batch_size": 1,
        "unihead.model_version": response.json()["model"]["version"],
    }


async def test_stages_follow_one_another_inside_the_request_and_say_what_timing_says() -> None:
    async with trace() as traced:
        response = await traced.client.post("/predict", content=PICTURE)
        (server,) = traced.server_spans()
        stages = traced.inside(server)
    assert server.start_time is not None
    assert server.end_time is not None
    moment = server.start_time
    for span in stages:
        assert span.start_time == pytest.approx(moment, abs=2)  # nanoseconds: no gap, no overlap
        assert span.end_time is not None
        moment = span.end_time
    assert moment <= server.end_time
    told_ms = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"]))
    measured_ms = sum_ms(stages)
    assert measured_ms.keys() - {"read"} == told_ms.keys() - {"other", "total"}
    for stage, milliseconds in measured_ms.items():
        assert stage == "read" or milliseconds == pytest.approx(float(told_ms[stage]), abs=0.001)
    timing_ms = response.json()["timing_ms"]
    for stage in ("queue", "decode", "preprocess", "forward", "postprocess"):
        assert measured_ms[stage] == pytest.approx(timing_ms[stage], abs=0.001)


async def test_an_answer_from_the_cache_links_to_the_pass_that_made_it() -> None:
    async with trace() as traced:
        for task in ("segment", "detect"):
            await traced.client.post(f"/{task}", content=PICTURE)
        first, second = traced.server_spans()
        (forward,) = [span for span in traced.spans if span.name == "forward"]
        assert forward.parent == context_of(first)
        assert names(traced.inside(second)) == ["read", "queue", "postprocess", "encode"]
    assert (second.attributes or {})["unihead.cache"] == "hit"
    assert [link.context for link in second.links] == [forward.get_span_context()]
    assert context_of(first).trace_id != context_of(second).trace_id
    assert not first.links


async def test_requests_that_share_a_pass_under_way_link_to_it_even_if_its_own_has_left() -> None:
    session = GatedSession()
    async with trace(session) as traced:
        session.gate.clear()
        leader = asyncio.create_task(
            traced.client.post("/segment", content=PICTURE, headers={"X-Request-Timeout-Ms": "200"})
        )
        await until(lambda: session.inside == 1)
        follower = asyncio.create_task(traced.client.post("/detect", content=PICTURE))
        await until(lambda: traced.count("unihead_cache_requests_total", result="coalesced") == 1)
        assert (await leader).status_code == 503
        session.gate.set()
        assert (await follower).status_code == 200
        left, served = traced.server_spans()
        (forward,) = [span for span in traced.spans if span.name == "forward"]
    assert forward.parent == left.get_span_context()
    assert (served.attributes or {})["unihead.cache"] == "coalesced"
    assert [link.context for link in served.links] == [forward.get_span_context()]
    assert (left.attributes or {})["error.type"] == "deadline_exceeded"


async def test_a_pass_says_how_many_pictures_shared_it() -> None:
    settings = Settings(max_batch=2, max_delay_ms=1000, threads=1)
    async with trace(settings=settings) as traced:
        bodies = [encode(make_picture(seed=seed)) for seed in range(2)]
        await asyncio.gather(*(traced.client.post("/detect", content=body) for body in bodies))
        passes = [span for span in traced.spans if span.name == "forward"]
    assert [(span.attributes or {})["unihead.batch_size"] for span in passes] == [2, 2]


async def test_what_a_caller_can_mend_is_no_error_of_the_server() -> None:
    async with trace() as traced:
        response = await traced.client.post("/detect", content=b"no picture")
        (server,) = traced.server_spans()
        stages = traced.inside(server)
    assert response.status_code == 415
    attributes = dict(server.attributes or {})
    assert attributes["http.response.status_code"] == 415
    assert attributes["unihead.problem_code"] == "unsupported_image"
    assert "error.type" not in attributes
    assert server.status.status_code is StatusCode.UNSET
    assert names(stages) == ["read"]


async def test_an_unexpected_failure_tells_its_type_and_nothing_more() -> None:
    async with trace(BrokenSession()) as traced:
        response = await traced.client.post("/detect", content=PICTURE)
        (server,) = traced.server_spans()
    assert response.status_code == 500
    assert (server.attributes or {})["http.response.status_code"] == 500
    assert (server.attributes or {})["error.type"] == "RuntimeError"
    assert server.status.status_code is StatusCode.ERROR
    assert "secret" not in server.to_json()


async def test_a_refusal_before_the_body_is_read_is_traced_too() -> None:
    async with trace() as traced:
        response = await traced.client.post("/detect", content=b"x" * 20_000_000)
        (server,) = traced.spans
    assert response.status_code == 413
    assert (server.attributes or {})["unihead.problem_code"] == "body_too_large"


async def test_pictures_of_one_inference_request_have_a_span_each() -> None:
    files = [encode(make_picture(seed=seed)) for seed in range(2)]
    blob = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    head = (
        '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": '
        f'{{"binary_data_size": {len(blob)}}}}}]}}'
    ).encode()
    async with trace() as traced:
        response = await traced.client.post(
            "/v2/models/unihead/infer", content=head + blob, headers={HEADER_LENGTH: str(len(head))}
        )
        (server,) = traced.server_spans()
        read, *pictures = traced.inside(server)
        stages = [names(traced.inside(picture)) for picture in pictures]
    assert response.status_code == 200, response.text
    assert (server.name, (server.attributes or {})["http.route"]) == (
        "POST /v2/models/{model}/infer",
        "/v2/models/{model}/infer",
    )
    assert read.name == "read"
    assert [dict(picture.attributes or {}) for picture in pictures] == [
        {"unihead.picture_index": index, "unihead.cache": "miss"} for index in range(2)
    ]
    assert stages == [["queue", "decode", "preprocess", "queue", "forward", "postprocess", "encode"]] * 2


async def test_one_picture_of_an_inference_request_needs_no_span_of_its_own() -> None:
    async with trace() as traced:
        await traced.client.post("/v2/models/unihead/infer", content=PICTURE, headers={HEADER_LENGTH: "0"})
        (server,) = traced.server_spans()
        assert "forward" in names(traced.inside(server))


async def test_the_callers_trace_goes_on_and_the_log_names_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="unihead")
    async with trace() as traced:
        await traced.client.post("/classify", content=PICTURE, headers={"traceparent": CALLER})
        (server,) = traced.server_spans()
    _, trace_id, span_id, _ = CALLER.split("-")
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (trace_id, span_id)
    assert server.parent.is_remote
    assert {context_of(span).trace_id for span in traced.spans} == {int(trace_id, 16)}
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert vars(line)["fields"]["trace_id"] == trace_id


@pytest.mark.parametrize(
    "header", ["", "00-0-0-01", "\x7f" * 200, CALLER[:-3], "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
async def test_a_caller_who_writes_nonsense_gets_a_trace_of_its_own(header: str) -> None:
    async with trace() as traced:
        response = await traced.client.post("/classify", content=PICTURE, headers={"traceparent": header})
        (server,) = traced.server_spans()
    assert response.status_code == 200
    assert server.parent is None


async def test_what_the_sampler_leaves_out_is_answered_and_not_written() -> None:
    async with trace(sampler=ALWAYS_OFF) as traced:
        assert (await traced.client.post("/predict", content=PICTURE)).status_code == 200
    async with trace() as also_traced:
        unsampled = {"traceparent": f"{CALLER[:-1]}0"}
        assert (await also_traced.client.post("/predict", content=PICTURE, headers=unsampled)).status_code == 200
    assert traced.spans == also_traced.spans == []


async def test_what_is_not_about_a_picture_is_not_traced() -> None:
    async with trace() as traced:
        for path in ("/", "/healthz", "/readyz", "/info", "/metrics", "/v2", "/predict", "/v2/models/unihead"):
            await traced.client.get(path)
        await traced.client.post("/nowhere", content=PICTURE)
    assert traced.spans == []


async def test_nothing_that_a_caller_wrote_is_handed_on() -> None:
    form, content_type = make_form(file=PICTURE)  # the field has a file name
    headers = {"Content-Type": content_type, "Authorization": "Bearer hush", "X-Request-ID": "hush hush"}
    async with trace() as traced:
        await traced.client.post("/detect?key=hush", content=form, headers=headers)
        await traced.client.post("/detect", content=form, headers=headers)
        await traced.client.post("/v2/models/hush/infer", content=b"{}")
        written = "".join(span.to_json() for span in traced.spans)
    assert len(traced.server_spans()) == 3
    assert "forward" in written
    assert not re.search(r"hush|a\.jpg|PNG", written)
