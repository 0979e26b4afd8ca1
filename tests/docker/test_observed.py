"""A real Prometheus scrapes the real service: every expression of dashboard and rules has an answer, no alert is on."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.settings import Settings
from tests.docker.observing import DASHBOARD, ROOT, Prometheus, run_prometheus
from tests.outside import find_command

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


@pytest.fixture(scope="module")
def service() -> Iterator[Spawned]:
    # Its own model in the shadow, so that the shadow's panels have something to show.
    with spawn_service(["--log-level", "warning", "--shadow", str(Settings().model), "--shadow-percent", "100"]) as one:
        yield one


@pytest.fixture(scope="module")
def prometheus(service: Spawned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with run_prometheus(find_command("prometheus"), service, tmp_path_factory.mktemp("prometheus")) as asked:
        _send_pictures(service)
        yield asked


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
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in found} == {rule["alert"]: "ok" for rule in ALERTS}
    # One may be pending where the machine is busy with other things: nobody is woken by that.
    assert [rule["name"] for rule in found if rule["state"] == "firing"] == []


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
