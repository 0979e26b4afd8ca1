"""A real Prometheus with this project's rules, for tests and for the picture of the dashboard."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from service.commands.spawn import Spawned

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docker/grafana/dashboards/unihead.json").read_text())


class Prometheus:
    """A server that is asked over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        """The data that a path of the API answers with."""
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}") as response:  # noqa: S310 - our own server
            return json.load(response)["data"]

    def ask_range(self, expression: str, *, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The series of an expression between two moments, in seconds since the epoch."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        found: list[dict[str, Any]] = self.get("query_range", query=expression, **times)["result"]
        return found

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def wait_until_ready(self) -> None:
        """Return once it answers."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.ask("vector(1)"):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("Prometheus did not become ready")


@contextlib.contextmanager
def run_prometheus(binary: str, service: Spawned, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, every second and on this service, until the block ends."""
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"{service.host}:{service.port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(ROOT / "docker/prometheus/rules.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            asked = Prometheus(port)
            asked.wait_until_ready()
            yield asked
        finally:
            process.terminate()
