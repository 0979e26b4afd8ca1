"""A service of one's own for the length of a block: another process, a free port, ready when the block begins."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from service.commands.endpoint import EndpointError, get
from service.errors import UniheadError
from service.settings import ENV_PREFIX

_HOST = "127.0.0.1"
# How pictures are answered. All else (keys, ports, files that are written, a shadow, how long a stop takes) is the
# affair of a service that runs here already.
KEPT_SETTINGS = (
    *("model", "model_sha256", "golden", "threads", "providers", "max_batch", "max_delay_ms"),
    *("cache_max_bytes", "cache_max_age_s", "memory_bytes", "queue_limit", "request_timeout_ms"),
    *("max_body_bytes", "max_files", "max_pixels", "max_side", "max_aspect"),
    *("max_scans", "max_scan_megapixels", "max_frames"),
)
_KEPT = frozenset(f"{ENV_PREFIX}{name.upper()}" for name in KEPT_SETTINGS)
_START_S = 60
_STOP_S = 30
_POLL_S = 0.05


class SpawnError(UniheadError):
    """The service did not become ready; says what it said."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A running service.

    Attributes:
        host, port: where it listens.
        pid: its process.
    """

    host: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def spawn_service(words: Sequence[str]) -> Iterator[Spawned]:
    """Run `unihead-serve` with further words until the block ends; without keys, unless the words name a key file.

    Raises:
        SpawnError: it does not become ready.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        # Bound here and handed over: a port that was only found to be free could be another's by the time of the start.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind((_HOST, 0))
            listener.listen()
            port, descriptor = listener.getsockname()[1], listener.fileno()
            python = [sys.executable, "-c", f"from service.cli import main; main(descriptor={descriptor})"]
            command = [*python, "--host", _HOST, "--port", str(port), *words]
            environment = leave_out_neighbours(os.environ)
            process = stack.enter_context(
                subprocess.Popen(command, stderr=log, env=environment, pass_fds=[descriptor])  # noqa: S603 - our own
            )
        try:
            service = Spawned(_HOST, port, process.pid)
            _wait_until_ready(process, service.url, log)
            yield service
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            process.kill()


def leave_out_neighbours(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep the variables that a service of our own may have: of settings those that say how pictures are answered."""
    return {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith(ENV_PREFIX) or name.upper() in _KEPT
    }


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(EndpointError):
            get(url, "/readyz", 1, {})
            return
        time.sleep(_POLL_S)
    log.seek(0)
    raise SpawnError(log.read().strip() or f"the service was not ready within {_START_S} s")
