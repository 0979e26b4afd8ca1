"""Connections that are slow, loud, malformed or many, against a real server with short limits."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from service.commands.spawn import Spawned
from service.engine.golden import GOLDEN_PICTURES
from tests.attacks.framing import FRAMINGS, Framing
from tests.attacks.sockets import connect, drip, read_answer, read_to_end, statuses
from tests.attacks.watching import look, scrape
from tests.service.fakes import encode, make_picture

pytestmark = pytest.mark.slow

PICTURE = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda one: one.name)
def test_each_framing_gets_its_status_and_nothing_hangs(service: Spawned, framing: Framing) -> None:
    started = time.monotonic()
    with connect(service) as connection:
        connection.sendall(framing.sent)
        status, headers, body = read_answer(connection)
    assert status in framing.statuses, body
    assert time.monotonic() - started < 1.5
    if status >= 400:
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(body)
        assert (problem["status"], problem["request_id"]) == (status, headers["x-request-id"])


def test_who_says_nothing_is_closed_without_a_word(service: Spawned) -> None:
    started = time.monotonic()
    with connect(service) as connection:
        assert read_to_end(connection) == b""
    assert 0.9 < time.monotonic() - started < 2.5


def test_a_dripping_body_is_refused_in_time(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        received, took_s = drip(connection, PICTURE[:100])
    assert statuses(received) == [408]
    assert b"connection: close" in received.lower()
    assert 1.9 < took_s < 4


@pytest.mark.parametrize("connection_header", [b"", b"Connection: close\r\n"])
def test_a_refusal_reaches_a_client_that_is_still_sending(service: Spawned, connection_header: bytes) -> None:
    length = 50_000_000
    with connect(service) as connection:
        # As a client that looks for an answer only when it has sent all.
        connection.sendall(HEAD + connection_header + b"Content-Length: %d\r\n\r\n" % length)
        connection.sendall(bytes(length))
        assert read_answer(connection)[0] == 413
        if not connection_header:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert statuses(read_to_end(connection)) == [200]


def test_after_a_refusal_whose_body_was_drained_the_connection_goes_on(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        assert read_answer(connection)[0] == 404
        connection.sendall(bytes(500_000))
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
        assert read_answer(connection)[0] == 200


def test_who_waits_to_be_asked_is_asked_once_or_refused_and_closed(service: Spawned) -> None:
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(head % len(PICTURE))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(PICTURE)
        assert read_answer(connection)[0] == 200
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
        assert read_answer(connection)[0] == 200
    with connect(service) as connection:
        connection.sendall(head % 99_999_999)
        # What follows could be the body as well as the next request; nobody may guess.
        assert statuses(read_to_end(connection)) == [413]


def test_requests_in_a_row_are_answered_in_order(service: Spawned) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    other = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(one + other + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert statuses(read_to_end(connection)) == [200, 404, 200]


def test_noise_behind_a_request_does_not_take_its_answer(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE + b"\0noise\0" * 10)
        assert statuses(read_to_end(connection))[0] == 200


def test_a_header_without_end_costs_no_memory(service: Spawned) -> None:
    before = look(service.pid).memory_mb
    with connect(service) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1600):
                connection.sendall(b"a" * 65536)
        received = read_to_end(connection)
    assert statuses(received) == [431]
    assert look(service.pid).memory_mb - before < 5


def test_who_never_reads_is_cut_off(service: Spawned) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((service.host, service.port))
        connection.settimeout(0.5)
        before = scrape(service)["unihead_connections", ()]
        # Answers pile up: at first in the kernel, then in the service.
        with contextlib.suppress(TimeoutError):
            for _ in range(3000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 15
        while scrape(service)["unihead_connections", ()] >= before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert scrape(service)["unihead_connections", ()] < before


def test_outcomes_of_the_protocol_are_counted(service: Spawned) -> None:
    def count() -> float:
        labels = (("method", "other"), ("protocol", "http"), ("route", "unmatched"), ("status", "431"))
        return scrape(service).get(("unihead_http_requests_total", labels), 0)

    before = count()
    with connect(service) as connection:
        connection.sendall(b"GET /" + b"a" * 40_000)
        assert statuses(read_to_end(connection)) == [431]
    assert count() == before + 1


def test_the_connection_after_the_last_is_told_so_and_health_is_answered(narrow: Spawned) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(25):
            busy = stack.enter_context(connect(narrow))
            busy.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        time.sleep(0.2)
        with connect(narrow) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
            status, headers, body = read_answer(connection)
            assert connection.recv(1) == b""
        assert (status, json.loads(body)["code"], headers["retry-after"]) == (503, "overloaded", "1")
        assert headers["connection"] == "close"
        for path in ("healthz", "readyz", "metrics"):
            with connect(narrow) as connection:
                connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert read_answer(connection)[0] == 200
    time.sleep(0.2)
    with connect(narrow) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
        assert read_answer(connection)[0] == 200


def test_half_headers_keep_nobody_out(narrow: Spawned) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(100):
            half = stack.enter_context(connect(narrow))
            half.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "[: number % 40])
        for path in ("/healthz", "/info"):
            with connect(narrow) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert read_answer(connection)[0] == 200


def test_who_sends_no_more_is_answered(service: Spawned) -> None:
    with connect(service) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(read_to_end(connection)) == [200]


def test_who_reads_a_large_answer_at_the_promised_rate_is_not_cut_off(service: Spawned) -> None:
    picture = encode(make_picture(3000, 3000), "PNG")  # a mask of 12 MB, against 64 KiB in 2 s
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.settimeout(5)
        connection.connect((service.host, service.port))
        ask = b"POST /segment?mask=raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(ask % len(picture) + picture)
        received, until = connection.recv(2**14), time.monotonic() + 7  # the write timeout is 2 s, lingering takes 5
        while time.monotonic() < until:
            received += connection.recv(2**14)
            time.sleep(0.4)
        while piece := connection.recv(2**16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n"


def test_bodies_together_have_a_limit_that_slow_clients_do_not_take(narrow: Spawned) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):  # they announce forty megabytes, and send little
            slow = stack.enter_context(connect(narrow))
            slow.sendall(HEAD + b"Content-Length: 2000000\r\n\r\n" + PICTURE[:100])
        with connect(narrow) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
            assert read_answer(connection)[0] == 200
        for size in (1_990_000, 1_990_000):
            big = stack.enter_context(connect(narrow))
            big.sendall(HEAD + b"Content-Length: 2000000\r\n\r\n" + bytes(size))
        time.sleep(0.3)
        assert scrape(narrow)["unihead_memory_bytes", (("use", "bodies"),)] == pytest.approx(3_982_000)
        with connect(narrow) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
            status, headers, body = read_answer(connection)
        assert (status, json.loads(body)["code"], headers["retry-after"]) == (503, "overloaded", "1")
        assert scrape(narrow)["unihead_refused_requests_total", (("reason", "memory"),)] == 1
