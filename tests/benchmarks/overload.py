"""Five times as many pictures as the service can take, for a minute: how those fare that it takes, refuses, or probes.

Capacity is what a closed loop of eight connections gets from the same generator (h2load) in the same run; then requests
come at five times that rate, over enough connections that those who wait hold nobody up. Beside it somebody looks every
tenth of a second at /healthz, and somebody sends pictures to read the headers of refusals.

Run from the repository's root, with h2load installed (Debian package nghttp2-client):
`python -m tests.benchmarks.overload`
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus
from service.settings import Settings

_PROBE_EVERY_S = 0.1
_CAPACITY_CONNECTIONS = 8
_GENERATORS = 10
_TAKEN, _REFUSED = 200, 503


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: its status, when it was asked for (seconds since the epoch), and the milliseconds that it took."""

    status: int
    started_s: float
    took_ms: float

    @property
    def ended_s(self) -> float:
        """When it was there; in seconds since the epoch."""
        return self.started_s + self.took_ms / 1000


@dataclass(frozen=True, slots=True)
class Answers:
    """What came within a time, in seconds."""

    seen: list[Seen]
    seconds: float

    def per_second(self, *statuses: int) -> float:
        """Answers a second with one of these statuses."""
        return sum(one.status in statuses for one in self.seen) / self.seconds

    def times_ms(self, status: int) -> list[float]:
        """Milliseconds of all answers with this status."""
        return [one.took_ms for one in self.seen if one.status == status]


@dataclass(slots=True)
class Probes:
    """What the probe has seen beside the load.

    Attributes:
        health_ms: milliseconds of each /healthz.
        refused: pictures answered with 503.
        without_retry_after: those of them that did not say when to come back.
    """

    health_ms: list[float] = field(default_factory=list)
    refused: int = 0
    without_retry_after: int = 0


def load(
    service: Spawned, picture: Path, *, connections: int, seconds: float, rate: float = 0, generators: int = 1
) -> Answers:
    """Post one picture over and over, each time for an own pass; gives what came while all generators were at work.

    Args:
        service: to ask.
        picture: a file.
        connections: at once, in all; each waits for its answer before it asks again.
        seconds: how long.
        rate: requests a second, in all; 0: as many as are answered.
        generators: processes, begun one after another within one turn of their connections: the connections of one ask
            all at the same moment.
    """
    each = connections // generators
    command = ["h2load", "--h1", f"--clients={each}", f"--duration={seconds:g}", f"--data={picture}"]
    command += ["--header=Cache-Control: no-cache"]
    command += [f"--rps={rate / connections:.4f}"] if rate else []
    seen: list[list[Seen]] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{number}.tsv") for number in range(generators)]
        running: list[subprocess.Popen[bytes]] = []
        for log in logs:
            one = [*command, f"--log-file={log}", f"http://{service.host}:{service.port}/predict"]
            running.append(subprocess.Popen(one, stdout=subprocess.DEVNULL))
            time.sleep(connections / rate / generators if rate else 0)
        for process, log in zip(running, logs, strict=True):
            if process.wait() != 0:
                raise RuntimeError(f"h2load ended with {process.returncode}")
            rows = [line.split("\t") for line in log.read_text().splitlines()]
            seen.append([Seen(int(row[1]), int(row[0]) / 1e6, int(row[2]) / 1e3) for row in rows])
    began = max(min(one.started_s for one in answers) for answers in seen)
    ended = min(max(one.started_s for one in answers) for answers in seen)
    return Answers([one for answers in seen for one in answers if began <= one.ended_s <= ended], ended - began)


def watch_health(service: Spawned, probes: Probes, stop: threading.Event) -> None:
    """Look at /healthz until told to stop."""
    while not stop.wait(_PROBE_EVERY_S):
        connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
        started = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        probes.health_ms.append((time.perf_counter() - started) * 1000)
        connection.close()


def read_refusals(service: Spawned, picture: bytes, probes: Probes, stop: threading.Event) -> None:
    """Send a picture, again and again until told to stop, and read what a refusal says."""
    while not stop.wait(_PROBE_EVERY_S):
        connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
        connection.request("POST", "/predict", picture)
        response = connection.getresponse()
        response.read()
        if response.status == _REFUSED:
            probes.refused += 1
            probes.without_retry_after += not (response.getheader("Retry-After") or "").isdecimal()
        connection.close()


def summarise(capacity: float, wanted: float, answers: Answers, probes: Probes) -> dict[str, Any]:
    """What the goals ask for."""
    taken, refused = answers.times_ms(_TAKEN), answers.times_ms(_REFUSED)
    goodput = answers.per_second(_TAKEN)
    return {
        "capacity_per_second": round(capacity, 1),
        "wanted_per_second": round(wanted, 1),
        "answered_per_second": round(goodput + answers.per_second(_REFUSED), 1),
        "goodput_per_second": round(goodput, 1),
        "goodput_of_capacity": round(goodput / capacity, 3),
        "taken_p50_ms": _percentile(taken, 0.5),
        "taken_p99_ms": _percentile(taken, 0.99),
        "refused_per_second": round(answers.per_second(_REFUSED), 1),
        "refused_p50_ms": _percentile(refused, 0.5),
        "refused_p99_ms": _percentile(refused, 0.99),
        "refused_max_ms": _percentile(refused, 1),
        "refusals_read": probes.refused,
        "refusals_without_retry_after": probes.without_retry_after,
        "other_statuses": sorted({one.status for one in answers.seen} - {_TAKEN, _REFUSED}),
        "health_p99_ms": _percentile(probes.health_ms, 0.99),
        "health_max_ms": _percentile(probes.health_ms, 1),
    }


def _percentile(values: Sequence[float], share: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 1) if values else None


def run(service: Spawned, options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, find the capacity, then more than that."""
    picture: Path = options.picture
    load(service, picture, connections=_CAPACITY_CONNECTIONS, seconds=2)
    answers = load(service, picture, connections=_CAPACITY_CONNECTIONS, seconds=options.capacity_seconds)
    capacity = answers.per_second(_TAKEN)
    wanted = options.times * capacity
    stop, probes = threading.Event(), Probes()
    watchers = [
        threading.Thread(target=watch_health, args=(service, probes, stop)),
        threading.Thread(target=read_refusals, args=(service, picture.read_bytes(), probes, stop)),
    ]
    for watcher in watchers:
        watcher.start()
    try:
        answers = load(
            service,
            picture,
            connections=options.connections,
            seconds=options.seconds,
            rate=wanted,
            generators=_GENERATORS,
        )
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    return summarise(capacity, wanted, answers, probes)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; None means that of this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--picture", type=Path, default=GOLDEN_PICTURES / "coffee.jpg")
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--times", type=float, default=5, help="the capacity")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--capacity-seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=400, help="of the overload")
    return parser.parse_args(arguments)


def main() -> int:
    """Print one line of JSON; returns the exit code."""
    options = read_options()
    if shutil.which("h2load") is None:
        print("h2load is missing (Debian package nghttp2-client)", file=sys.stderr)
        return 2
    words = ["--model", str(options.model), "--threads", str(options.threads), "--log-level", "error"]
    with spawn_service(words) as service:
        print(json.dumps(run(service, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
