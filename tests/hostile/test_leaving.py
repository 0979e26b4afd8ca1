"""How the service leaves: whoever has asked is answered, whoever has not is told, and it ends in time."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.processes import HOST, Running, start
from tests.outside import choose_size
from tests.service.fakes import encode, make_picture

pytestmark = [pytest.mark.slow]

IN_FLIGHT, DRIPPING = 50, 20
# Soon sent and long to decode, so that all are in flight at once; each wants a pass of its own, and has patience.
PICTURE = encode(make_picture(2000, 1500), "WEBP")
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
FRESH = {"Cache-Control": "no-cache", "X-Request-Timeout-Ms": "60000"}


def read_answer(content: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(content)
    del answer["timing_ms"]
    return answer


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask_many(service: Running, pool: ThreadPoolExecutor) -> list[Future[tuple[int, bytes]]]:
    """Ask on as many connections as the pool has threads; returns when the service has all of it in its hands."""
    before = service.count("unihead_http_requests_total")
    asked = [pool.submit(service.ask, "/predict", PICTURE, FRESH) for _ in range(IN_FLIGHT)]
    looks = 0
    while True:
        looks += 1  # each look is a request itself
        under_way = service.count("unihead_images_in_flight")
        answered = service.count("unihead_http_requests_total") - before - 2 * looks
        if under_way + answered >= IN_FLIGHT - 1:
            assert under_way > IN_FLIGHT / 2
            return asked
        time.sleep(0.01)


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(choose_size(20, 6), marks=[pytest.mark.full, pytest.mark.timeout(1200)])]
)
def test_whoever_has_asked_is_answered_and_the_exit_code_is_0(tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        profile = tmp_path / f"profile-{number}.json"
        with start(tmp_path / f"log-{number}", "--profile", str(profile)) as service:
            service.wait_until_ready()
            wanted = read_answer(service.ask("/predict", PICTURE)[1])
            with ThreadPoolExecutor(IN_FLIGHT) as pool:
                asked = ask_many(service, pool)
                service.process.send_signal(signal.SIGTERM)
                told = time.monotonic()
                answers = [future.result() for future in asked]
                assert service.wait(25) == 0
                took_s = time.monotonic() - told
            assert [status for status, _ in answers] == [200] * IN_FLIGHT
            assert all(read_answer(content) == wanted for _, content in answers)
            assert took_s < 25
            log = service.read_log()
            assert [line for line in log if line["level"] in {"error", "critical"}] == []
            assert sum(line["message"] == "request" and line["route"] == "/predict" for line in log) == IN_FLIGHT + 1
        # The trace was closed, with every request in it.
        text = profile.read_text()
        events = json.loads(f"{text.rstrip().rstrip(',')}]")
        assert sum(event["name"] == "/predict" for event in events) == IN_FLIGHT + 1


def drip(port: int, begin: bytes, stop: threading.Event) -> None:
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(begin)
        try:
            while not stop.wait(0.2):
                connection.sendall(b"a")
        except OSError:
            pass  # the service has closed it


@pytest.mark.parametrize("words", [("--body-timeout-s", "3"), pytest.param((), marks=[pytest.mark.full])])
def test_clients_that_never_finish_do_not_keep_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    heads = (b"", HEAD, HEAD + b"X-Slow: ", HEAD + b"Content-Length: 100000\r\n\r\n")
    stop = threading.Event()
    with start(tmp_path / "log", *words) as service, ThreadPoolExecutor(IN_FLIGHT + DRIPPING) as pool:
        service.wait_until_ready()
        for number in range(DRIPPING):
            pool.submit(drip, service.port, heads[number % len(heads)], stop)
        try:
            asked = ask_many(service, pool)
            service.process.send_signal(signal.SIGTERM)
            assert [future.result()[0] for future in asked] == [200] * IN_FLIGHT
            assert service.wait(25) == 0
        finally:
            stop.set()


def takes_connections(service: Running) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, service.port), timeout=5):
        return True
    return False


def test_it_is_not_ready_first_and_takes_no_connection_later(tmp_path: Path) -> None:
    with start(tmp_path / "log", "--drain-delay-s", "1.5") as service:
        service.wait_until_ready()
        kept = http.client.HTTPConnection(HOST, service.port, timeout=10)
        kept.request("GET", "/readyz")
        assert kept.getresponse().read() == b'{"status":"ready"}'
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        kept.request("GET", "/readyz")
        response = kept.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (503, "draining")
        assert service.ask("/v2/health/ready")[0] == 503
        assert service.ask("/healthz")[0] == 200
        assert service.ask("/predict", PICTURE)[0] == 200
        wait_until(lambda: not takes_connections(service), 5)
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
            socket.create_connection((HOST, service.port), timeout=5)
        kept.close()
        assert service.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path / "log") as service, ThreadPoolExecutor(IN_FLIGHT) as pool:
        service.wait_until_ready()
        asked = ask_many(service, pool)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        service.process.send_signal(number)
        told = time.monotonic()
        assert service.wait(10) == 0
        assert time.monotonic() - told < 4
        outcomes = [future.result() for future in asked]
        assert {status for status, _ in outcomes} == {200, 503}
        assert {json.loads(content)["code"] for status, content in outcomes if status == 503} == {"draining"}
        assert not any("exception" in line for line in service.read_log())


LOADS_FOR_LONG = """
import time, service.app
load = service.app.load_live
def wait(*args, **options):
    open({flag!r}, "w").close()
    time.sleep({seconds})
    return load(*args, **options)
service.app.load_live = wait
from service.cli import main; main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_is_loaded_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    flag = tmp_path / "loading"
    with start(tmp_path / "log", script=LOADS_FOR_LONG.format(flag=str(flag), seconds=60)) as service:
        wait_until(flag.exists, 60)
        service.process.send_signal(number)
        assert service.wait(2) == 0
    (line,) = service.read_log()
    assert line["message"] == f"stopped by {number.name} before it was ready"


def test_a_wish_to_reload_while_the_model_is_loaded_is_kept_until_it_is_ready(tmp_path: Path) -> None:
    flag = tmp_path / "loading"
    with start(tmp_path / "log", script=LOADS_FOR_LONG.format(flag=str(flag), seconds=0.5)) as service:
        wait_until(flag.exists, 60)
        for _ in range(3):
            service.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        service.wait_until_ready()
        wait_until(lambda: json.loads(service.ask("/info")[1])["last_reload"] is not None, 30)
        assert json.loads(service.ask("/info")[1])["last_reload"]["outcome"] == "unchanged"


NEVER_ENDS = """
import asyncio, service.server.server
from service.scheduling.scheduler import Scheduler
service.server.server.DRAIN_S = service.server.server._CLOSE_S = 0.2
async def stop(scheduler):
    await asyncio.sleep(60)
Scheduler.stop = stop
from service.cli import main; main()
"""


def test_a_thread_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    with start(tmp_path / "log", script=NEVER_ENDS) as service:
        service.wait_until_ready()
        service.process.send_signal(signal.SIGTERM)
        assert service.wait(5) == 1
    last = service.read_log()[-1]
    assert (last["level"], "is ended by force; its threads: " in last["message"]) == ("critical", True)
