"""A service in a process of its own that a test may hurt: its environment, limits, stderr and start are the test's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
_MAIN = "from service.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Running:
    """A process that serves, or will.

    Attributes:
        process: itself.
        port: where it listens once it is ready.
        log: what it has said.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> tuple[int, bytes]:
        """Ask once, on a connection of its own; returns status and body, raises OSError or HTTPException."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/readyz", timeout_s=2)[0] == 200
        return False

    def wait_until_ready(self, patience_s: float = 60) -> float:
        """Wait, and return the seconds that it took."""
        started = time.monotonic()
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - started < patience_s, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - started

    def count(self, name: str) -> float:
        """Read one metric, summed over its labels."""
        lines = self.ask("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def read_log(self) -> list[dict[str, Any]]:
        """Read what it has said, each line an object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait(self, patience_s: float) -> int:
        """Wait for its end, and return the exit code."""
        return self.process.wait(patience_s)


def find_port() -> int:
    """A port that is free now."""
    with socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def start(
    log: Path,
    *words: str,
    port: int | None = None,
    script: str = _MAIN,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
    stderr: int | None = None,
    cwd: Path = ROOT,
    before: tuple[str, ...] = (),
) -> Iterator[Running]:
    """Start `unihead-serve`; killed at the end of the block if it still runs.

    Args:
        log: file that gets its stderr.
        words: of its command line, besides host and port.
        port: where it listens; None takes a free one.
        script: that is run in place of `main()`.
        environment: on top of this process's own.
        prepare: called in the child before the program.
        stderr: file descriptor in place of the log.
        cwd: where it runs.
        before: a program that starts it.
    """
    port = port or find_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UNIHEAD_")}
    command = [*before, sys.executable, "-c", script, "--host", HOST, "--port", str(port), *words]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stderr=file if stderr is None else stderr,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
            cwd=cwd,
            preexec_fn=prepare,  # noqa: PLW1509 - what it does is meant for the child
        )
    try:
        yield Running(process, port, log)
    finally:
        process.kill()
        process.wait()
