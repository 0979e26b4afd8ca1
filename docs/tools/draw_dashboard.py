"""The panels of the Grafana dashboard, drawn from its own expressions and from what a real Prometheus scraped.

Not Grafana: a script that reads docker/grafana/dashboards/unihead.json, runs the service with a second copy of its
model in the shadow, lets clients come and go for two minutes, and asks Prometheus for every expression of every panel.

Run from the repository's root, with Prometheus installed: `python docs/tools/draw_dashboard.py`, which writes
docs/pictures/dashboard.png.
"""

from __future__ import annotations

import http.client
import itertools
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.settings import Settings
from tests.docker.observing import DASHBOARD, ROOT, Prometheus, run_prometheus

# Clients at once, one step after another.
STEPS = (1, 2, 4, 8, 16)
STEP_S = 20
WINDOW = "10s"
UNITS = {"ms": "ms", "reqps": "1/s", "s": "s", "bytes": "MB", "percentunit": "%", "none": ""}
FACTORS = {"bytes": 1e-6, "percentunit": 100.0}
PATHS = ("/segment", "/detect", "/classify", "/predict")


def send(service: Spawned, stop: threading.Event) -> None:
    """Ask for one task after another; every third picture is one that was asked about before."""
    bodies = [path.read_bytes() for path in sorted(GOLDEN_PICTURES.glob("*.jpg"))]
    for turn in itertools.count():
        if stop.is_set():
            return
        body = bodies[turn % len(bodies)] + (b"" if turn % 3 == 0 else f"{threading.get_ident()}-{turn}".encode())
        connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
        connection.request("POST", PATHS[turn % len(PATHS)], body, {"X-Request-Timeout-Ms": "2000"})
        connection.getresponse().read()
        connection.close()


def make_traffic(service: Spawned) -> None:
    """Let clients come, step by step, and go."""
    for clients in STEPS:
        stop = threading.Event()
        threads = [threading.Thread(target=send, args=(service, stop)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(STEP_S)
        stop.set()
        for thread in threads:
            thread.join()


def name_of(template: str, labels: dict[str, str]) -> str:
    """A legend as Grafana writes it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).strip()


def _at(points: dict[float, float], moment: float) -> float:
    """The value of a series at a moment, 0 before its first."""
    nearest = min(points, key=lambda at: abs(at - moment))
    return points[nearest] if abs(nearest - moment) <= 1 else 0.0


def draw_panel(axis: Axes, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    """One panel: a number, or lines or areas over time."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    factor = FACTORS.get(unit, 1.0)
    axis.set_title(panel["title"], fontsize=9, loc="left")
    expressions = [(one["expr"].replace("$__rate_interval", WINDOW), one["legendFormat"]) for one in panel["targets"]]
    if panel["type"] == "stat":
        (series,) = prometheus.ask_range(expressions[0][0], start=end - 5, end=end - 5, step_s=1)[:1]
        text = f"{float(series['values'][-1][1]) * factor:.3g} {UNITS[unit]}"
        if panel["options"]["textMode"] == "name":
            text = name_of(expressions[0][1], series["metric"])
        axis.text(0.5, 0.4, text, fontsize=12, ha="center", va="center")
        axis.axis("off")
        return
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    lines: dict[str, dict[float, float]] = {}
    for expression, legend in expressions:
        for series in prometheus.ask_range(expression, start=start, end=end, step_s=1):
            points = {float(moment) - start: float(value) * factor for moment, value in series["values"]}
            lines[name_of(legend, {**series["metric"], "instance": ""})] = points
    moments = [float(second) for second in range(int(end - start) + 1)]
    values = {name: [_at(points, moment) for moment in moments] for name, points in sorted(lines.items())}
    if stacked:
        axis.stackplot(moments, list(values.values()), labels=list(values), alpha=0.85)
    else:
        for name, heights in values.items():
            axis.plot(moments, heights, linewidth=1, label=name)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(UNITS[unit], fontsize=7)
    axis.tick_params(labelsize=7)
    if any(values):  # one line without a name needs none
        axis.legend(fontsize=6, frameon=False, ncols=2, loc="upper left")
        axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the names
    axis.spines[["top", "right"]].set_visible(False)


def draw(prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """All panels where the dashboard has them."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in DASHBOARD["panels"])
    inches = height * 0.34 + 0.4
    figure = plt.figure(figsize=(14, inches))
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        left, width = place["x"] / 24 + 0.035, place["w"] / 24 - 0.05
        bottom, tall = height - place["y"] - place["h"] + 0.9, place["h"] - 1.9
        rows = 1 / (height + 1.2)
        axis = figure.add_axes((left, bottom * rows, width, tall * rows))
        draw_panel(axis, panel, prometheus, start, end)
    figure.suptitle(
        "The dashboard's panels, drawn by docs/tools/draw_dashboard.py from its expressions and scraped data "
        f"(not Grafana); {', '.join(map(str, STEPS))} clients for {STEP_S} s each",
        fontsize=9,
        y=0.995,
    )
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> int:
    """Draw it; returns the exit code."""
    binary = shutil.which("prometheus")
    if binary is None:
        sys.stderr.write("prometheus is missing (Debian package prometheus)\n")
        return 2
    words = ["--log-level", "error", "--shadow", str(Settings().model), "--shadow-percent", "5"]
    with (
        tempfile.TemporaryDirectory() as folder,
        spawn_service(words) as service,
        run_prometheus(binary, service, Path(folder)) as prometheus,
    ):
        time.sleep(3)
        start = time.time()
        make_traffic(service)
        draw(prometheus, start + 5, time.time(), ROOT / "docs" / "pictures" / "dashboard.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
