"""One connection that sends as fast as it can what costs more to read than to send."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from service.commands.spawn import Spawned, spawn_service
from tests.attacks.sockets import connect, read_answer, read_to_end, statuses
from tests.attacks.watching import look, reset_peak

pytestmark = pytest.mark.slow

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
MAX_GROWTH_MB = 8
MAX_WAIT_S = 0.5  # of an honest client beside it; before there were limits it waited for seconds


@pytest.fixture(scope="module")
def service() -> Iterator[Spawned]:
    with spawn_service(["--header-timeout-s", "2", "--body-timeout-s", "4", "--log-level", "error"]) as spawned:
        flood(spawned, GET, GET * 100, 1)  # what the first one costs is no growth
        yield spawned


def flood(service: Spawned, first: bytes, then: bytes, times: int) -> bytes:
    """Send as much as the service takes, and hear what it says."""
    with connect(service) as connection:
        connection.sendall(first)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(times):
                connection.sendall(then)
        connection.settimeout(5)
        return read_to_end(connection)


@contextlib.contextmanager
def watch_honest(service: Spawned) -> Iterator[Callable[[], float]]:
    """Ask for something small all the time; gives what tells the longest wait, in seconds."""
    waits, done = [0.0], threading.Event()

    def ask() -> None:
        with connect(service) as connection:
            while not done.wait(0.005):
                started = time.monotonic()
                connection.sendall(GET)
                assert read_answer(connection)[0] == 200
                waits.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: max(waits)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "then", "times", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nX: ", b"a" * 65536, 1600, 431, id="a header without end"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a:\r\n" * 16384, 100, 431, id="headers without end"),
        pytest.param(b"GET /", b"a" * 65536, 1600, 431, id="a path without end"),
        pytest.param(b"", b"\r\n" * 32768, 1600, 431, id="empty lines without end"),
        pytest.param(b"POST /predict" + CHUNKED + b"0\r\nX: ", b"a" * 65536, 1600, 431, id="a trailer without end"),
        pytest.param(
            b"GET /healthz" + CHUNKED + b"0\r\nX: ", b"a" * 65536, 1600, 200, id="a trailer that nobody reads"
        ),
        pytest.param(b"POST /predict" + CHUNKED + b"3;", b"a" * 65536, 1600, 431, id="an extension without end"),
        pytest.param(b"POST /predict" + CHUNKED, b"1\r\na\r\n" * 40_000, 20, 400, id="chunks of one byte"),
        pytest.param(b"GET /healthz" + CHUNKED, b"1\r\na\r\n" * 40_000, 20, 200, id="small chunks that nobody reads"),
        pytest.param(b"", GET * 6000, 60, 200, id="requests without end"),
    ],
)
def test_a_flood_is_cut_off_and_costs_neither_memory_nor_other_peoples_time(
    service: Spawned, first: bytes, then: bytes, times: int, status: int
) -> None:
    reset_peak(service.pid)
    before = look(service.pid).memory_mb
    with watch_honest(service) as longest_wait_s:
        received = flood(service, first, then, times)
        assert statuses(received)[0] == status
        assert look(service.pid).peak_mb - before < MAX_GROWTH_MB
        assert longest_wait_s() < MAX_WAIT_S


def test_a_body_in_many_chunks_of_a_usual_size_is_taken(service: Spawned) -> None:
    chunks = b"80\r\n" + bytes(128) + b"\r\n"
    with connect(service) as connection:
        connection.sendall(b"POST /predict" + CHUNKED + chunks * 10_000 + b"0\r\n\r\n")
        assert read_answer(connection)[0] == 415


def test_an_idle_connection_makes_room_for_a_new_one(narrow: Spawned) -> None:
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connect(narrow)) for _ in range(25)]
        for connection in kept:
            connection.sendall(GET)
            assert read_answer(connection)[0] == 200
            time.sleep(0.01)
        new = stack.enter_context(connect(narrow))
        new.sendall(GET)
        assert read_answer(new)[0] == 200
        assert kept[0].recv(1) == b""  # it had idled longest
        kept[1].sendall(GET)
        assert read_answer(kept[1])[0] == 200
