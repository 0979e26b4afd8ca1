from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.server.metrics_port import MOST_SCRAPES, serve_metrics

HOST = "127.0.0.1"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("pictures", "Seen.", registry=registry).inc(7)
    return registry


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    with serve_metrics(HOST, 0, registry, ("localhost",)) as port:
        yield port


def scrape(port: int, host: str = "localhost") -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()


def count_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_it_is_scraped_by_names_of_this_machine_alone(port: int) -> None:
    status, text = scrape(port)
    assert (status, "pictures_total 7.0" in text) == (200, True)
    assert scrape(port, "evil.example")[0] == 421


def test_silent_connections_keep_no_scraper_out_and_take_no_more_than_their_places(port: int) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((HOST, port), timeout=10)) for _ in range(100)]
        assert scrape(port)[0] == 200
        assert silent[0].recv(1) == b""  # it made room
        deadline = threading.Event()
        while count_threads() > MOST_SCRAPES:
            assert not deadline.wait(0.01)
    assert scrape(port)[0] == 200


def test_a_scrape_that_fails_is_a_line_in_the_log(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("no more")

    monkeypatch.setattr("service.server.metrics_port._Handler.handle", lambda _: fail())
    with caplog.at_level(logging.WARNING, "unihead"), socket.create_connection((HOST, port), timeout=10) as connection:
        assert connection.recv(1) == b""
    assert "a request for metrics failed: OSError('no more')" in caplog.messages


def test_a_port_that_is_taken_is_an_error_that_names_it(registry: CollectorRegistry, port: int) -> None:
    with pytest.raises(OSError, match="Address already in use"), serve_metrics(HOST, port, registry, ()):
        pass
