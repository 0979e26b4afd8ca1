"""The gRPC port of a real process: how it begins, what it needs, and how it leaves."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.commands.spawn import SpawnError
from tests.attacks.processes import find_port, start
from tests.checkout import ROOT
from tests.grpc_service import spawn_grpc
from tests.service.api.grpc.asking import INFER, make_message
from tests.service.fakes import encode, make_picture

pytestmark = pytest.mark.slow

Bytes: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
CHECK = "/grpc.health.v1.Health/Check"


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpawnError, match=r"--grpc-port") as failure, spawn_grpc("--grpc-port", str(port)):
            pass
    assert "Traceback" not in str(failure.value)


@pytest.mark.parametrize("missing", ["grpc", "grpc_health", "google.protobuf"])
def test_without_the_extra_the_start_says_what_to_install(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main()"
    done = run(script, "--port", "0", "--grpc-port", "0")
    (sentence,) = done.stderr.splitlines()
    assert re.fullmatch(
        rf"unihead-serve: a gRPC port is asked for, and {missing}[\w.]* is not installed; "
        r"pip install 'unihead\[grpc\]' brings it",
        sentence,
    )
    assert done.returncode == 1


def test_without_the_generated_code_the_start_says_how_to_make_it() -> None:
    module = "service.api.grpc.open_inference_pb2"
    script = f"import sys; sys.modules[{module!r}] = None; from service.cli import main; main()"
    (sentence,) = run(script, "--port", "0", "--grpc-port", "0").stderr.splitlines()
    assert "grpcio-tools: install unihead again" in sentence


def test_without_a_grpc_port_nothing_for_it_is_imported() -> None:
    script = (
        "import sys, service.server.serve, service.cli, service.app; "
        "print([name for name in sys.modules if name.split('.')[0] in {'grpc', 'grpc_health', 'google'} "
        "or name.startswith('service.api.grpc')])"
    )
    assert run(script).stdout == "[]\n"


def test_who_is_in_flight_is_answered_when_the_service_leaves(tmp_path: Path) -> None:
    port, log = find_port(), tmp_path / "log"
    message = make_message(encode(make_picture(2000, 1500), "WEBP"))
    words = ("--grpc-port", str(port), "--drain-delay-s", "1", "--threads", "1")
    with start(log, *words) as service, ThreadPoolExecutor(8) as pool:
        service.wait_until_ready()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer: Bytes = channel.unary_unary(INFER)
            check: Bytes = channel.unary_unary(CHECK)
            fresh = (("cache-control", "no-cache"),)
            asked = [pool.submit(infer, message, timeout=60, metadata=fresh) for _ in range(8)]
            while service.count("unihead_images_in_flight") < 8:
                time.sleep(0.01)
            service.process.send_signal(signal.SIGTERM)
            while HealthCheckResponse.FromString(check(HealthCheckRequest().SerializeToString())).status != (
                HealthCheckResponse.NOT_SERVING
            ):
                time.sleep(0.01)
            assert all(one.result() for one in asked)
        assert service.wait(30) == 0
    assert "cancelled" not in log.read_text()
