"""Requests that follow each other on one connection: each gets its own answer, its own time and its own id."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from tests.attacks.sockets import connect, read_answer, read_to_end, statuses
from tests.attacks.watching import scrape

pytestmark = pytest.mark.slow

PICTURE = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nCache-Control: no-cache\r\nContent-Length: %d\r\n\r\n%b"
ASK = POST % (len(PICTURE), PICTURE)
BROKEN_CHUNK = b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
H2C = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("bad", [BROKEN_CHUNK, b"GET / HTTP/1.1\r\n\r\n", b"\0\1\2", b"BREW / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("good", [GET, ASK])
def test_what_is_wrong_with_a_request_is_told_after_the_answer_before_it(
    service: Spawned, good: bytes, bad: bytes
) -> None:
    with connect(service) as connection:
        connection.sendall(good + bad)
        assert statuses(read_to_end(connection)) == [200, 400]


def test_a_broken_body_is_answered_and_counted_as_the_request_that_it_is(service: Spawned) -> None:
    labels = (("method", "POST"), ("protocol", "http"), ("route", "/classify"), ("status", "400"))
    before = scrape(service).get(("unihead_http_requests_total", labels), 0)
    with connect(service) as connection:
        connection.sendall(BROKEN_CHUNK.replace(b"Host: x\r\n", b"Host: x\r\nX-Request-ID: mine\r\n"))
        status, headers, body = read_answer(connection)
    assert (status, headers["x-request-id"], json.loads(body)["request_id"]) == (400, "mine", "mine")
    assert scrape(service)["unihead_http_requests_total", labels] == before + 1


@pytest.mark.parametrize("end", [b"\r\n", b"Transfer-Encoding: chunked\r\nHost: x\r\n\r\nzz\r\n"])
def test_clients_of_the_inference_protocol_are_refused_in_its_words(service: Spawned, end: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(b"POST /v2/models/unihead/infer HTTP/1.1\r\n" + end)
        status, _, body = read_answer(connection)
    assert status == 400
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("cut", [0, 20, H2C.index(b"rade: h2c"), H2C.index(b"abc"), len(H2C) - 1])
def test_a_proposal_of_another_protocol_costs_no_body_however_it_comes(service: Spawned, cut: int) -> None:
    sent = GET + H2C
    with connect(service) as connection:
        connection.sendall(sent[: len(GET) + cut])
        time.sleep(0.1)
        connection.sendall(sent[len(GET) + cut :] + LAST)
        assert statuses(read_to_end(connection)) == [200, 415, 200]  # 415: the body has been looked at


def test_so_many_requests_may_wait_for_each_other_and_the_last_answer_says_that_it_is(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(ASK + GET * 100)
        received = read_to_end(connection)
    assert statuses(received) == [200] * 33
    assert received.lower().count(b"connection: close") == 1


def test_noise_behind_the_last_request_does_not_take_its_answer(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(LAST + bytes(3_000_000))
        assert statuses(read_to_end(connection)) == [200]


def test_at_the_end_who_idles_is_closed_who_has_just_connected_is_answered_and_nobody_else_is_waited_for() -> None:
    with (
        spawn_service(["--log-level", "error"]) as service,
        connect(service) as kept,
        connect(service) as new,
        connect(service) as silent,
    ):
        kept.sendall(GET)
        assert read_answer(kept)[0] == 200
        os.kill(service.pid, signal.SIGTERM)
        started = time.monotonic()
        assert kept.recv(1) == b""
        assert time.monotonic() - started < 0.8
        new.sendall(GET)
        status, headers, _ = read_answer(new)
        assert (status, headers["connection"]) == (200, "close")
        assert silent.recv(1) == b""
        assert time.monotonic() - started < 2.5
