import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.outside import find_command

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker/prometheus/prometheus.yml"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return loaded


def test_prometheus_scrapes_the_service_where_compose_puts_it_and_nobody_else_gets_there(
    config: dict[str, Any],
) -> None:
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][host]
    assert f"UNIHEAD_METRICS_PORT={port}" in service["environment"]
    published = [entry.rpartition(":")[2] for entry in service["ports"]]
    assert published == ["8000"] != [port]
    assert "EXPOSE 8000" in (ROOT / "docker/service.Dockerfile").read_text().splitlines()
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_prometheus_scrapes_every_five_seconds(config: dict[str, Any]) -> None:
    assert config["global"] == {"scrape_interval": "5s", "scrape_timeout": "4s"}


def test_promtool_accepts_the_config() -> None:
    command = [find_command("promtool"), "check", "config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
