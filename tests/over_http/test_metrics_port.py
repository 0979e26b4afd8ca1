"""Metrics on a port of their own."""

from __future__ import annotations

import http.client
import socket

import pytest

from service.commands.spawn import SpawnError, spawn_service

pytestmark = pytest.mark.slow


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_metrics_move_to_their_port_and_leave_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with spawn_service(["--metrics-port", str(port), "--log-level", "warning"]) as service:
        assert get(service.port, "/healthz")[0] == 200
        assert get(service.port, "/metrics")[0] == 404
        status, text = get(port, "/metrics")
        assert status == 200
        assert 'unihead_http_requests_total{method="GET",protocol="http",route="/healthz",status="200"} 1.0' in text
        assert "unihead_model_info" in text


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SpawnError, match=r"--metrics-port") as failure,
            spawn_service(["--metrics-port", str(port)]),
        ):
            pass
    assert "Traceback" not in str(failure.value)
