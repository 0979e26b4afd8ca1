"""A real Prometheus scrapes the real service: every expression of dashboard and rules has an answer, no alert is on."""

from __future__ import annotations

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

import pytest
import yaml

from service.golden import GOLDEN_PICTURES
from service.settings import Settings
from service.spawn import Spawned, spawn_service

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docker/grafana/dashboards/unihead.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker/prometheus/rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
RECORDED = [rule for rule in RULES if "record" in rule]
ALERTS = [rule for rule in RULES if "alert" in rule]
WINDOW_S = 20

pytestmark = pytest.mark.slow


class Prometheus:
    """A server that is asked over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}") as response:  # noqa: S310 - our own server
            return json.load(response)["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.ask("vector(1)"):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("Prometheus did not become ready")


@pytest.fixture(scope="module")
def service() -> Iterator[Spawned]:
    # Its own model in the shadow, so that the shadow's panels have something to show.
    with spawn_service(["--log-level", "warning", "--shadow", str(Settings().model), "--shadow-percent", "100"]) as one:
        yield one


@pytest.fixture(scope="module")
def prometheus(service: Spawned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
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
            _send_pictures(service)
            yield asked
        finally:
            process.terminate()


def _send_pictures(service: Spawned) -> None:
    """Ask all tasks about some pictures, for as long as rates need."""
    bodies = [path.read_bytes() for path in sorted(GOLDEN_PICTURES.glob("*.jpg"))]
    stop = time.monotonic() + WINDOW_S / 2
    turn = 0
    while time.monotonic() < stop:
        for path in ("segment", "detect", "classify", "predict"):
            url = f"http://{service.host}:{service.port}/{path}"
            body = bodies[turn % len(bodies)] + str(turn).encode()
            with urllib.request.urlopen(urllib.request.Request(url, data=body)) as response:
                response.read()
        turn += 1
        time.sleep(0.1)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_panel_has_something_to_show(prometheus: Prometheus, expression: str) -> None:
    found = prometheus.ask(expression.replace("$__rate_interval", f"{WINDOW_S}s"))
    assert found
    assert all(one["value"][1] not in {"NaN", "+Inf", "-Inf"} for one in found if "task" not in one["metric"])


@pytest.mark.parametrize("rule", RECORDED, ids=[rule["record"] for rule in RECORDED])
def test_every_recorded_figure_is_there(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    assert prometheus.ask(rule["record"])


def test_every_alert_is_loaded_and_silent(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules", type="alert")["groups"]
    states = {rule["name"]: (rule["state"], rule["health"]) for group in groups for rule in group["rules"]}
    assert states == {rule["alert"]: ("inactive", "ok") for rule in ALERTS}


def test_the_mean_that_prometheus_sees_is_the_services_own(prometheus: Prometheus) -> None:
    (passes,) = prometheus.ask("unihead_forward_passes_total")
    (served,) = prometheus.ask('sum(unihead_cache_requests_total{result=~"miss|bypass"})')
    assert float(passes["value"][1]) == float(served["value"][1]) > 0


def test_every_alert_has_a_runbook_and_every_panel_a_description() -> None:
    runbooks = (ROOT / "docs/deploy.md").read_text()
    for rule in ALERTS:
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/deploy.md"
        assert anchor == rule["alert"].lower()
        assert f"### {rule['alert']}\n" in runbooks
    assert all(panel["description"] for panel in DASHBOARD["panels"])


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
