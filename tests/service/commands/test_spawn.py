from __future__ import annotations

import http.client
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.commands.endpoint import EndpointError, get
from service.commands.spawn import KEPT_SETTINGS, SpawnError, leave_out_neighbours, spawn_service
from service.settings import Settings
from tests.service.fakes import write_keys


def test_what_another_service_holds_is_left_out_of_the_environment() -> None:
    own = {"UNIHEAD_MODEL": "m.onnx", "unihead_threads": "1", "PATH": "/bin"}
    names = ("AUTH", "KEYS", "METRICS_PORT", "PID_FILE", "PROFILE", "SHADOW", "DRAIN_DELAY_S", "ALLOWED_HOSTS", "PORT")
    held = {f"UNIHEAD_{name}": "x" for name in names}
    assert leave_out_neighbours(own | held) == own


def test_every_setting_that_is_kept_is_one() -> None:
    names = {f"UNIHEAD_{name.upper()}" for name in Settings.model_fields}
    kept = leave_out_neighbours(dict.fromkeys([*names, "UNIHEAD_NO_SETTING"], "x"))
    assert "UNIHEAD_MODEL" in kept
    assert len(kept) == len(KEPT_SETTINGS)


@pytest.mark.slow
def test_nobody_can_take_the_port_before_the_service_has_it(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    tried = []
    really_start = subprocess.Popen.__init__

    def start(self: subprocess.Popen[bytes], command: list[str], **options: Any) -> None:  # noqa: ANN401 - Popen's
        port = int(command[command.index("--port") + 1])
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port)).close()
        tried.append(port)
        really_start(self, command, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    with spawn_service(["--model", str(tiny_model), "--threads", "1", "--log-level", "error"]) as service:
        assert tried == [service.port]
        assert b"tiny" in get(service.url, "/info", 10, {})
    with pytest.raises(EndpointError, match="refused"):
        get(service.url, "/readyz", 10, {})


@pytest.mark.slow
def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=r"missing\.onnx"), spawn_service(["--model", str(tmp_path / "missing.onnx")]):
        pytest.fail("it started")


@pytest.mark.slow
def test_a_service_beside_another_takes_neither_its_keys_nor_its_ports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "unihead.pid").write_text(str(os.getppid()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, value in {
            "AUTH": "keys",
            "KEYS": str(write_keys(tmp_path / "keys", phone="uh_one")),
            "METRICS_PORT": str(taken.getsockname()[1]),
            "PID_FILE": str(tmp_path / "unihead.pid"),
            "MODEL": str(tiny_model),
        }.items():
            monkeypatch.setenv(f"UNIHEAD_{name}", value)
        with spawn_service(["--log-level", "error"]) as service:
            connection = http.client.HTTPConnection(service.host, service.port, timeout=10)
            connection.request("GET", "/info")
            assert connection.getresponse().status == 200
            connection.close()
