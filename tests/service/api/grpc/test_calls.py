"""What stands around every call: keys, memory, shedding, deadlines, cancelling, counts, the log and traces."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.errors import Overloaded
from service.telemetry.spans import Tracing
from tests.attacks.calls import call, frame, head
from tests.service.api.grpc.asking import INFER, METHODS, Port, make_message
from tests.service.clients import PICTURE, connect
from tests.service.fakes import encode, make_picture, write_keys
from tests.service.harness import GatedSession, until

pytestmark = pytest.mark.anyio

START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


async def fail(begun: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await begun
    return failure.value


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return {key: str(value) for key, value in error.trailing_metadata()}


async def test_an_answer_says_what_the_headers_of_http_say(port: Port) -> None:
    begun = port.call(INFER, make_message(), (("x-request-id", "mine"),))
    await begun
    said = {key: str(value) for key, value in await begun.trailing_metadata()}
    assert (said["x-request-id"], said["x-unihead-cache"]) == ("mine", "miss")
    assert "forward;dur=" in said["server-timing"]
    assert "x-unihead-code" not in said


async def test_both_ports_share_passes_and_numbers(port: Port, session: GatedSession) -> None:
    warm = session.passes
    async with connect(port.app) as client:
        response = await client.post("/predict", content=PICTURE)
    begun = port.call(INFER, make_message())
    await begun
    assert ("x-unihead-cache", "hit") in [tuple(pair) for pair in await begun.trailing_metadata()]
    assert session.passes == warm + 1
    answer = await port.infer()
    probs = struct.unpack("<3f", answer.raw_output_contents[[one.name for one in answer.outputs].index("class_probs")])
    said = {one["label_id"]: one["probability"] for one in response.json()["classes"]}
    assert dict(enumerate(probs)) == pytest.approx(said, abs=1e-5)


async def test_a_request_may_ask_for_a_pass_of_its_own(port: Port) -> None:
    begun = port.call(INFER, make_message(), (("cache-control", "no-cache"),))
    await begun
    assert ("x-unihead-cache", "bypass") in [tuple(pair) for pair in await begun.trailing_metadata()]


async def test_without_a_key_nothing_but_health_is_told(start: Callable[..., Any], tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", me="uh_secret", you="uh_other")
    async with start(keys=keys) as port:
        closed = [f"{INFER.removesuffix('ModelInfer')}{name}" for name in METHODS if not name.startswith("ServerL")]
        closed.remove(f"{INFER.removesuffix('ModelInfer')}ServerReady")
        for path in closed:
            for metadata in ((), (("authorization", "Bearer uh_wrong"),), (("x-api-key", "uh_secret"),) * 2):
                error = await fail(port.call(path, b"", metadata))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert trailers_of(error)["x-unihead-code"] == "unauthorized"
        assert port.count("unihead_unauthorized_requests_total") == 3 * len(closed)
        assert port.answered(401) == 3
        for name in ("ServerLive", "ServerReady"):
            assert await port.call(INFER.replace("ModelInfer", name), b"") == b"\x08\x01"
        caches = []
        for metadata in (
            (("authorization", "Bearer uh_secret"),),
            (("x-api-key", "uh_secret"),),
            (("x-api-key", "uh_other"),),
        ):
            begun = port.call(INFER, make_message(), metadata)
            await begun
            caches += [value for key, value in await begun.trailing_metadata() if key == "x-unihead-cache"]
        assert caches == ["miss", "hit", "miss"], "keys share nothing"


async def test_a_key_is_looked_at_before_the_message_comes(start: Callable[..., Any], tmp_path: Path) -> None:
    async with start(keys=write_keys(tmp_path / "keys", me="uh_secret")) as port:
        begun = port.channel.stream_unary(INFER)()  # and nothing is written
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await begun


async def test_load_is_shed_before_the_message_comes(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    def shed() -> None:
        raise Overloaded("there is no room", reason="queue_full", retry_after_s=7)

    monkeypatch.setattr(port.state.require_scheduler(), "shed", shed)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await port.channel.stream_unary(INFER)()
    said = trailers_of(failure.value)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (said["grpc-retry-pushback-ms"], said["retry-after"], said["x-unihead-code"]) == ("7000", "7", "overloaded")
    assert port.answered(503) == 1


async def test_a_message_that_does_not_come_ends_in_time(start: Callable[..., Any]) -> None:
    async with start(body_timeout_s=0.1) as port:
        with pytest.raises(grpc.aio.AioRpcError, match="did not come in time") as failure:
            await port.channel.stream_unary(INFER)()
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert port.answered(408) == 1
        await until(lambda: not any(port.state.memory.taken.values()))


async def test_nothing_is_held_once_an_answer_is_taken(port: Port) -> None:
    await port.infer()
    await fail(port.call(INFER, make_message(b"no picture")))
    await until(lambda: not any(port.state.memory.taken.values()))
    await until(lambda: not port.server._front.running)


async def test_a_message_counts_in_the_budget_while_its_picture_waits(port: Port, session: GatedSession) -> None:
    session.gate.clear()
    message = make_message(encode(make_picture(200, 200)))
    begun = port.call(INFER, message)
    await until(lambda: 0 < port.state.memory.taken["bodies"] <= len(message))
    session.gate.set()
    await begun


async def test_what_nobody_foresaw_is_told_to_the_log_alone(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fall(*_: object, **__: object) -> None:
        raise RuntimeError("secret: /home/somebody/model.onnx")

    monkeypatch.setattr("service.api.grpc.methods.walk", fall)
    error = await fail(port.call(INFER, make_message(), (("x-request-id", "mine"),)))
    assert (error.code(), port.answered(500)) == (grpc.StatusCode.INTERNAL, 1)
    assert "secret" not in str(error)
    assert any("mine" in record.getMessage() and record.exc_info for record in caplog.records)


async def test_a_call_that_asks_about_no_picture_is_short(port: Port) -> None:
    error = await fail(port.call(INFER.replace("ModelInfer", "ModelReady"), b"\x0a\x88\x27" + b"x" * 5000))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_deadline_of_the_call_ends_it(port: Port, session: GatedSession) -> None:
    session.gate.clear()
    error = await fail(port.call(INFER, make_message(), timeout_s=0.1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: port.answered(503) + port.answered(499) == 1)


async def test_the_shorter_one_of_two_deadlines_counts(port: Port, session: GatedSession) -> None:
    session.gate.clear()
    error = await fail(port.call(INFER, make_message(timeout_us=50_000), timeout_s=60))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "deadline passed" in (error.details() or "")
    assert port.answered(503) == 1


async def test_without_a_deadline_the_settings_is_one(start: Callable[..., Any], session: GatedSession) -> None:
    async with start(request_timeout_ms=50) as port:
        session.gate.clear()
        error = await fail(port.call(INFER, make_message(), timeout_s=None))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        session.gate.set()


async def test_a_call_that_is_cancelled_gives_its_place_back(port: Port, session: GatedSession) -> None:
    session.gate.clear()
    first = port.call(INFER, make_message(encode(make_picture(seed=1))))
    await until(lambda: session.inside == 1)
    second = port.call(INFER, make_message(encode(make_picture(seed=2))))
    await until(lambda: port.count("unihead_queue_images") == 1)
    second.cancel()
    await until(lambda: port.count("unihead_dropped_images_total") == 1)
    assert port.answered(499) == 1
    session.gate.set()
    await first


async def test_a_call_is_a_line_in_the_log(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unihead"):
        await port.call(INFER, make_message(), (("x-request-id", "mine"),))
        await fail(port.call(INFER, make_message(b"no picture")))
        await fail(port.call("/a/b", b""))
    lines = [record.fields for record in caplog.records if hasattr(record, "fields")]
    known = {"protocol": "grpc", "route": INFER}
    assert lines[0] == {
        **known,
        "request_id": "mine",
        "status": 200,
        "grpc_status": "OK",
        "ms": lines[0]["ms"],
        "cache": "miss",
    }
    assert (lines[1]["status"], lines[1]["grpc_status"], lines[1]["code"]) == (
        415,
        "INVALID_ARGUMENT",
        "unsupported_image",
    )
    assert (lines[2]["route"], lines[2]["grpc_status"]) == ("unmatched", "UNIMPLEMENTED")


async def test_metadata_that_is_no_text_stays_out_of_the_log(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    block = head(INFER.encode(), (b"authorization", b"Bearer uh_secret\xff"))
    with port.connect() as connection:
        connection.sendall(START + call(make_message(), block))
        await until(lambda: port.answered(200) == 1)
    assert "secret" not in caplog.text


@pytest.fixture
async def exporter(start: Callable[..., Any]) -> AsyncIterator[tuple[Port, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with start(Tracing(provider)) as port:
        yield port, exporter


async def test_a_call_is_a_trace_that_goes_on_its_callers(exporter: tuple[Port, InMemorySpanExporter]) -> None:
    port, exported = exporter
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await port.infer(None, ("traceparent", caller), ("x-request-id", "mine"))
    await fail(port.call(INFER, make_message(b"no picture")))
    await until(lambda: len([s for s in exported.get_finished_spans() if s.kind is SpanKind.SERVER]) == 2)
    good, bad = [span for span in exported.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert good.name == "inference.GRPCInferenceService/ModelInfer"
    assert good.parent is not None
    assert f"{good.parent.trace_id:032x}" in caller
    assert good.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK",
        "unihead.request_id": "mine",
        "unihead.cache": "miss",
    }
    assert {"decode", "forward", "encode"} <= {span.name for span in exported.get_finished_spans()}
    assert bad.attributes is not None
    assert bad.attributes["unihead.problem_code"] == "unsupported_image"
    assert bad.status.status_code is StatusCode.UNSET, "it is no failure of the service"


async def test_an_answer_that_is_not_taken_ends_the_connection(start: Callable[..., Any]) -> None:
    async with start(write_timeout_s=0.2) as port:
        message = make_message(encode(make_picture(500, 400), "JPEG"), outputs=["mask"])
        with port.connect() as connection:  # whose window has 64 kB, and never more
            connection.sendall(START + call(message))
            await until(lambda: port.answered(200) == 1)
            assert port.state.memory.taken["answers"] >= 200_000
            received = await asyncio.to_thread(read_to_end, connection)
        assert 60_000 < len(received) < 70_000
        await until(lambda: not any(port.state.memory.taken.values()))


def read_to_end(connection: Any) -> bytes:  # noqa: ANN401 - a socket
    received = b""
    while piece := connection.recv(2**16):
        received += piece
    return received
